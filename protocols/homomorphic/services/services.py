"""Decryptor, verifier and worker as services: bytes in, bytes out, refusals with their names.

The aggregator reaches them by a `Channel` and cannot tell a service in its own process from one in another. A decryptor or
verifier has a second side, for its own operator alone: by that it is told whom to believe, what time it is and, when it was
started again, along which direction updates were screened last. Nothing
that comes by the aggregator's channel can set or change it, so there is no race for who is first and nothing to replay.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import final

from protocols import errors
from protocols.clock import Clock
from protocols.errors import ProtocolError, ServiceError, StageError
from protocols.homomorphic.messages import DecryptedSums, EncryptedInput, EncryptedSum
from protocols.homomorphic.parties.adder import Adder
from protocols.homomorphic.parties.decryptor import Decryptor
from protocols.homomorphic.parties.verifier import Verifier
from protocols.homomorphic.receipts import CommittedInputs
from protocols.homomorphic.scheme import parameters
from protocols.homomorphic.screening.at_verifier import Reference
from protocols.homomorphic.screening.messages import EvaluationKeys, ScreeningCopy, ScreeningNumbers
from protocols.homomorphic.services.messages import (
    HELLO,
    REFERENCE,
    SCREENING,
    Answer,
    DecryptRequest,
    Refusal,
    SessionRequest,
    Setup,
    StoredSums,
    type_of,
)
from protocols.identity.trust import Identity, TrustStore
from protocols.primitives.signing import SigningKey
from protocols.wire import MessageType


class Service(ABC):
    """A service that answers requests, one at a time."""

    @abstractmethod
    def answer(self, request: bytes) -> bytes:
        """Return the answer's payload. Raises ProtocolError."""

    @final
    def handle(self, request: bytes) -> bytes:
        """Return the answer, or the refusal with its name, as bytes. Never raises on purpose."""
        try:
            return Answer(payload=self.answer(request)).to_bytes()
        except ProtocolError as error:
            return Refusal.of(error).to_bytes()

    def operate(self, request: bytes) -> bytes:
        """Answer the operator; a service without an operator treats everybody alike."""
        return self.handle(request)


class Channel(ABC):
    """A connection to a service."""

    @abstractmethod
    def ready(self) -> int:
        """Return the answering incarnation's number, from 1; a new number means that the service remembers nothing."""

    @abstractmethod
    def exchange(self, request: bytes) -> bytes:
        """Send a request and return the answer.

        Raises:
            ServiceError: The service is gone, or did not answer in time.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the channel: the service is no longer needed."""

    @final
    def call(self, request: bytes) -> bytes:
        """Return the payload of the answer to a request.

        Raises:
            ServiceError: As :meth:`exchange`.
            ProtocolError: The service refuses: the error it named.
            WireError: Its answer is not canonical.
        """
        return payload_of(self.exchange(request))


def payload_of(answer: bytes) -> bytes:
    """Return the payload of a service's answer.

    Raises:
        ProtocolError: It refuses: the error it named.
        WireError: The answer is not canonical.
    """
    if type_of(answer) == MessageType.SERVICE_REFUSAL:
        refusal = Refusal.from_bytes(answer)
        raise _named(refusal.error)(refusal.reason)
    return Answer.from_bytes(answer).payload


