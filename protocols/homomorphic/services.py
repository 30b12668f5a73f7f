"""Decryptor, verifier and worker as services: bytes in, bytes out, refusals with their names.

The aggregator reaches them by a `Channel` and cannot tell a service in its own process from one in another.
"""

from abc import ABC, abstractmethod
from typing import final

from protocols import errors
from protocols.errors import ProtocolError, ServiceError, StageError
from protocols.homomorphic import parameters
from protocols.homomorphic.adder import Adder
from protocols.homomorphic.decryptor import Decryptor
from protocols.homomorphic.messages import EncryptedInput, EncryptedSum
from protocols.homomorphic.screening_messages import ScreeningNumbers
from protocols.homomorphic.service_messages import (
    HELLO,
    SCREENING,
    Answer,
    DecryptRequest,
    Refusal,
    SessionRequest,
    Setup,
    StoredSums,
    type_of,
)
from protocols.homomorphic.verifier import Verifier
from protocols.identity import Identity
from protocols.primitives.signing import SigningKey
from protocols.wire import MessageType


class Service(ABC):
    """Answers requests, one at a time."""

    @abstractmethod
    def answer(self, request: bytes) -> bytes:
        """The answer's payload. Raises ProtocolError."""

    @final
    def handle(self, request: bytes) -> bytes:
        """The answer, or the refusal with its name, as bytes. Never raises on purpose."""
        try:
            return Answer(payload=self.answer(request)).to_bytes()
        except ProtocolError as error:
            return Refusal(error=type(error).__name__, reason=str(error)).to_bytes()


class Channel(ABC):
    """How a service is reached."""

    @abstractmethod
    def ready(self) -> int:
        """Which incarnation of the service answers, from 1: another number means that it remembers nothing."""

    @abstractmethod
    def exchange(self, request: bytes) -> bytes:
        """Carry a request there and the answer back.

        Raises:
            ServiceError: The service is gone, or did not answer in time.
        """

    @abstractmethod
    def close(self) -> None:
        """The service is no longer needed."""

    @final
    def call(self, request: bytes) -> bytes:
        """The payload of the answer to a request.

        Raises:
            ServiceError: As :meth:`exchange`.
            ProtocolError: The service refuses: the error it named.
            WireError: Its answer is not canonical.
        """
        answer = self.exchange(request)
        if type_of(answer) == MessageType.SERVICE_REFUSAL:
            refusal = Refusal.from_bytes(answer)
            raise _named(refusal.error)(refusal.reason)
        return Answer.from_bytes(answer).payload


@final
class LocalChannel(Channel):
    """A service in this process; for tests, and where processes cost more than they protect."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def ready(self) -> int:
        """It never dies alone."""
        return 1

    def exchange(self, request: bytes) -> bytes:
        """Call it."""
        return self.service.handle(request)

    def close(self) -> None:
        """Nothing to do."""


@final
class KeyedService(Service):
    """A decryptor or verifier that makes its own identity key, is enrolled, and is then set up.

    Args:
        name: Under which the authority enrols it.
        key: Its own; made here if not given.
    """

    def __init__(self, name: str, key: SigningKey | None = None) -> None:
        self._name = name
        self._key = key or SigningKey.generate()
        self._role: Decryptor | Verifier | None = None

    def answer(self, request: bytes) -> bytes:
        """Answer one request."""
        if request == HELLO:
            return self._key.public
        if type_of(request) == MessageType.SERVICE_SETUP:
            self._set_up(Setup.from_bytes(request))
            return b""
        match self._role:
            case Decryptor() as decryptor:
                return _ask_decryptor(decryptor, request)
            case Verifier() as verifier:
                return _ask_verifier(verifier, request)
            case _:
                raise StageError(f"{self._name} was not set up")

    def _set_up(self, setup: Setup) -> None:
        if self._role is not None:
            raise StageError(f"{self._name} was set up already")
        if self._name not in setup.charge.services.names:
            raise StageError(f"{self._name} is none of the services that it is to be set up with")
        certificate = setup.trust.check(self._name)
        identity = Identity(client=self._name, key=self._key, certificate=certificate)
        role = Verifier if self._name == setup.charge.services.verifier else Decryptor
        self._role = role(setup.charge, setup.trust, identity)


def _ask_decryptor(decryptor: Decryptor, request: bytes) -> bytes:
    if type_of(request) == MessageType.SERVICE_SESSION:
        return decryptor.create_round_key(SessionRequest.from_bytes(request).session).to_bytes()
    if request == SCREENING:
        return decryptor.evaluation_keys().to_bytes()
    if type_of(request) == MessageType.SCREENING_NUMBERS:
        return decryptor.screen(ScreeningNumbers.from_bytes(request)).to_bytes()
    wanted = DecryptRequest.from_bytes(request)
    return decryptor.decrypt(wanted.encrypted, wanted.verified.signature).to_bytes()


def _ask_verifier(verifier: Verifier, request: bytes) -> bytes:
    kind = type_of(request)
    if kind == MessageType.SERVICE_SESSION:
        opening = SessionRequest.from_bytes(request)
        if opening.key is None:
            raise StageError("a verifier follows a session under its round key: there is none")
        verifier.follow(opening.session, opening.key)
        return b""
    if kind == MessageType.ENCRYPTED_INPUT:
        verifier.handle_input(EncryptedInput.from_bytes(request))
        return b""
    return verifier.sign_sum(EncryptedSum.from_bytes(request)).to_bytes()


@final
class Worker(Service):
    """Adds ciphertexts of several sessions at a time; keyless and nameless."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, Adder] = {}

    def answer(self, request: bytes) -> bytes:
        """Begin with a session, add ciphertexts to it, give its sums, forget it."""
        if type_of(request) == MessageType.SERVICE_SESSION:
            opening = SessionRequest.from_bytes(request)
            profile = parameters.by_name(opening.profile)
            self._sessions[opening.session.context] = Adder(profile, opening.session)
            return b""
        stored = StoredSums.from_bytes(request)
        if stored.context not in self._sessions:
            raise StageError("the worker knows no such session")
        if stored.last:
            del self._sessions[stored.context]
            return b""
        adder = self._sessions[stored.context]
        if stored.ciphertexts:
            adder.add(stored.ciphertexts)
            return b""
        return StoredSums(context=stored.context, ciphertexts=adder.sums()).to_bytes()


def _named(name: str) -> type[ProtocolError]:
    """The error of that name; an unknown one is the service's fault."""
    found = getattr(errors, name, None)
    return found if isinstance(found, type) and issubclass(found, ProtocolError) else ServiceError
