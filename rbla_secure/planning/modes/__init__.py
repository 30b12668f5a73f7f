"""The secure sums that a configuration can name, each with what it shows, needs and promises: one file a mode, one line here."""

from rbla_secure.config import Config
from rbla_secure.config.choices import SecureSumMode
from rbla_secure.planning.modes.homomorphic import HomomorphicMode
from rbla_secure.planning.modes.masking import MaskingMode
from rbla_secure.planning.modes.mode import Mode
from rbla_secure.planning.modes.plain import PlainMode

MODES: dict[SecureSumMode, Mode] = {
    SecureSumMode.PLAIN: PlainMode(),
    SecureSumMode.MASKING: MaskingMode(),
    SecureSumMode.HOMOMORPHIC: HomomorphicMode(),
}
# For baselines and oracles: the sum whose inputs everybody at the server can read.
IN_THE_CLEAR = SecureSumMode.PLAIN


def mode_of(config: Config) -> Mode:
    """The secure sum of a configuration."""
    return MODES[config.secure_sum]
