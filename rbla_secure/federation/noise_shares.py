"""A party's share of the noise on a sum: the part of it that is never removed."""

from protocols.primitives.prg import KEY_SIZE, UniformStream
from protocols.primitives.secret import SYSTEM_RANDOM
from protocols.ring import IntegerVector
from protocols.session import Session
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.discrete_gaussian import discrete_gaussian
from rbla_secure.privacy.noise import GaussianMechanism
from rbla_secure.seeding import derive_key

# By segment, or by band before segments are cut: a party's integers.
Integers = dict[int, IntegerVector]


def noise_key(plan: Plan, session: Session, party: str) -> bytes:
    """What a party's noise grows from: the operating system, or in a run marked as simulation the public seed."""
    if not plan.config.privacy.simulation:
        return SYSTEM_RANDOM(KEY_SIZE)
    return derive_key(plan.config.seed, "noise", session.round, party)


def add_noise(integers: Integers, mechanism: GaussianMechanism, stream: UniformStream) -> Integers:
    """One party's noise on every integer, band by band: all of it that is never removed."""
    return {
        index: values + discrete_gaussian(mechanism.component_stds(index)[0], len(values), stream)
        for index, values in sorted(integers.items())
    }