@final
class LocalChannel(Channel):
    """A service in this process; for tests, and where processes cost more than the protection is worth."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def ready(self) -> int:
        """Return 1: the service cannot die alone."""
        return 1

    def exchange(self, request: bytes) -> bytes:
        """Call the service."""
        return self.service.handle(request)

    def close(self) -> None:
        """Do nothing."""


@final
class KeyedService(Service):
    """A decryptor or verifier that makes its own identity key, is enrolled, and is then set up by its operator.

    Its time is its operator's too: what the setup says, and from then on by this machine's monotonic clock. It is read at every
    check, so that lists and certificates expire within a session as well, and a setup never puts it back.

    One call at a time, from whatever thread and on whichever side: what a role does once per key or round it would otherwise do for
    two calls that both find it not done yet.

    Args:
        name: Name under which the authority enrols it.
        key: Its own key; made here if not given.
        ticks: Seconds of a clock that only goes forward.
    """

    def __init__(
        self, name: str, key: SigningKey | None = None, *, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._key = key or SigningKey.generate()
        self._told = 0  # the operator's time when it last said one
        self._clock = Clock(wall=lambda: self._told, steady=ticks)
        self._setup: Setup | None = None
        self._role: Decryptor | Verifier | None = None
        self._turn = threading.RLock()

    def answer(self, request: bytes) -> bytes:
        """Answer one request of the aggregator."""
        with self._turn:
            return self._answer(request)

    def _answer(self, request: bytes) -> bytes:
        if request == HELLO:
            return self._key.public
        if type_of(request) in {MessageType.SERVICE_SETUP, MessageType.SERVICE_REFERENCE}:
            raise StageError(f"{self._name} is set up by its own operator, not by the aggregator")
        if self._role is None or self._setup is None:
            raise StageError(f"{self._name} was not set up")
        opening = None
        if type_of(request) == MessageType.SERVICE_SESSION:
            charge = self._setup.charge
            opening = SessionRequest.from_bytes(
                request, most_members=charge.most_members, most_segments=charge.most_segments
            )
        match self._role:
            case Decryptor() as decryptor:
                return _ask_decryptor(decryptor, request, opening)
            case Verifier() as verifier:
                return _ask_verifier(verifier, request, opening)

    def operate(self, request: bytes) -> bytes:
        """Answer the operator: only it can set the service up, and restore its state after a restart."""
        if request == HELLO:
            return Answer(payload=self._key.public).to_bytes()
        try:
            with self._turn:
                return Answer(payload=self._operate(request)).to_bytes()
        except ProtocolError as error:
            return Refusal.of(error).to_bytes()

    def set_up(self, setup: Setup) -> None:
        """Begin to serve, or replace the lists by newer ones. Only its operator can call this.

        Whatever comes of it, no session goes on under other lists than these: it is ended before anything else is looked at. Newer
        lists that take back this very service are taken up too, and it serves nobody under them. Beside the lists at hand its time is
        taken even if it is refused.

        Raises:
            StageError: The setup is another service's, or changes what was to be served.
            EnrolmentError: A list in it is older than the one at hand; the service is enrolled under another key.
            IdentityError: The service, or something in the lists, cannot be believed.
        """
        with self._turn:
            self._set_up(setup)

    def _set_up(self, setup: Setup) -> None:
        known = self._setup
        if known is not None and setup.trust.digest != known.trust.digest:
            self._end_session()
        elif known is not None:
            self._tell(setup.trust.now)
        if self._name not in setup.charge.services.names:
            raise StageError(f"{self._name} is none of the services that it is to be set up with")
        if known is None:
            self._begin(setup)
        else:
            self._renew(known, setup)

    def _operate(self, request: bytes) -> bytes:
        if type_of(request) == MessageType.SERVICE_REFERENCE:
            return self._refer(request)
        try:
            setup = Setup.from_bytes(request)
        except ProtocolError:
            # Lists that cannot be read may be the ones that take somebody back.
            self._end_session()
            self._tell_time_of(request)
            raise
        self.set_up(setup)
        return b""

    def _tell_time_of(self, request: bytes) -> None:
        """Take the time of a setup that is refused: the lists held here may have expired at that very time."""
        with suppress(ProtocolError):
            if self._setup is not None:
                self._tell(Setup.time_beside(request, self._setup.trust) or self._told)

    def _refer(self, request: bytes) -> bytes:
        """Return a verifier's reference if the request asks for it; else restore the given one."""
        match self._role:
            case None:
                raise StageError(f"{self._name} was not set up")
            case Verifier() as verifier:
                if request == REFERENCE:
                    return verifier.reference.to_bytes()
                verifier.recall(Reference.from_bytes(request))
            case Decryptor() as decryptor:
                decryptor.recall(Reference.from_bytes(request).digest)
        return b""

    def _begin(self, setup: Setup) -> None:
        trust = replace(setup.trust, clock=self._clock)
        identity = Identity(client=self._name, key=self._key, certificate=trust.check(self._name))
        role = Verifier if self._name == setup.charge.services.verifier else Decryptor
        self._role = role(setup.charge, trust, identity)
        self._take_up(setup, trust)

    def _renew(self, known: Setup, setup: Setup) -> None:
        if setup.charge != known.charge or setup.trust.authority != known.trust.authority:
            raise StageError(f"{self._name} was set up already to serve something else")
        newer = known.trust.updated(
            now=setup.trust.now,
            roster=setup.trust.roster,
            revocations=setup.trust.revocations,
            certificates=setup.trust.certificates.values(),
        )
        if self._role is not None:
            self._role.believe(newer)
        self._take_up(setup, newer)
        newer.check(self._name)

    def _take_up(self, setup: Setup, trust: TrustStore) -> None:
        self._setup = replace(setup, trust=trust)
        self._tell(setup.trust.now)

    def _tell(self, now: int) -> None:
        self._told = now
        self._clock()  # from this moment on

    def _end_session(self) -> None:
        if self._role is not None:
            self._role.end_session()


