"""Transport of a small federation: participants called in turn, and a secure sum that keeps what it opened."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

from protocols.interface import ExtraSecrets, SecureSum, SumClient, SumResult, SumServer
from protocols.session import ClientId, Session
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.exchange import Answer, Exchange, Parcel


@final
class Calls(Exchange):
    """Calls each participant in turn; absent ones answer nothing, late ones nothing from their input on.

    Args:
        participants: Participants that are present, by client.
        late: Those of them that fall silent in every round once inputs are due.
        ended: Numbers of the rounds in which all fall silent then.
        input_stage: Name of the sum's stage in which inputs are sent.
    """

    def __init__(
        self,
        participants: Mapping[ClientId, Participant],
        *,
        late: Collection[ClientId],
        ended: Collection[int],
        input_stage: str,
    ) -> None:
        self._participants = participants
        self._late = late
        self._ended = ended
        self._input_stage = input_stage
        self._began: set[int] = set()

    def send(self, messages: Mapping[ClientId, Sequence[Parcel]]) -> Iterator[Answer]:
        """Deliver messages one after the other."""
        for client, parcels in messages.items():
            for parcel in parcels:
                if parcel.stage == self._input_stage:
                    self._began.add(parcel.round)
                falls_silent = client in self._late or parcel.round in self._ended
                if client in self._participants and not (falls_silent and parcel.round in self._began):
                    data = self._participants[client].handle(parcel.data)
                    yield Answer(client=client, parcel=replace(parcel, data=data))

    def end(self) -> None:
        """Let every participant delete its secrets."""
        for participant in self._participants.values():
            participant.end()


@final
class Watched(SecureSum):
    """The server's side of a secure sum, and what it opened."""

    name = "watched"

    def __init__(self, secure_sum: SecureSum) -> None:
        self._secure_sum = secure_sum
        self.input_stage = secure_sum.input_stage  # type: ignore[misc]  # that of whichever sum it watches
        self._server: _Server | None = None

    @property
    def stages(self) -> tuple[str, ...]:
        """Stages of the watched sum."""
        return self._secure_sum.stages

    @property
    def opened(self) -> SumResult | None:
        """Result of the server in the session that it opened last; None if there is none."""
        return self._server.opened if self._server is not None else None

    def client(
        self, session: Session, me: ClientId, *, extra_secrets: ExtraSecrets | None = None
    ) -> SumClient:
        """Return the client of the watched sum."""
        return self._secure_sum.client(session, me, extra_secrets=extra_secrets)

    def server(self, session: Session) -> SumServer:
        """Return the server of the watched sum, with its result recorded."""
        self._server = _Server(inner=self._secure_sum.server(session))
        return self._server


@final
@dataclass(slots=True, kw_only=True)
class _Server(SumServer):
    inner: SumServer
    opened: SumResult | None = field(default=None, repr=False)

    def requests(self) -> Mapping[ClientId, bytes]:
        return self.inner.requests()

    def receive(self, client: ClientId, reply: bytes) -> None:
        self.inner.receive(client, reply)

    def close_stage(self) -> None:
        self.inner.close_stage()

    def expect(self, bindings: Mapping[int, bytes]) -> None:
        self.inner.expect(bindings)

    @property
    def faults(self) -> Mapping[ClientId, str]:
        return self.inner.faults

    @property
    def disputes(self) -> Mapping[ClientId, tuple[ClientId, ...]]:
        return self.inner.disputes

    @property
    def contributors(self) -> tuple[ClientId, ...] | None:
        return self.inner.contributors

    def result(self, bindings: Mapping[int, bytes]) -> SumResult:
        self.opened = self.inner.result(bindings)
        return self.opened
