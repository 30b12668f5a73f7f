"""The default engine: all participants run in this process but still exchange bytes.

Drop-outs are injected faults: whether and from which stage on a client falls silent in a round follows from the
seed, so a run with faults repeats exactly. Whether its input is still in the sum follows from the seed alone, so runs
with faults compare over all secure sums too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self, final

import numpy as np

from protocols.interface import SecureSum
from protocols.session import ClientId
from rbla_secure.engines.time_limit import time_limit
from rbla_secure.errors import TimeLimitError
from rbla_secure.federation.build import Enrolment, LocalClient
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.exchange import Answer, Exchange, Parcel
from rbla_secure.planning.plan import Plan
from rbla_secure.seeding import derive_seed
from rbla_secure.stopwatch import Stopwatch

# A fault comes at one of four moments of a round, the last of which lies after the client's input was sent.
MOMENTS = 4


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Injected drop-outs.

    Args:
        rate: Chance that a client falls silent in a round, at a moment drawn uniformly.
        seed: The seed of the run, from which drop-outs are drawn.
        stages: The stages of the secure sum.
        input_stage: The stage whose answer puts an input into the sum.
    """

    rate: float
    seed: int
    stages: tuple[str, ...]
    input_stage: str

    def silent_from(self, client: ClientId, round_number: int) -> int:
        """Return the index of the first stage that a client does not answer; the number of stages if it answers all.

        The moments before the input are spread over the stages up to it. The one after it is the stage after it; where
        there is none, the client falls silent when nothing is asked of it any more.
        """
        return _silent_from(self, client, round_number)

    @classmethod
    def of(cls, plan: Plan, secure_sum: SecureSum) -> Self:
        """Make the drop-outs that a configuration injects."""
        return cls(
            rate=plan.config.dropout_rate,
            seed=plan.config.seed,
            stages=secure_sum.stages,
            input_stage=secure_sum.upload_stage,
        )


@lru_cache(maxsize=4096)
def _silent_from(faults: Faults, client: ClientId, round_number: int) -> int:
    """Draw the stage from which a client is silent; cached, because every stage asks for it."""
    generator = np.random.default_rng(derive_seed(faults.seed, "dropout", round_number, client))
    if generator.random() >= faults.rate:
        return len(faults.stages)
    moment = int(generator.integers(MOMENTS))
    before = faults.stages.index(faults.input_stage) + 1
    return before if moment == MOMENTS - 1 else moment * before // (MOMENTS - 1)


@final
class InProcess(Exchange):
    """Calls each participant in turn.

    Args:
        participants: All enrolled participants, by name.
        faults: The injected drop-outs: which client falls silent, and when.
        stopwatch: Measures "clients": the time of all participants together, training included.
        stage_seconds: Longest time of one answer; whoever takes longer has fallen silent. 0 sets no limit.
    """

    def __init__(
        self,
        participants: Mapping[ClientId, Participant],
        *,
        faults: Faults,
        stopwatch: Stopwatch,
        stage_seconds: float = 0.0,
    ) -> None:
        self._participants = participants
        self.faults = faults
        self._stopwatch = stopwatch
        self._stage_seconds = stage_seconds

    @classmethod
    def of(
        cls, enrolment: Enrolment, clients: Mapping[ClientId, LocalClient], *, stopwatch: Stopwatch
    ) -> Self:
        """Make the engine of a federation whose clients all run in this process, with the configured drop-outs."""
        plan = enrolment.plan
        return cls(
            enrolment.participants(clients),
            faults=Faults.of(plan, enrolment.secure_sum),
            stopwatch=stopwatch,
            stage_seconds=plan.config.stage_seconds,
        )

    def end(self) -> None:
        """Let every participant drop its secrets: the run is over, whether it finished or not."""
        for participant in self._participants.values():
            participant.end()

    def send(self, messages: Mapping[ClientId, Sequence[Parcel]]) -> Iterator[Answer]:
        """Deliver messages one after the other. A fault silences a client in one round, not in its neighbours."""
        for client, parcels in messages.items():
            for parcel in parcels:
                if self.faults.stages.index(parcel.stage) >= self.faults.silent_from(client, parcel.round):
                    continue
                try:
                    with self._stopwatch.measure("clients"), time_limit(self._stage_seconds):
                        data = self._participants[client].handle(parcel.data)
                except TimeLimitError:
                    continue
                yield Answer(client=client, parcel=replace(parcel, data=data))