def _ask_decryptor(decryptor: Decryptor, request: bytes, opening: SessionRequest | None) -> bytes:
    if opening is not None:
        return decryptor.create_round_key(opening.session).to_bytes()
    if request == SCREENING:
        return decryptor.evaluation_keys().to_bytes()
    match type_of(request):
        case MessageType.COMMITTED_INPUTS:
            return decryptor.fix_inputs(CommittedInputs.from_bytes(request))
        case MessageType.SCREENING_NUMBERS:
            return decryptor.screen(ScreeningNumbers.from_bytes(request)).to_bytes()
        case _:
            wanted = DecryptRequest.from_bytes(request)
            return decryptor.decrypt(wanted.encrypted, wanted.verified.signature).to_bytes()


def _ask_verifier(verifier: Verifier, request: bytes, opening: SessionRequest | None) -> bytes:
    if opening is not None:
        if opening.key is None:
            raise StageError("a verifier follows a session under its round key: there is none")
        verifier.follow(opening.session, opening.key)
        return b""
    match type_of(request):
        case MessageType.COMMITTED_INPUTS:
            return verifier.fix_inputs(CommittedInputs.from_bytes(request))
        case MessageType.EVALUATION_KEYS:
            verifier.take_evaluation_keys(EvaluationKeys.from_bytes(request))
        case MessageType.SCREENING_COPY:
            return verifier.screen(ScreeningCopy.from_bytes(request)).to_bytes()
        case MessageType.ENCRYPTED_INPUT:
            verifier.handle_input(EncryptedInput.from_bytes(request))
        case MessageType.DECRYPTED_SUMS:
            verifier.take_opened(DecryptedSums.from_bytes(request))
        case _:
            return verifier.sign_sum(EncryptedSum.from_bytes(request)).to_bytes()
    return b""


@final
class Worker(Service):
    """A worker that adds ciphertexts of several sessions at a time; it has no key and no identity."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[bytes, int], Adder] = {}

    def answer(self, request: bytes) -> bytes:
        """Begin a session, add ciphertexts to it, return its sums, or forget it."""
        if type_of(request) == MessageType.SERVICE_SESSION:
            opening = SessionRequest.from_bytes(request)
            profile = parameters.by_name(opening.profile)
            self._sessions[opening.session.context, opening.part] = Adder(profile, opening.session)
            return b""
        stored = StoredSums.from_bytes(request)
        key = (stored.context, stored.part)
        if key not in self._sessions:
            raise StageError("the worker knows no such session")
        if stored.last:
            del self._sessions[key]
            return b""
        adder = self._sessions[key]
        if stored.ciphertexts:
            adder.add(stored.ciphertexts)
            return b""
        return replace(stored, ciphertexts=adder.sums()).to_bytes()


def _named(name: str) -> type[ProtocolError]:
    """Return the error of that name; an unknown name is the service's fault."""
    found = getattr(errors, name, None)
    return found if isinstance(found, type) and issubclass(found, ProtocolError) else ServiceError
