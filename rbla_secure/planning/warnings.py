"""What a configuration allows although it weakens a run."""

from rbla_secure.config import Config
from rbla_secure.planning.modes import mode_of
from rbla_secure.planning.noise_settings import noisy
from rbla_secure.planning.quorums import WORTHLESS, closed_for_good

# Below three holders, a holder can subtract its own part and read another's.
SAFE_MIN_HOLDERS = 3


def warnings(config: Config) -> list[str]:
    """What is allowed but weakens the run."""
    found = mode_of(config).warnings(config)
    if (noisy(config) or config.sample_level.noise_multiplier) and config.privacy.simulation:
        found.append(f"SIMULATION: {WORTHLESS}")
    found += [
        f"robustness.f={config.robustness.f}: {text}; the band never opens, and its rows stay as they are"
        for text in closed_for_good(config)
    ]
    if config.min_holders < SAFE_MIN_HOLDERS:
        found.append(
            f"INSECURE: min-holders={config.min_holders} opens bands in which a holder reads another's update; "
            f"{SAFE_MIN_HOLDERS} or more is safe against single holders"
        )
    return found
