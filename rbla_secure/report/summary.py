"""The result of a run as one object: the last line of ``--json``."""

from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict

from rbla_secure.report.privacy import PrivacySummary, SamplePrivacySummary
from rbla_secure.run_folder.folder import Progress
from rbla_secure.run_folder.records import RoundRecord, RoundSeconds, suspicion_after, total_seconds

# "last5": mean accuracy of the last rounds, less noisy than that of the last round alone.
SETTLED_ROUNDS = 5
# How many of the most suspicious clients are named.
SUSPECTS = 5


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Accuracy(_Part):
    """Shares of held-out examples that are classified correctly."""

    base: float
    final: float
    last5: float


class Seconds(_Part):
    """Wall-clock seconds; rounds of an interrupted run count where they were run. Null where noise withholds them."""

    training: float | None
    protocol: float | None
    evaluation: float
    total: float | None

    @classmethod
    def of(cls, timings: Sequence[RoundSeconds], *, other: float) -> Self:
        """Add the seconds of the rounds and those spent outside of them."""
        spent = total_seconds(timings)
        training, protocol, evaluation = spent["training"], spent["protocol"], spent["evaluation"] or 0.0
        everything = None
        if training is not None and protocol is not None:
            everything = training + protocol + evaluation + other
        return cls(training=training, protocol=protocol, evaluation=evaluation, total=everything)


class ServiceCost(_Part):
    """Cost of a service of the homomorphic mode: wall-clock seconds and bytes of the rounds run in this process."""

    service: str
    rounds: int
    seconds: float
    bytes_to: int
    bytes_from: int


class Suspect(_Part):
    """A client, the estimated share of its rounds in which its group looked suspicious, and how many count, decayed."""

    client: str
    suspicion: float
    rounds: float


class Summary(_Part):
    """One run.

    `bytes_up_per_client` is the mean over clients and rounds, `refused_bands` and `dropouts` count over all rounds,
    `epsilon` is the largest of the four views; it is null without noise, and where the server is trusted with the sums.
    `privacy` is null without noise, `sample_privacy` without noise inside clients; `services` is empty in the other modes than homomorphic.
    `suspicion` names the clients that were most often in suspicious groups, the most suspicious first; it is empty where clients
    are not summed in groups.
    """

    run: str
    accuracy: Accuracy
    rounds: int
    seconds: Seconds
    bytes_up_per_client: float
    refused_bands: int
    dropouts: int
    aborted_rounds: int
    epsilon: float | None
    privacy: PrivacySummary | None
    sample_privacy: SamplePrivacySummary | None = None
    adapter_sha256: str
    services: list[ServiceCost] = []
    suspicion: list[Suspect] = []

    @classmethod
    def of(
        cls,
        progress: Progress,
        *,
        run: str,
        base_accuracy: float,
        other_seconds: float,
        adapter_sha256: str,
        services: Sequence[ServiceCost] = (),
        privacy: PrivacySummary | None = None,
        sample_privacy: SamplePrivacySummary | None = None,
    ) -> Self:
        """The summary of a finished run; `other_seconds` is what was spent outside of its rounds."""
        records = progress.records
        accuracies = [record.accuracy for record in records]
        last = accuracies[-SETTLED_ROUNDS:]
        return cls(
            run=run,
            accuracy=Accuracy(base=base_accuracy, final=accuracies[-1], last5=sum(last) / len(last)),
            rounds=len(records),
            seconds=Seconds.of(progress.timings, other=other_seconds),
            bytes_up_per_client=sum(record.bytes_up_per_client for record in records) / len(records),
            refused_bands=sum(len(record.refused_bands) for record in records),
            dropouts=sum(len(record.dropped) for record in records),
            aborted_rounds=sum(bool(record.aborted) for record in records),
            epsilon=privacy.epsilon if privacy is not None else None,
            privacy=privacy,
            sample_privacy=sample_privacy,
            adapter_sha256=adapter_sha256,
            services=list(services),
            suspicion=suspects(records),
        )


def suspects(records: Sequence[RoundRecord]) -> list[Suspect]:
    """The head of the ranking of a run's clients; empty where no group was judged."""
    return [
        Suspect(client=each.client, suspicion=each.suspicion, rounds=each.rounds)
        for each in suspicion_after(records).ranking()[:SUSPECTS]
    ]
