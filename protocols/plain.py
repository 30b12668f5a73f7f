"""The same contract without protection: the baseline for cost, and the oracle for exactness."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, ClassVar, Self, final

import numpy as np

from protocols.codec import U8, U16, Digest, Fixed, Given, Vector
from protocols.containers import ByPosition, Pair
from protocols.errors import BelowThresholdError, ContextError, InputError, RosterError, StageError
from protocols.interface import (
    ExtraSecrets,
    SecureSum,
    SegmentInput,
    SumClient,
    SumResult,
    SumServer,
    check_binding,
    check_inputs,
    reason_to_reject,
    refuse_extra_secrets,
)
from protocols.message import Message
from protocols.ring import IntegerVector, RingVector, centred, to_ring
from protocols.session import ClientId, Session
from protocols.wire import DIGEST_SIZE, MessageType


@cache
def _bound_vectors(bits: int) -> ByPosition[tuple[bytes, RingVector]]:
    return ByPosition(Pair(Fixed(DIGEST_SIZE), Vector(bits)))


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _PlainFields(Message):
    """A plain input in its wire format: every vector follows its binding."""

    message_type = MessageType.PLAIN_INPUT

    context: Digest
    sender: U16
    ring_bits: U8
    inputs: Annotated[Mapping[int, tuple[bytes, RingVector]], Given(("ring_bits",), _bound_vectors)]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlainInput:
    """A client's summands by segment index, each with its binding; readable by whoever carries it."""

    context: bytes
    sender: int
    segments: Mapping[int, RingVector]
    bindings: Mapping[int, bytes]
    ring_bits: int = 32

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        inputs = {index: (self.bindings[index], vector) for index, vector in self.segments.items()}
        fields = _PlainFields(
            context=self.context, sender=self.sender, ring_bits=self.ring_bits, inputs=inputs
        )
        return fields.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`. Raises WireError."""
        fields = _PlainFields.from_bytes(data)
        return cls(
            context=fields.context,
            sender=fields.sender,
            segments={index: vector for index, (_, vector) in fields.inputs.items()},
            bindings={index: binding for index, (binding, _) in fields.inputs.items()},
            ring_bits=fields.ring_bits,
        )


@final
class PlainClient(SumClient):
    """A client that sends its summands unchanged."""

    def __init__(self, session: Session, me: ClientId) -> None:
        super().__init__()
        self._session = session
        self._me = me
        self._position = session.position(me)
        self._reply: bytes | None = None
        self._ended = False

    def reply(self, request: bytes) -> bytes:  # noqa: ARG002
        """Refuse: every stage takes input."""
        raise StageError("the only stage is upload: call contribute")

    def contribute(self, request: bytes, inputs: Mapping[int, SegmentInput]) -> bytes:
        """Answer the request of upload."""
        with self._turn:
            if self._ended:
                raise StageError("the session is over for this client")
            if request:
                raise StageError("the request of upload must be empty")
            if self._reply is None:
                check_inputs(self._session, self._me, inputs)
                self._reply = PlainInput(
                    context=self._session.context,
                    sender=self._position,
                    segments={index: to_ring(given.values) for index, given in inputs.items()},
                    bindings={index: given.binding for index, given in inputs.items()},
                    ring_bits=self._session.ring_bits,
                ).to_bytes()
            return self._reply

    def end(self) -> None:
        """Forget what was sent."""
        with self._turn:
            self._reply = None
            self._ended = True


@final
class PlainServer(SumServer):
    """A server that adds what it reads.

    Args:
        session: The session's terms.
        keep_inputs: Whether the result also holds the single inputs, for whoever judges them.
        whoever_is_there: Whether every segment opens over whoever has answered, also over nobody: threshold and quorums are not
            asked. Then one input closes nothing either: one with another binding or out of bounds costs its sender alone.
        bounded: Whether every upload is checked against the bound of inputs on arrival, not only their sum: where noise
            comes after the sum, one upload out of bounds must not have a segment closed that is over other ones.
    """

    def __init__(
        self,
        session: Session,
        *,
        keep_inputs: bool = False,
        whoever_is_there: bool = False,
        bounded: bool = False,
    ) -> None:
        self._session = session
        self._bounded = bounded or whoever_is_there or keep_inputs
        self._whoever_is_there = whoever_is_there
        self._expected: Mapping[int, bytes] = {}
        self._kept: dict[ClientId, dict[int, IntegerVector]] | None = {} if keep_inputs else None
        self._sums = [np.zeros(segment.length, dtype=np.uint32) for segment in session.segments]
        self._bindings: dict[int, set[bytes]] = {segment.index: set() for segment in session.segments}
        self._answered: set[ClientId] = set()
        self._closed = False
        self._opens = False

    def expect(self, bindings: Mapping[int, bytes]) -> None:
        """Set the bindings of the segments before inputs arrive."""
        self._expected = dict(bindings)

    def requests(self) -> Mapping[ClientId, bytes]:
        """Return an empty request to every member."""
        self._check_open()
        return dict.fromkeys(self._session.members, b"")

    def receive(self, client: ClientId, reply: bytes) -> None:
        """Check a whole upload, then add it."""
        self._check_open()
        position = self._session.position(client)
        if client in self._answered:
            raise StageError(f"{client}: has already answered {Plain.input_stage}")
        message = PlainInput.from_bytes(reply)
        if message.context != self._session.context:
            raise ContextError(f"{client}: the message belongs to another session")
        if message.sender != position:
            raise RosterError(f"{client}: the message is from position {message.sender}, not {position}")
        lengths = {segment.index: segment.length for segment in self._session.segments_of(client)}
        if {index: len(vector) for index, vector in message.segments.items()} != lengths:
            raise InputError(f"{client}: the input must hold exactly its segments, whole")
        if message.ring_bits != self._session.ring_bits:
            raise InputError(f"{client}: ring_bits={message.ring_bits} must be {self._session.ring_bits}")
        if self._whoever_is_there:
            self._check_binding(client, message)
        if self._bounded:
            found = {i: self._in_bounds(client, i, vector) for i, vector in message.segments.items()}
            if self._kept is not None:
                self._kept[client] = found
        for index, vector in message.segments.items():
            self._sums[index] += vector
            self._bindings[index].add(message.bindings[index])
        self._answered.add(client)

    def _check_binding(self, client: ClientId, message: PlainInput) -> None:
        for index, binding in message.bindings.items():
            if binding != self._expected.get(index, binding):
                raise InputError(f"{client}: was bound to another model than the server")

    def _in_bounds(self, client: ClientId, index: int, vector: RingVector) -> IntegerVector:
        bound, values = self._session.input_bound, centred(vector, bits=self._session.ring_bits)
        if int(values.min()) < -bound or int(values.max()) > bound:
            raise InputError(f"{client}: a value of segment {index} leaves [-{bound}, {bound}]")
        return values

    def close_stage(self) -> None:
        """Fix the survivors."""
        self._check_open()
        self._closed = True
        if len(self._answered) < self._session.threshold and not self._whoever_is_there:
            raise BelowThresholdError(
                f"{Plain.input_stage}: {len(self._answered)} of {len(self._session.members)} clients answered, "
                f"threshold={self._session.threshold} are needed"
            )
        self._opens = True

    @property
    def contributors(self) -> tuple[ClientId, ...] | None:
        """The clients that have answered, once that is fixed."""
        return tuple(sorted(self._answered)) if self._closed else None

    def result(self, bindings: Mapping[int, bytes]) -> SumResult:
        """Return the sums of the segments that meet their quorum, or of all."""
        if not self._opens:
            raise StageError("the sums are opened once, after upload has closed")
        for segment in self._session.segments:
            check_binding(segment.index, bindings.get(segment.index))
        self._opens = False
        sums, refused = {}, {}
        for segment in self._session.segments:
            present = len(self._answered.intersection(segment.holders))
            if self._whoever_is_there:
                sums[segment.index] = centred(self._sums[segment.index], bits=self._session.ring_bits)
            elif present < segment.quorum:
                refused[segment.index] = f"{present} surviving holders, quorum {segment.quorum}"
            elif self._bindings[segment.index] != {bindings[segment.index]}:
                refused[segment.index] = "its members were bound to different models"
            else:
                summed = centred(self._sums[segment.index], bits=self._session.ring_bits)
                members = len(self._answered.intersection(segment.members))
                if reason := reason_to_reject(self._session, summed, present=members):
                    refused[segment.index] = reason
                else:
                    sums[segment.index] = summed
        kept, survivors = self._kept or {}, tuple(sorted(self._answered))
        return SumResult(survivors=survivors, sums=sums, refused=refused, inputs=kept)

    def _check_open(self) -> None:
        if self._closed:
            raise StageError("all stages of the session are closed")


@final
class Plain(SecureSum):
    """INSECURE: the server reads every single input. For baselines, oracles and filters over single updates.

    Args:
        keep_inputs: Whether results hold the single inputs too.
        whoever_is_there: Whether every segment opens over whoever has answered, also over nobody: how many did is not to show.
        bounded: Whether every upload is checked against the bound of inputs, not only their sum.
    """

    name: ClassVar[str] = "plain"
    input_stage: ClassVar[str] = "upload"

    def __init__(
        self, *, keep_inputs: bool = False, whoever_is_there: bool = False, bounded: bool = False
    ) -> None:
        self._keep_inputs = keep_inputs
        self._bounded = bounded
        self._whoever_is_there = whoever_is_there

    @property
    def stages(self) -> tuple[str, ...]:
        """One stage."""
        return (self.input_stage,)

    def client(
        self, session: Session, me: ClientId, *, extra_secrets: ExtraSecrets | None = None
    ) -> PlainClient:
        """Open the client side for one member."""
        refuse_extra_secrets(self, extra_secrets)
        return PlainClient(session, me)

    def server(self, session: Session) -> PlainServer:
        """Open the server side."""
        return PlainServer(
            session,
            keep_inputs=self._keep_inputs,
            whoever_is_there=self._whoever_is_there,
            bounded=self._bounded,
        )
