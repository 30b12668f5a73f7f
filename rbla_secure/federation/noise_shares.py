"""The keys of noise that is never removed."""

from protocols.primitives.prg import KEY_SIZE
from protocols.primitives.secret import SYSTEM_RANDOM
from protocols.ring import IntegerVector
from protocols.session import Session
from rbla_secure.planning.plan import Plan
from rbla_secure.seeding import derive_key

# By segment, or by band before segments are cut: a party's integers.
Integers = dict[int, IntegerVector]


def noise_key(plan: Plan, session: Session, party: str) -> bytes:
    """Return the key of a party's noise: random from the operating system, or from the public seed in a simulation."""
    if not plan.config.privacy.simulation:
        return SYSTEM_RANDOM(KEY_SIZE)
    return derive_key(plan.config.seed, "noise", session.round, party)
