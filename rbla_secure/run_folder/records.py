"""The records of a round: metrics that are the same in every repetition, and timings that are not."""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from protocols.session import ClientId
from rbla_secure.robustness.grouping import Group
from rbla_secure.robustness.suspicion import Suspicion


class _Record(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        ser_json_inf_nan="constants",  # the loss of a model that diverged is a figure like any other
    )


class RoundRecord(_Record):
    """One line of metrics.jsonl.

    Accuracy and loss are those of the global adapter after the round on the held-out examples. Bands are named by
    their rows, ``rows 9-16``. `cut_off` is null where noise hides it; `unclipped` is the noisy share of unclipped updates
    where adaptive clipping counts them. `bytes_up_per_client` is the mean over the cohort, `bytes_up_by_rank` over its clients
    of one rank. `adapter` is the SHA-256 of the rows after the round. `rejected` says of which client or group the filter kept
    nothing and why, `groups` who was summed together, `flags` which groups looked most suspicious. `checks` holds the
    decisions on the step other than acceptance, and impossible claims of clients, which were not reported.
    """

    round: int
    accuracy: float
    loss: float
    cohort: list[ClientId]
    survivors: list[ClientId]
    dropped: dict[ClientId, str]
    refusals: dict[ClientId, str]
    refused_bands: dict[str, str]
    holders: dict[str, int]
    cut_off: float | None
    unclipped: float | None
    bytes_up_per_client: float
    bytes_up_by_rank: dict[str, float]
    aborted: str
    adapter: str
    rejected: dict[str, str]
    groups: dict[str, list[ClientId]]
    flags: dict[str, float]
    checks: list[str]


class RoundSeconds(_Record):
    """One line of timings.jsonl: wall-clock seconds of one round; differs in every repetition.

    `training` and `clients` are sums over all participants of an in-process run; `clients` is what their side of
    the protocol took. `protocol` is everything of the round but training and evaluation, both sides. The three are null under
    noise, at either level: training time depends on the batch sizes, and sampling time on the noise drawn.
    """

    round: int
    training: float | None
    clients: float | None
    protocol: float | None
    evaluation: float


def suspicion_after(records: Sequence[RoundRecord]) -> Suspicion:
    """Return how often each client has been in flagged groups, over the rounds of a run."""
    state = Suspicion()
    for record in records:
        groups = [Group(name=name, rank=1, members=tuple(members)) for name, members in record.groups.items()]
        state = state.observe(groups, record.flags)
    return state


def aborted_in_a_row(records: Sequence[RoundRecord]) -> int:
    """Count the rounds aborted in a row at the end of the run so far."""
    count = 0
    for record in reversed(records):
        if not record.aborted:
            break
        count += 1
    return count


def total_seconds(timings: Sequence[RoundSeconds]) -> Mapping[str, float | None]:
    """Return the sums over rounds, in seconds by activity; None where a round withholds its seconds."""
    return {
        "training": _total([line.training for line in timings]),
        "clients": _total([line.clients for line in timings]),
        "protocol": _total([line.protocol for line in timings]),
        "evaluation": _total([line.evaluation for line in timings]),
    }


def _total(seconds: Sequence[float | None]) -> float | None:
    known = [each for each in seconds if each is not None]
    return sum(known) if len(known) == len(seconds) else None
