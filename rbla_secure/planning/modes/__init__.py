"""The secure sums that a configuration can name, each with what it reveals, needs and promises: one file per mode.

The file bears the mode's name and defines ``MODE``. To add one, write the file and add its name to ``SecureSumMode`` of
:mod:`rbla_secure.config.choices`.
"""

from functools import cache
from typing import TYPE_CHECKING

from protocols.identity.trust import Identity, TrustStore
from protocols.interface import SecureSum
from rbla_secure.config import Config
from rbla_secure.config.choices import SecureSumMode
from rbla_secure.implementations import implementation
from rbla_secure.planning.modes.mode import Mode

if TYPE_CHECKING:  # the plan checks itself by its mode; only one mode brings services
    from protocols.homomorphic.services.calls import Roles
    from protocols.homomorphic.services.operated import HomomorphicServices
    from rbla_secure.planning.plan import Plan

# For baselines and oracles: the sum whose inputs everybody at the server can read.
IN_THE_CLEAR = SecureSumMode.PLAIN


@cache
def mode_named(choice: SecureSumMode) -> Mode:
    """Find the secure sum of this name."""
    # Held against, never made.
    return implementation(__name__, choice, "MODE", Mode)  # type: ignore[type-abstract]


def mode_of(config: Config) -> Mode:
    """Find the secure sum of a configuration."""
    return mode_named(config.secure_sum)


def build_secure_sum(
    plan: "Plan",
    trust: TrustStore | None = None,
    identity: Identity | None = None,
    *,
    roles: "Roles | None" = None,
) -> SecureSum:
    """Build one party's side of a plan's secure sum.

    Args:
        plan: The terms.
        trust: The keys whose signatures count; needed where the plan needs identities.
        identity: At a participant, its signing identity.
        roles: At a server whose secure sum needs services, the channels to them.

    Raises:
        PlanError: Something that the secure sum needs is missing.
    """
    return plan.mode.build(plan, trust=trust, identity=identity, roles=roles)


def start_services(plan: "Plan") -> "HomomorphicServices | None":
    """Start the parties that a plan's secure sum needs beside server and clients; None where it needs none.

    Raises:
        ServiceError: One does not start.
    """
    return plan.mode.start_services(plan)
