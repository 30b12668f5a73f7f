"""The default engine: every participant lives in this process, and bytes cross between them all the same.

Drop-outs are injected faults: whether and from which stage on a client falls silent in a round follows from the
seed, so a run with faults repeats exactly.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import final

import numpy as np

from protocols.session import ClientId
from rbla_secure.federation.exchange import Answer, Exchange, Parcel
from rbla_secure.federation.participant import Participant
from rbla_secure.seeding import derive_seed
from rbla_secure.stopwatch import Stopwatch


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Injected drop-outs.

    Args:
        rate: Chance that a client falls silent in a round, at a stage drawn uniformly.
        seed: Of the run.
        stages: The stages of the secure sum.
    """

    rate: float
    seed: int
    stages: tuple[str, ...]

    def silent_from(self, client: ClientId, round_number: int) -> int:
        """Index of the first stage that a client does not answer; the number of stages if it answers all."""
        return _silent_from(self, client, round_number)


@lru_cache(maxsize=4096)
def _silent_from(faults: Faults, client: ClientId, round_number: int) -> int:
    """Drawn once: it is asked for at every stage."""
    generator = np.random.default_rng(derive_seed(faults.seed, "dropout", round_number, client))
    if generator.random() >= faults.rate:
        return len(faults.stages)
    return int(generator.integers(len(faults.stages)))


@final
class InProcess(Exchange):
    """Calls each participant in turn.

    Args:
        participants: Everyone enrolled.
        faults: Who falls silent, and when.
        stopwatch: Measures "clients": what all participants take together, training included.
    """

    def __init__(
        self, participants: Mapping[ClientId, Participant], *, faults: Faults, stopwatch: Stopwatch
    ) -> None:
        self._participants = participants
        self._faults = faults
        self._stopwatch = stopwatch

    def end(self) -> None:
        """The run is over, whether it finished or not: every participant drops its secrets."""
        for participant in self._participants.values():
            participant.end()

    def send(self, messages: Mapping[ClientId, Sequence[Parcel]]) -> Iterator[Answer]:
        """Deliver messages one after the other. A fault silences a client in one round, not in its neighbours."""
        for client, parcels in messages.items():
            for parcel in parcels:
                if self._faults.stages.index(parcel.stage) >= self._faults.silent_from(client, parcel.round):
                    continue
                with self._stopwatch.measure("clients"):
                    data = self._participants[client].handle(parcel.data)
                yield Answer(client=client, parcel=replace(parcel, data=data))
