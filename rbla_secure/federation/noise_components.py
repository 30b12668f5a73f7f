"""The removable components of a client's noise: their seeds, their addition and their removal.

A component is a function of its seed, its band and the round's mechanism, the same to the bit at the client that adds it
and at the server that subtracts it: neither what the sampler draws nor how many words it reads depends on a machine's
exponential (`discrete_gaussian.py` in rbla_secure/privacy).
"""

from collections.abc import Mapping
from typing import Final

from protocols.primitives.kdf import hkdf_expand, purpose
from protocols.primitives.prg import KEY_SIZE, UniformStream
from protocols.primitives.secret import SYSTEM_RANDOM, Secret
from protocols.primitives.shamir import SECRET_SIZE
from protocols.ring import IntegerVector
from protocols.session import ClientId, Session
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.discrete_gaussian import discrete_gaussian
from rbla_secure.privacy.noise import GaussianMechanism
from rbla_secure.seeding import derive_key

# By segment: the seed of component i + 1 is number i.
Seeds = Mapping[int, tuple[Secret, ...]]

_INFO: Final = purpose("noise component")


def component_seeds(plan: Plan, session: Session, client: ClientId) -> Seeds:
    """Draw a client's seeds of one session, which the masking protocol shares. Run by the client, once per session.

    From the operating system, or in a run marked as simulation from the public seed.
    """
    return {
        segment.index: tuple(
            _seed(plan, session, client, segment.index, number) for number in range(segment.extra_secrets)
        )
        for segment in session.segments_of(client)
        if segment.extra_secrets
    }


def add_components(
    integers: Mapping[int, IntegerVector], mechanism: GaussianMechanism, seeds: Seeds
) -> dict[int, IntegerVector]:
    """Add every removable component to every integer of a client, band by band. Run by the client.

    Raises:
        ValueError: The seeds are not one for each removable component.
    """
    added = {}
    for index, values in integers.items():
        total = values.copy()
        removable = mechanism.component_stds(index)[1:]
        for std, seed in zip(removable, seeds.get(index, ()), strict=True):
            total += _component(std, len(total), seed)
        added[index] = total
    return added


def remove_components(
    sums: Mapping[int, IntegerVector],
    mechanism: GaussianMechanism,
    revealed: Mapping[tuple[ClientId, int, int], bytes],
) -> dict[int, IntegerVector]:
    """Subtract from the sums the components whose seeds were revealed. Run by the server.

    Args:
        sums: The sums of the open bands, by band index.
        mechanism: The noise mechanism of the round.
        revealed: By (survivor, open band, number from 0): the seeds that the secure sum revealed.
    """
    left = {index: values.copy() for index, values in sums.items()}
    for (_, index, number), seed in sorted(revealed.items()):
        std = mechanism.component_stds(index)[number + 1]
        left[index] -= _component(std, len(left[index]), Secret(seed))
    return left


def _component(std: float, length: int, seed: Secret) -> IntegerVector:
    # A seed is the seed of one component alone, so its key needs no further context.
    return discrete_gaussian(std, length, UniformStream(hkdf_expand(seed, info=_INFO, size=KEY_SIZE)))


def _seed(plan: Plan, session: Session, client: ClientId, index: int, number: int) -> Secret:
    if not plan.config.privacy.simulation:
        return Secret.random(SECRET_SIZE, SYSTEM_RANDOM)
    return Secret(
        b"".join(
            derive_key(plan.config.seed, "noise component", session.round, client, index, number, half)
            for half in range(SECRET_SIZE // KEY_SIZE)
        )
    )
