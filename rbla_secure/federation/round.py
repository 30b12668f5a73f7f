"""One round, top to bottom: the data's way from the broadcast adapter to the next one. Run by the server.

    broadcast -> [clients: train, clip, pack, quantize] -> secure sum -> dequantize -> average -> server step

The steps in brackets are the participants' (`participant.py`); the server sees only what the secure sum shows it.
The stages before the input (keys, shares) need no adapter: they ride along with the round before.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest

from protocols.session import ClientId
from protocols.transcript import Transcript
from rbla_secure.config import AverageRule
from rbla_secure.federation.conversation import Conversation, Turn, hold
from rbla_secure.federation.exchange import Exchange
from rbla_secure.federation.plan import Plan
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.average import (
    GroupAverage,
    Totals,
    apply_average,
    fedavg,
    rbla_average,
    zero_pad_average,
)
from rbla_secure.privacy.quantize import dequantize


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundOutcome:
    """What a round came to.

    Args:
        adapter: The next global adapter; after an abort, the one the round began with.
        survivors: The clients whose updates are in the average.
        dropped: By client that fell silent or was turned away, the stage at which it did.
        refusals: By client, why it declined or why its answer was turned away.
        refused_bands: By band, why it stayed closed; its rows are unchanged.
        holders: By opened band, how many clients its sum covers.
        cut_off: Mean share of coordinates beyond the per-coordinate bound, over clients and bands; None if aborted.
        transcript: Bytes that crossed.
        aborted: Why the round ended without a result; empty if it did not.
    """

    adapter: Adapter
    survivors: tuple[ClientId, ...] = ()
    dropped: Mapping[ClientId, str] = field(default_factory=dict)
    refusals: Mapping[ClientId, str] = field(default_factory=dict)
    refused_bands: Mapping[int, str] = field(default_factory=dict)
    holders: Mapping[int, int] = field(default_factory=dict)
    cut_off: float | None = None
    transcript: Transcript = field(default_factory=Transcript)
    aborted: str = ""


def prepare_round(conversation: Conversation, exchange: Exchange) -> None:
    """The stages before the input on their own: where there is no round before to ride along with."""
    for stage in _before_input(conversation):
        hold(exchange, [Turn(conversation=conversation, stage=stage)])


def run_round(
    plan: Plan,
    conversation: Conversation,
    adapter: Adapter,
    exchange: Exchange,
    *,
    upcoming: Conversation | None = None,
) -> RoundOutcome:
    """Take the global adapter through one prepared round, and prepare the upcoming one on the way.

    An aborted round is an outcome, not an error: the adapter it returns is the one it was given.
    """
    # Clients train, clip, pack and quantize; the secure sum adds their integers band by band.
    stages = conversation.stages
    rest = stages[stages.index(conversation.input_stage) :]
    riding = _before_input(upcoming) if upcoming is not None else ()
    for stage, early in zip_longest(rest, riding):
        turns = []
        if stage is not None:
            broadcast = adapter if stage == conversation.input_stage else None
            turns.append(Turn(conversation=conversation, stage=stage, adapter=broadcast))
        if early is not None and upcoming is not None:
            turns.append(Turn(conversation=upcoming, stage=early))
        hold(exchange, turns)
    sums = conversation.result(adapter)
    if sums is None:
        return _outcome(conversation, adapter)

    # The integers of each open band become totals.
    segments = conversation.session.segments
    holders = {index: len(set(segments[index].holders).intersection(sums.survivors)) for index in sums.sums}
    totals = dequantize(sums.sums, plan.quantizer, holders=holders)

    # Totals become one average over exactly the holders of each row, and the average moves the adapter.
    averaged = average(plan, totals)
    moved = apply_average(adapter, averaged, learning_rate=plan.config.server_learning_rate)

    return _outcome(
        conversation,
        moved,
        survivors=sums.survivors,
        refused_bands=sums.refused,
        holders=holders,
        cut_off=_mean_cut_off(totals, holders),
    )


def average(plan: Plan, totals: Totals) -> GroupAverage:
    """The average that the plan names."""
    match plan.config.average:
        case AverageRule.RBLA:
            return rbla_average(totals, plan.bands, plan.layout, gamma=plan.config.gamma)
        case AverageRule.ZERO_PAD:
            return zero_pad_average(totals, plan.bands, plan.layout)
        case AverageRule.FEDAVG:
            return fedavg(totals, plan.bands, plan.layout)


def _before_input(conversation: Conversation) -> tuple[str, ...]:
    return conversation.stages[: conversation.stages.index(conversation.input_stage)]


def _outcome(
    conversation: Conversation,
    adapter: Adapter,
    *,
    survivors: tuple[ClientId, ...] = (),
    refused_bands: Mapping[int, str] | None = None,
    holders: Mapping[int, int] | None = None,
    cut_off: float | None = None,
) -> RoundOutcome:
    return RoundOutcome(
        adapter=adapter,
        survivors=survivors,
        dropped=conversation.dropped,
        refusals=conversation.refusals,
        refused_bands=refused_bands or {},
        holders=holders or {},
        cut_off=cut_off,
        transcript=conversation.transcript,
        aborted=conversation.aborted,
    )


def _mean_cut_off(totals: Totals, holders: Mapping[int, int]) -> float:
    """Over all coordinates that were summed: a band counts as often as it has values and holders."""
    weights = {index: len(total.weighted_sum) * holders[index] for index, total in totals.items()}
    everything = sum(weights.values())
    summed = sum(totals[index].cut_off * weight for index, weight in weights.items())
    return summed / everything if everything else 0.0
