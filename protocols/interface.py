"""The contract that every secure sum keeps: plain, masking, homomorphic.

A secure sum adds integer vectors of several clients, segment by segment, over the members that survive. The server
drives: it hands out one request per client and stage, folds the replies in as they come, and closes the stage.

    server = secure_sum.server(session)            client = secure_sum.client(session, me)
    for stage in secure_sum.stages:
        for each (client, request) in server.requests():
            reply = client.reply(request)          # or client.contribute(request, inputs) at the input stage
            server.receive(client, reply)
        server.close_stage()                       # raises BelowThresholdError when too few are left
    result = server.result(bindings)

Guarantees, tested for every implementation by one conformance class:

* A segment's sum is exactly the integer sum of the inputs of the surviving members of that segment; where inputs wrap
  (`SegmentInput.wraps`), a function of that sum, equal to it as long as it stays in its range.
* There is one list of survivors per session: an upload counts in all its segments or in none.
* A segment with fewer surviving members than its quorum stays closed; the others open.
* Below the threshold the session ends by name and nothing is opened.
* A segment whose sum exceeds what its survivors could add up to stays closed: something in it did not cancel.
* Calls and messages out of order raise StageError; malformed, foreign or repeated messages raise their named error
  and change nothing.
* Calls of one client from several threads wait for each other: each sees the state that the one before left. Two requests that
  come at the same moment are two requests in a row, of which the second gets no second answer.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

import numpy as np

from protocols.errors import InputError
from protocols.primitives.secret import Secret
from protocols.ring import IntegerVector
from protocols.session import ClientId, Segment, Session
from protocols.wire import DIGEST_SIZE

# By segment of a client: secrets of 32 bytes that it shares with the others, as many as the segment has room for.
ExtraSecrets = Mapping[int, Sequence[Secret]]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentInput:
    """The summand of one client for one segment. Private.

    Args:
        values: Shape (segment.length,), int64, magnitudes at most the session's input_bound unless `wraps`.
        binding: 32 bytes that all contributors and the server must share for the segment to open, e.g. the digest
            of the model that the values were computed from. Modes that hide inputs mix it into the hiding.
        wraps: Whether the values have noise in them whose range has no end. None is refused for its size then, which depends on
            what is private: values are added modulo the ring, and a sum that leaves its range stays closed like any other.
    """

    values: IntegerVector = field(repr=False)
    binding: bytes
    wraps: bool = False


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SumResult:
    """The result of one session, as the server learns it.

    Args:
        survivors: The members whose inputs are in the sums, increasing.
        sums: By segment index: the exact integer sums, int64.
        refused: By segment index: why a segment stayed closed.
        inputs: By survivor and segment, what a sum in the clear was asked to keep; empty in every other one.
        extra_secrets: By (survivor, open segment, number from 0): the secrets that the segment's rule gives out. Secret.
        faults: By client that provably did not follow the protocol: what it did. As :attr:`SumServer.faults`.
        disputes: By client: the others whose messages it says it could not use. Of each such pair one is at fault; it
            cannot be told which.
    """

    survivors: tuple[ClientId, ...]
    sums: Mapping[int, IntegerVector]
    refused: Mapping[int, str]
    inputs: Mapping[ClientId, Mapping[int, IntegerVector]] = field(default_factory=dict, repr=False)
    extra_secrets: Mapping[tuple[ClientId, int, int], bytes] = field(default_factory=dict, repr=False)
    faults: Mapping[ClientId, str] = field(default_factory=dict)
    disputes: Mapping[ClientId, tuple[ClientId, ...]] = field(default_factory=dict)


class SumClient(ABC):
    """One client's side of one session. Holds the session's secrets; lives as long as the session.

    Every method of a subclass takes its turn: it holds `_turn` from its first look at the state to its last change.
    """

    def __init__(self) -> None:
        self._turn = threading.RLock()

    @abstractmethod
    def reply(self, request: bytes) -> bytes:
        """Answer a request of a stage that takes no input. The same request twice gets the same answer."""

    @abstractmethod
    def contribute(self, request: bytes, inputs: Mapping[int, SegmentInput]) -> bytes:
        """Answer the request of the input stage with this client's summands, one per segment it belongs to."""

    @abstractmethod
    def end(self) -> None:
        """Drop every secret: the session is over for this client, finished or not."""


class SumServer(ABC):
    """The server's side of one session."""

    @abstractmethod
    def requests(self) -> Mapping[ClientId, bytes]:
        """Return the current stage's request to each client that is still in."""

    @abstractmethod
    def receive(self, client: ClientId, reply: bytes) -> None:
        """Take one reply. An error leaves the state unchanged: the client counts as not having answered."""

    @abstractmethod
    def close_stage(self) -> None:
        """Fix who took part in this stage and enter the next one; later replies are refused.

        Raises:
            BelowThresholdError: Fewer clients than the threshold have answered: the session is over.
        """

    def expect(self, bindings: Mapping[int, bytes]) -> None:  # noqa: B027  # most modes have no use for it
        """Set the server's own bindings, once known. A mode that sees bindings then refuses inputs with others at once.

        A server that is not told finds out when it asks for the result.
        """

    @property
    def faults(self) -> Mapping[ClientId, str]:
        """By client that provably broke the protocol: what it did. Also kept if the session ends without a result."""
        return {}

    @property
    def disputes(self) -> Mapping[ClientId, tuple[ClientId, ...]]:
        """By client: the others whose messages it says were no use; one of each pair is at fault. As :attr:`faults`."""
        return {}

    @property
    def screened_out(self) -> Mapping[ClientId, str]:
        """By client: why its input was judged alone and left out before the addition. Empty without screening."""
        return {}

    @property
    @abstractmethod
    def contributors(self) -> tuple[ClientId, ...] | None:
        """The contributors of the sums, increasing; None until they are fixed.

        It is fixed before anything is revealed: whoever keeps a ledger writes it down at that moment.
        """

    @abstractmethod
    def result(self, bindings: Mapping[int, bytes]) -> SumResult:
        """Return the sums, after the last stage; once.

        Raises:
            InputError: `bindings` lacks the server's own binding of a segment; the call can be made again.
        """


