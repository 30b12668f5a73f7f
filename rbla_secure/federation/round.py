"""One round, top to bottom: the data's way from the broadcast adapter to the next one. Run by the server.

    broadcast -> [clients: train, clip, pack, quantize] -> secure sum -> dequantize -> average -> server step

The steps in brackets are the participants' (`participant.py`); the server sees only what the secure sum shows it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from protocols.errors import BelowThresholdError, ProtocolError, ShareError
from protocols.interface import SumResult, SumServer
from protocols.session import ClientId, Session
from protocols.transcript import Transcript
from rbla_secure.config import AverageRule
from rbla_secure.errors import RblaSecureError
from rbla_secure.federation.exchange import Answer, Exchange
from rbla_secure.federation.messages import StageRefusal, StageRequest, decode_answer
from rbla_secure.federation.participant import model_bindings
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


def run_round(plan: Plan, session: Session, adapter: Adapter, exchange: Exchange) -> RoundOutcome:
    """Take the global adapter through one round.

    An aborted round is an outcome, not an error: the adapter it returns is the one it was given.
    """
    talk = _Conversation(plan, session, adapter, exchange)

    # Clients train, clip, pack and quantize; the secure sum adds their integers band by band.
    try:
        sums = talk.secure_sum()
    except (BelowThresholdError, ShareError) as error:
        return RoundOutcome(
            adapter=adapter,
            dropped=talk.dropped,
            refusals=talk.refusals,
            transcript=talk.transcript,
            aborted=str(error),
        )

    # The integers of each open band become totals.
    holders = {
        index: len(set(session.segments[index].members).intersection(sums.survivors)) for index in sums.sums
    }
    totals = dequantize(sums.sums, plan.quantizer, holders=holders)

    # Totals become one average over exactly the holders of each row, and the average moves the adapter.
    averaged = average(plan, totals)
    moved = apply_average(adapter, averaged, learning_rate=plan.config.server_learning_rate)

    return RoundOutcome(
        adapter=moved,
        survivors=sums.survivors,
        dropped=talk.dropped,
        refusals=talk.refusals,
        refused_bands=sums.refused,
        holders=holders,
        cut_off=_mean_cut_off(totals, holders),
        transcript=talk.transcript,
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


def _mean_cut_off(totals: Totals, holders: Mapping[int, int]) -> float:
    """Over all coordinates that were summed: a band counts as often as it has values and holders."""
    weights = {index: len(total.weighted_sum) * holders[index] for index, total in totals.items()}
    everything = sum(weights.values())
    return (
        sum(totals[index].cut_off * weight for index, weight in weights.items()) / everything
        if everything
        else 0.0
    )


class _Conversation:
    """The exchange of one session: stage by stage, whoever answers in order stays in."""

    def __init__(self, plan: Plan, session: Session, adapter: Adapter, exchange: Exchange) -> None:
        self._plan = plan
        self._session = session
        self._adapter = adapter
        self._exchange = exchange
        self.dropped: dict[ClientId, str] = {}
        self.refusals: dict[ClientId, str] = {}
        self.transcript = Transcript()

    def secure_sum(self) -> SumResult:
        protocol = self._plan.secure_sum
        server = protocol.server(self._session)
        for stage in protocol.stages:
            self._hold_stage(server, stage, with_adapter=stage == protocol.input_stage)
        return server.result(model_bindings(self._plan, self._adapter))

    def _hold_stage(self, server: SumServer, stage: str, *, with_adapter: bool) -> None:
        requests = {
            client: StageRequest(
                session=self._session.to_bytes(),
                payload=payload,
                adapter=self._adapter.sliced(self._plan.ranks[client]).to_bytes() if with_adapter else b"",
            ).to_bytes()
            for client, payload in server.requests().items()
        }
        for client, request in requests.items():
            self.transcript.to_client(client, stage, request)
        heard = set()
        for answer in self._exchange.send(requests, round_number=self._session.round, stage=stage):
            self.transcript.from_client(answer.client, stage, answer.data)
            if self._take(server, answer):
                heard.add(answer.client)
        for client in sorted(requests.keys() - heard):
            self.dropped[client] = stage
        server.close_stage()

    def _take(self, server: SumServer, answer: Answer) -> bool:
        """Fold one answer in; a refusal or a bad answer is noted and costs its sender the round."""
        try:
            message = decode_answer(answer.data)
            if isinstance(message, StageRefusal):
                self.refusals[answer.client] = f"{message.error}: {message.reason}"
                return False
            server.receive(answer.client, message.payload)
        except (ProtocolError, RblaSecureError) as error:
            self.refusals[answer.client] = f"{type(error).__name__}: {error}"
            return False
        return True
