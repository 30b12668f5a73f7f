"""Masking behind the contract `SecureSum`: bytes in, bytes out, one call per stage."""

from collections.abc import Mapping
from typing import ClassVar, final

from protocols.errors import StageError
from protocols.interface import SecureSum, SegmentInput, SumClient, SumResult, SumServer, check_binding
from protocols.masking import client as steps
from protocols.masking.messages import KeyDirectory, ShareDelivery, SurvivorList
from protocols.masking.server import AdvertiseKeys, MaskInput, RevealShares, ShareKeys, Stage
from protocols.primitives.secret import SYSTEM_RANDOM, RandomBytes
from protocols.session import ClientId, Session


@final
class MaskingClient(SumClient):
    """One client of one session. After an error its state is unchanged; secrets go with the state that held them."""

    def __init__(self, session: Session, me: ClientId, random_bytes: RandomBytes = SYSTEM_RANDOM) -> None:
        session.position(me)
        self._session = session
        self._me = me
        self._random_bytes = random_bytes
        self._state: steps.Advertised | steps.Shared | steps.Masked | steps.Revealed | None = None
        self._replied: tuple[bytes, bytes] | None = None
        self._contributed: tuple[bytes, bytes] | None = None

    def reply(self, request: bytes) -> bytes:
        """Answer a request of advertise_keys, share_keys or reveal_shares.

        A client that has answered repeats the identical answer to the identical request and gives no other one.
        """
        if self._replied is not None and request == self._replied[0]:
            return self._replied[1]
        if self._contributed is not None and request == self._contributed[0]:
            raise StageError("that request is answered by contribute")
        answer = self._answer(request)
        self._replied = (request, answer)
        return answer

    def _answer(self, request: bytes) -> bytes:
        match self._state:
            case None:
                if request:
                    raise StageError("the request of advertise_keys must be empty")
                self._state, advertisement = steps.create_key_advertisement(
                    self._session, self._me, self._random_bytes
                )
                return advertisement.to_bytes()
            case steps.Advertised() as state:
                directory = KeyDirectory.from_bytes(request)
                self._state, shares = steps.create_sealed_shares(state, directory, self._random_bytes)
                return shares.to_bytes()
            case steps.Masked() as state:
                survivors = SurvivorList.from_bytes(request)
                self._state, revealed = steps.create_revealed_shares(state, survivors)
                return revealed.to_bytes()
            case steps.Shared():
                raise StageError("the next stage is mask_input: call contribute")
            case steps.Revealed():
                raise StageError("the session is over for this client: it has revealed its shares")

    def contribute(self, request: bytes, inputs: Mapping[int, SegmentInput]) -> bytes:
        """Answer the request of mask_input."""
        if self._contributed is not None and request == self._contributed[0]:
            return self._contributed[1]
        if self._replied is not None and request == self._replied[0]:
            raise StageError("that request is answered by reply")
        if not isinstance(self._state, steps.Shared):
            raise StageError("mask_input comes after share_keys and once only")
        delivery = ShareDelivery.from_bytes(request)
        self._state, masked = steps.create_masked_input(self._state, delivery, inputs)
        self._contributed = (request, masked.to_bytes())
        return self._contributed[1]


@final
class MaskingServer(SumServer):
    """The server of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._stage: Stage | None = AdvertiseKeys(session)
        self._last: RevealShares | None = None

    def requests(self) -> Mapping[ClientId, bytes]:
        """The current stage's request to each client that is still in."""
        stage = self._current()
        return {
            self._session.client_at(position): stage.request(position) for position in sorted(stage.expected)
        }

    def receive(self, client: ClientId, reply: bytes) -> None:
        """Fold in one reply."""
        stage = self._current()
        position = self._session.position(client)
        if position not in stage.expected:
            raise StageError(f"{client}: is out of the session at {stage.name}")
        if position in stage.answered:
            raise StageError(f"{client}: has already answered {stage.name}")
        stage.receive(position, reply)
        stage.answered.add(position)

    def close_stage(self) -> None:
        """Enter the next stage."""
        stage, self._stage = self._current(), None
        # A stage that cannot close has ended the session: nothing of it can be asked for any more.
        self._stage = stage.close()
        if isinstance(stage, RevealShares):
            self._last = stage

    def result(self, bindings: Mapping[int, bytes]) -> SumResult:
        """Open the sums; once."""
        if self._last is None:
            raise StageError("the sums are opened once, after reveal_shares has closed")
        for segment in self._session.segments:
            check_binding(segment.index, bindings.get(segment.index))
        last, self._last = self._last, None
        return last.open(bindings)

    def _current(self) -> Stage:
        if self._stage is None:
            raise StageError("all stages of the session are closed")
        return self._stage


@final
class Masking(SecureSum):
    """Double masking (Bonawitz et al. 2017): the server sees uniform vectors and their exact sum.

    Claims, against a server that follows the protocol and up to threshold - 1 clients that collude with it: nothing
    beyond each open segment's sum over its survivors, and who took part, is learnt.
    """

    name: ClassVar[str] = "masking"
    stages: ClassVar[tuple[str, ...]] = (
        AdvertiseKeys.name,
        ShareKeys.name,
        MaskInput.name,
        RevealShares.name,
    )
    input_stage: ClassVar[str] = MaskInput.name

    def client(self, session: Session, me: ClientId) -> MaskingClient:
        """The client side for one member."""
        return MaskingClient(session, me)

    def server(self, session: Session) -> MaskingServer:
        """The server side."""
        return MaskingServer(session)
