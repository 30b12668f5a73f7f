"""The default engine: every participant lives in this process, and bytes cross between them all the same.

Drop-outs are injected faults: whether and from which stage on a client falls silent in a round follows from the
seed, so a run with faults repeats exactly.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from protocols.session import ClientId
from rbla_secure.federation.exchange import Answer, Exchange
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
        generator = np.random.default_rng(derive_seed(self.seed, "dropout", round_number, client))
        if generator.random() >= self.rate:
            return len(self.stages)
        return int(generator.integers(len(self.stages)))


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

    def send(self, requests: Mapping[ClientId, bytes], *, round_number: int, stage: str) -> Iterator[Answer]:
        """Deliver requests one after the other."""
        at = self._faults.stages.index(stage)
        for client, request in requests.items():
            if at >= self._faults.silent_from(client, round_number):
                continue
            with self._stopwatch.measure("clients"):
                data = self._participants[client].handle(request)
            yield Answer(client, data)
