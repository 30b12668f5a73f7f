"""Secret participation: each client takes part by its own draw, hidden from readers and other clients.

A client takes part in a round with the probability `privacy.sample-rate`, independently of everybody else and of other rounds: a
Poisson sample. What an observer without the draws reads is then the sampled Gaussian mechanism that `accounting.py`
composes. The draws follow from a key that the server makes of the operating system's randomness when the federation is built, not
from the seed of the configuration. The server keeps it and knows every draw; a client is given the part of it that gives its own draws,
which it compares with what it is asked for, and learns nothing of anybody else's. Sessions name everybody enrolled, and who is
not drawn is not asked.

The key is in memory alone. A resumed run makes a new key: rounds are sampled anew, and each attempt at a round counts
as another sampled release.

Not covered: an observer who sees who is asked, from the traffic or in the run folder, which names those who answered.
Against it the draws hide nothing, and the privacy spent is that of every round in which a client took part.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self, final

from protocols.primitives.prg import KEY_SIZE
from protocols.primitives.secret import SYSTEM_RANDOM
from protocols.session import ClientId
from rbla_secure.errors import PlanError
from rbla_secure.planning.plan import Plan
from rbla_secure.seeding import derive_key

_WORD_BITS = 64


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """The draws of one client.

    Args:
        key: The client's key, known to the client and the server.
        rate: Probability of taking part in a round, in (0, 1).
    """

    key: bytes = field(repr=False)
    rate: float

    def takes_part(self, round_number: int) -> bool:
        """Return whether the client is in a round: its word is below rate x 2^64, a probability of at most the rate."""
        word = hmac.digest(self.key, b"rbla-secure draw\x00" + round_number.to_bytes(8, "big"), "sha256")
        return int.from_bytes(word[: _WORD_BITS // 8], "big") < int(self.rate * 2**_WORD_BITS)


@final
class SecretCohorts:
    """The draws of all clients, as the server knows them.

    Args:
        key: The key of the whole federation, from which the clients' keys are derived.
        rate: Probability of taking part in a round, in (0, 1).
    """

    def __init__(self, key: bytes, *, rate: float) -> None:
        self._key = key
        self._rate = rate

    @classmethod
    def of(cls, plan: Plan) -> Self | None:
        """Make new draws for a federation; None where the plan's cohorts are public."""
        rate = plan.config.privacy.sample_rate
        if rate == 1:
            return None
        # A simulation repeats, and is worthless as protection: its draws follow from the seed as its noise does.
        simulated = plan.config.privacy.simulation
        return cls(derive_key(plan.config.seed, "draws") if simulated else SYSTEM_RANDOM(KEY_SIZE), rate=rate)

    def draws_of(self, client: ClientId) -> Draws:
        """Return the draws that a client is given when the federation is built."""
        key = hmac.digest(self._key, b"rbla-secure draws of\x00" + client.encode(), "sha256")
        return Draws(key=key, rate=self._rate)

    def asked(self, clients: Iterable[ClientId], round_number: int) -> frozenset[ClientId]:
        """Return which of these clients take part in a round."""
        return frozenset(client for client in clients if self.draws_of(client).takes_part(round_number))


def check_draws(plan: Plan, draws: Draws | SecretCohorts | None) -> None:
    """Refuse a party without draws if its plan has draws, or with draws if it has none.

    Raises:
        PlanError: They disagree: a client would take part in every round although amplification is claimed.
    """
    rate = plan.config.privacy.sample_rate
    if (draws is None) != (rate == 1):
        raise PlanError(
            f"privacy.sample-rate={rate:g} must come with secret draws, and only below 1: they are made when the federation is built"
        )
