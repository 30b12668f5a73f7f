"""One session as the server talks it through: stage by stage, whoever answers in order stays in.

Several conversations can share an exchange: the input and reveal stages of one round travel together with the key
stages of the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from protocols.errors import BelowThresholdError, ProtocolError, ShareError
from protocols.interface import SecureSum, SumResult
from protocols.session import ClientId, Session
from protocols.transcript import Transcript
from rbla_secure.errors import RblaSecureError
from rbla_secure.federation.exchange import Answer, Exchange, Parcel
from rbla_secure.federation.messages import StageRefusal, StageRequest, decode_answer
from rbla_secure.federation.participant import model_bindings
from rbla_secure.federation.plan import Plan
from rbla_secure.lora.adapter import Adapter


@final
class Conversation:
    """The server's side of one session.

    Attributes:
        dropped: By client that fell silent or was turned away, the stage at which it did.
        refusals: By client, why it declined or why its answer was turned away.
        transcript: Bytes that crossed.
        aborted: Why the session ended without a result; empty as long as it did not.
        contributors: Whose inputs have arrived: known once the input stage has closed.
    """

    def __init__(self, plan: Plan, session: Session, secure_sum: SecureSum) -> None:
        self._plan = plan
        self._server = secure_sum.server(session)
        self._asked: frozenset[ClientId] = frozenset()
        self._waiting: set[ClientId] = set()
        self.session = session
        self.stages = secure_sum.stages
        self.input_stage = secure_sum.input_stage
        self.dropped: dict[ClientId, str] = {}
        self.refusals: dict[ClientId, str] = {}
        self.transcript = Transcript()
        self.aborted = ""
        self.contributors: tuple[ClientId, ...] = ()

    def ask(self, stage: str, adapter: Adapter | None) -> dict[ClientId, Parcel]:
        """The parcels of one stage; none once the session is over."""
        if self.aborted:
            return {}
        parcels = {}
        for client, payload in self._server.requests().items():
            rows = (
                adapter.sliced(self._plan.broadcast_rank(client)).to_bytes() if adapter is not None else b""
            )
            request = StageRequest(session=self.session.to_bytes(), payload=payload, adapter=rows)
            parcels[client] = Parcel(round=self.session.round, stage=stage, data=request.to_bytes())
            self.transcript.to_client(client, stage, parcels[client].data)
        self._asked = frozenset(parcels)
        self._waiting = set(parcels)
        return parcels

    def hear(self, answer: Answer) -> None:
        """Fold one answer in; a refusal or a bad answer is noted and costs its sender the round."""
        self.transcript.from_client(answer.client, answer.parcel.stage, answer.parcel.data)
        try:
            message = decode_answer(answer.parcel.data)
            if isinstance(message, StageRefusal):
                self.refusals[answer.client] = f"{message.error}: {message.reason}"
                return
            self._server.receive(answer.client, message.payload)
        except (ProtocolError, RblaSecureError) as error:
            self.refusals[answer.client] = f"{type(error).__name__}: {error}"
            return
        self._waiting.discard(answer.client)

    def close(self, stage: str) -> None:
        """Fix who took part in a stage."""
        if self.aborted:
            return
        self.dropped |= dict.fromkeys(sorted(self._waiting), stage)
        if stage == self.input_stage:
            self.contributors = tuple(sorted(self._asked - self._waiting))
        try:
            self._server.close_stage()
        except BelowThresholdError as error:
            self.aborted = str(error)

    def result(self, adapter: Adapter) -> SumResult | None:
        """What the secure sum opens; None if the session ended without a result."""
        if self.aborted:
            return None
        try:
            return self._server.result(model_bindings(self._plan, adapter))
        except (BelowThresholdError, ShareError) as error:
            self.aborted = str(error)
            return None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A stage of a conversation, with the adapter where the stage takes inputs."""

    conversation: Conversation
    stage: str
    adapter: Adapter | None = None


def hold(exchange: Exchange, turns: Sequence[Turn]) -> None:
    """One exchange: every participant gets one message with its parcels of all turns."""
    by_round = {turn.conversation.session.round: turn for turn in turns}
    messages: dict[ClientId, list[Parcel]] = {}
    for turn in turns:
        for client, parcel in turn.conversation.ask(turn.stage, turn.adapter).items():
            messages.setdefault(client, []).append(parcel)
    for answer in exchange.send(messages):
        turn_of = by_round.get(answer.parcel.round)
        # An answer to another round or stage than was asked, such as one that comes too late, is nobody's answer.
        if turn_of is not None and turn_of.stage == answer.parcel.stage:
            turn_of.conversation.hear(answer)
    for turn in turns:
        turn.conversation.close(turn.stage)
