"""Who takes part in a round where readers and other clients are not to know: each client by a draw of its own.

A client takes part in a round with the probability `privacy.sample-rate`, independently of everybody else and of other rounds: a
Poisson sample. What an observer reads who does not know the draws is then the sampled Gaussian mechanism that `accounting.py`
composes. The draws follow from a key that the server makes of the operating system's randomness when the federation is built, not
from the seed of the configuration. The server keeps it and knows every draw; a client is given the part of it that gives its own draws,
which it compares with what it is asked for, and learns nothing of anybody else's. Sessions name everybody enrolled, and who is
not drawn is not asked.

The key is in memory alone. Whoever goes on with a run makes another one: rounds are sampled anew, and each attempt at one counts
as another sampled release.

Not covered: whoever sees who is asked, by the traffic or in the run folder, which names those who answered. Against it the draws hide
nothing, and what is spent is that of every round in which a client took part.
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
    """One client's own.

    Args:
        key: Known to the client and the server.
        rate: Probability of a round.
    """

    key: bytes = field(repr=False)
    rate: float

    def takes_part(self, round_number: int) -> bool:
        """Whether the client is in a round: a word below rate x 2^64, so with a probability of at most the rate."""
        word = hmac.digest(self.key, b"rbla-secure draw\x00" + round_number.to_bytes(8, "big"), "sha256")
        return int.from_bytes(word[: _WORD_BITS // 8], "big") < int(self.rate * 2**_WORD_BITS)


@final
class SecretCohorts:
    """Everybody's draws, as the server knows them.

    Args:
        key: Of the whole federation.
        rate: Of the plan.
    """

    def __init__(self, key: bytes, *, rate: float) -> None:
        self._key = key
        self._rate = rate

    @classmethod
    def of(cls, plan: Plan) -> Self | None:
        """New draws for a federation; None where the plan has everybody know who takes part."""
        rate = plan.config.privacy.sample_rate
        if rate == 1:
            return None
        # A simulation repeats, and is worthless as protection: its draws follow from the seed as its noise does.
        simulated = plan.config.privacy.simulation
        return cls(derive_key(plan.config.seed, "draws") if simulated else SYSTEM_RANDOM(KEY_SIZE), rate=rate)

    def draws_of(self, client: ClientId) -> Draws:
        """What the client is given when the federation is built."""
        key = hmac.digest(self._key, b"rbla-secure draws of\x00" + client.encode(), "sha256")
        return Draws(key=key, rate=self._rate)

    def asked(self, clients: Iterable[ClientId], round_number: int) -> frozenset[ClientId]:
        """Who of these takes part in a round."""
        return frozenset(client for client in clients if self.draws_of(client).takes_part(round_number))


def check_draws(plan: Plan, draws: Draws | SecretCohorts | None) -> None:
    """Refuse a party without the draws that its plan has, or with draws that it has not.

    Raises:
        PlanError: So that nobody takes part in every round where amplification is claimed.
    """
    rate = plan.config.privacy.sample_rate
    if (draws is None) != (rate == 1):
        raise PlanError(
            f"privacy.sample-rate={rate:g} must come with secret draws, and only below 1: they are made when the federation is built"
        )
