"""The server's side of one session: stage by stage, clients that answer in order stay in.

Several session servers can share an exchange: the input and reveal stages of one round travel together with the key
stages of the next.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, final

from protocols.errors import BelowThresholdError, ProtocolError, SealError, ServiceError, ShareError
from protocols.interface import SecureSum, SumResult
from protocols.session import ClientId, Session
from protocols.transcript import Transcript
from rbla_secure.errors import RblaSecureError
from rbla_secure.federation.broadcast import band_digests, encode_rest, model_bindings
from rbla_secure.federation.exchange import Answer, Exchange, Parcel
from rbla_secure.federation.messages import StageRefusal, StageRequest, decode_answer
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.plan import Plan
from rbla_secure.run_folder.audit_log import AuditLog, EventKind, LogEntry

_NAMED: Final = 5  # so many names are enough for a line of the log


@final
class SessionServer:
    """The server's side of one session.

    Args:
        plan: The terms of the run.
        session: The terms of this session.
        secure_sum: The server's side of the secure sum.
        log: Where refusals and drop-outs are logged, at the end of each stage.
        asked: The clients to ask, where secret draws say who takes part; all members if not given. Others count as not
            drawn, not as dropped out.

    Attributes:
        dropped: By client that fell silent or was rejected, the stage at which that happened.
        refusals: By client, why it declined, why its answer was rejected, or how it broke the protocol.
        transcript: The bytes that were exchanged.
        aborted: Why the session ended without a result; empty as long as it did not.
        contributors: The clients whose inputs will be in the opened sums; None until that is fixed.
    """

    def __init__(
        self,
        plan: Plan,
        session: Session,
        secure_sum: SecureSum,
        *,
        log: AuditLog | None = None,
        asked: Collection[ClientId] | None = None,
    ) -> None:
        self._drawn = frozenset(session.members if asked is None else asked)
        self._plan = plan
        self._log = log
        self._entries: list[LogEntry] = []
        self._seen_refusing: set[ClientId] = set()
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
        self.contributors: tuple[ClientId, ...] | None = None

    def requests(self, stage: str, adapter: Adapter | None) -> dict[ClientId, Parcel]:
        """Make the parcels of one stage; none once the session is over."""
        if self.aborted:
            return {}
        digests = band_digests(self._plan, adapter) if adapter is not None else ()
        try:
            if digests:
                self._server.expect(model_bindings(self.session, digests))
            requests = self._server.requests()
        except ServiceError as error:
            self.aborted = str(error)
            return {}
        parcels = {}
        rows = self._rows(adapter)
        for client, payload in requests.items():
            if client not in self._drawn:
                continue
            request = StageRequest(
                session=self.session.to_bytes(),
                payload=payload,
                adapter=rows.get(self._plan.broadcast_rank(client), b""),
                digests=encode_rest(self._plan, client, digests) if digests else b"",
            )
            parcels[client] = Parcel(round=self.session.round, stage=stage, data=request.to_bytes())
            self.transcript.to_client(client, stage, parcels[client].data)
        self._asked = frozenset(parcels)
        self._waiting = set(parcels)
        return parcels

    def _rows(self, adapter: Adapter | None) -> dict[int, bytes]:
        """Return, by broadcast rank, the rows as bytes, the same for all clients of that rank."""
        if adapter is None:
            return {}
        ranks = {self._plan.broadcast_rank(client) for client in self.session.members}
        return {rank: adapter.sliced(rank).to_bytes() for rank in ranks}

    def receive(self, answer: Answer) -> None:
        """Process one answer; a refusal or a bad answer is noted and excludes its sender from the round."""
        self.transcript.from_client(answer.client, answer.parcel.stage, answer.parcel.data)
        try:
            message = decode_answer(answer.parcel.data)
            if isinstance(message, StageRefusal):
                self._refused(answer.client, "client", message.error, message.reason)
                return
            self._server.receive(answer.client, message.payload)
        except (ProtocolError, RblaSecureError) as error:
            self._refused(answer.client, "server", type(error).__name__, str(error))
            return
        self._waiting.discard(answer.client)

    def _refused(self, client: ClientId, by: str, error: str, reason: str) -> None:
        self.refusals[client] = f"{error}: {reason}"
        # The first one of a client in a stage: whoever answers again and again does not fill the log.
        if client not in self._seen_refusing:
            self._seen_refusing.add(client)
            self._note(EventKind.REFUSAL, client=client, by=by, error=error, reason=reason)

    def _note(self, kind: EventKind, **details: str) -> None:
        self._entries.append(LogEntry.of_session(self.session, kind, **details))

    def close(self, stage: str) -> None:
        """Fix who took part in a stage."""
        if self.aborted:
            return
        for client in sorted(self._waiting):
            self.dropped[client] = stage
            self._note(EventKind.DROPPED, client=client, stage=stage)
        if self._log is not None:
            self._log.append(*self._entries)
        self._entries.clear()
        self._seen_refusing.clear()
        try:
            self._server.close_stage()
        except BelowThresholdError as error:
            self._abort(error)
        else:
            self._note_contributors(stage)

    def _note_contributors(self, stage: str) -> None:
        """Note, once fixed, whose inputs are summed, and who was left out although it had sent its own."""
        if self.contributors is not None or self._server.contributors is None:
            return
        self.contributors = self._server.contributors
        for client in sorted(self._asked - self._waiting - set(self.contributors)):
            self.dropped[client] = stage
            if self._log is not None:
                self._log.append(
                    LogEntry.of_session(self.session, EventKind.DROPPED, client=client, stage=stage)
                )

    def result(self, adapter: Adapter) -> SumResult | None:
        """Return what the secure sum opens; None if the session ended without a result."""
        if self.aborted:
            return None
        try:
            digests = band_digests(self._plan, adapter)
            found = self._server.result(model_bindings(self.session, digests))
        except (BelowThresholdError, ServiceError, ShareError) as error:
            self._abort(error)
            return None
        self._note_faults()
        return found

    def _abort(self, error: ProtocolError) -> None:
        """End the session without a result; the clients that caused it are named all the same."""
        self.aborted = str(error)
        self._note_faults()

    def _note_faults(self) -> None:
        """Log who is at fault, and which clients report unusable messages of which others."""
        for client, dealers in self._server.disputes.items():
            more = f" and {len(dealers) - _NAMED} more" if len(dealers) > _NAMED else ""
            reason = (
                f"cannot use the share bundles of {', '.join(dealers[:_NAMED])}{more}: "
                "one of each pair does not follow the protocol"
            )
            self._refused(client, "client", SealError.__name__, reason)
        self._seen_refusing.clear()
        for client, reason in self._server.faults.items():
            self._refused(client, "server", ShareError.__name__, reason)
        if self._log is not None:
            self._log.append(*self._entries)
        self._entries.clear()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StageOfSession:
    """A stage that is due in a session, with the adapter where the stage takes inputs.

    Args:
        session_server: The server's side of the session.
        stage: Name of the stage.
        adapter: The global adapter to broadcast; None where the stage takes no inputs.
    """

    session_server: SessionServer
    stage: str
    adapter: Adapter | None = None


def exchange_stages(exchange: Exchange, stages: Sequence[StageOfSession]) -> None:
    """Take stages of several sessions through one exchange: every participant gets one message with its parcels of all."""
    by_round = {each.session_server.session.round: each for each in stages}
    messages: dict[ClientId, list[Parcel]] = {}
    for each in stages:
        for client, parcel in each.session_server.requests(each.stage, each.adapter).items():
            messages.setdefault(client, []).append(parcel)
    for answer in exchange.send(messages):
        due = by_round.get(answer.parcel.round)
        # An answer to another round or stage than was asked, such as one that comes too late, is nobody's answer.
        if due is not None and due.stage == answer.parcel.stage:
            due.session_server.receive(answer)
    for each in stages:
        each.session_server.close(each.stage)