class SecureSum(ABC):
    """A way to add integers; stateless.

    Attributes:
        name: Name of the mode.
        input_stage: The stage that takes the inputs.
        shares_secrets: Whether clients can share further secrets with each other, which a rule of the session releases.
    """

    name: ClassVar[str]
    input_stage: ClassVar[str]
    shares_secrets: ClassVar[bool] = False

    @property
    @abstractmethod
    def stages(self) -> tuple[str, ...]:
        """The stages in order; one of them takes the inputs."""

    @property
    def upload_stage(self) -> str:
        """The stage whose answer puts an input into the sum: the input stage, or a later one if that only commits."""
        return self.input_stage

    @abstractmethod
    def client(
        self, session: Session, me: ClientId, *, extra_secrets: ExtraSecrets | None = None
    ) -> SumClient:
        """Open the client side for one member.

        Args:
            session: The session's terms.
            me: The member.
            extra_secrets: Further secrets that the member shares with the others; only where `shares_secrets`.

        Raises:
            RosterError: It is no member.
            InputError: Extra secrets are given to a secure sum that shares none.
        """

    @abstractmethod
    def server(self, session: Session) -> SumServer:
        """Open the server side."""


def refuse_extra_secrets(secure_sum: SecureSum, extra_secrets: ExtraSecrets | None) -> None:
    """Refuse secrets that a secure sum does not share: its caller relies on their release.

    Raises:
        InputError: There are any.
    """
    if extra_secrets:
        raise InputError(
            f"secure sum {secure_sum.name} shares no extra secrets of its clients, and was given those of segments "
            f"{sorted(extra_secrets)}: use one that does, or give none"
        )


def check_inputs(session: Session, me: ClientId, inputs: Mapping[int, SegmentInput]) -> None:
    """Refuse summands that do not fit the session; shared by all implementations.

    Raises:
        InputError: A segment is missing or foreign, a length or type is wrong, a magnitude exceeds the bound and does not wrap.
    """
    mine = session.segments_of(me)
    if set(inputs) != {segment.index for segment in mine}:
        raise InputError(f"{me}: inputs for segments {sorted(inputs)} must be for {[s.index for s in mine]}")
    for segment in mine:
        _check_input(session, segment, inputs[segment.index])


def _check_input(session: Session, segment: Segment, given: SegmentInput) -> None:
    name = f"segment {segment.index}"
    values = np.asarray(given.values)
    if values is not given.values or values.dtype != np.int64 or values.shape != (segment.length,):
        raise InputError(
            f"{name}: {values.dtype} of shape {values.shape} must be an int64 array of shape ({segment.length},)"
        )
    # Not via abs(): the magnitude of the smallest int64 is negative.
    lowest, highest = int(given.values.min()), int(given.values.max())
    if not given.wraps and (lowest < -session.input_bound or highest > session.input_bound):
        raise InputError(f"{name}: a value leaves [-{session.input_bound}, {session.input_bound}]")
    check_binding(segment.index, given.binding)


def check_binding(index: int, binding: bytes | None) -> bytes:
    """Refuse a binding that is missing or of the wrong size."""
    if binding is None or len(binding) != DIGEST_SIZE:
        raise InputError(f"segment {index}: binding must have {DIGEST_SIZE} bytes")
    return binding


def reason_to_reject(session: Session, summed: IntegerVector, *, present: int) -> str:
    """Return why a sum cannot be that of so many inputs; empty if it can. The server runs it on every opened segment.

    Masks that do not cancel (another model, an upload masked or garbled in any other way than agreed) leave elements that
    are uniform over the ring. The honest range is at most half of it (:func:`protocols.ring.capacity`), so that L elements
    pass with probability 2^-L at most: one in a million for 20 elements. Of an encrypted field it is three quarters: (3/4)^L. Many
    inputs below their bound make it far less: (2 n x + 1) / 2^b for each element. What it cannot see is an input beyond
    its bound that was masked as agreed, as long as the sum stays in the range of honest ones: masks hide who exceeds.

    A server that adds noise to sums does not ask this before: the answer depends on everybody's inputs.
    """
    limit = present * session.input_bound
    if int(summed.min()) < -limit or int(summed.max()) > limit:
        return (
            f"its sum leaves [-{limit}, {limit}], which {present} inputs within bounds cannot: "
            "a member was given another model or did not follow the protocol"
        )
    return ""
