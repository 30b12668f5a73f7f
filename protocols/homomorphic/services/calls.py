"""The aggregator's calls to its services in one session, and the checks of their answers.

Whatever is wrong with an answer, the session cannot go on by itself: every fault becomes a ServiceError that names the service.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar, final

from protocols.errors import ContextError, ProtocolError, ServiceError
from protocols.homomorphic import checks
from protocols.homomorphic.messages import (
    RESULT_PURPOSE,
    DecryptedSums,
    EncryptedInput,
    EncryptedSum,
    RoundKey,
    SumSignature,
)
from protocols.homomorphic.receipts import FIXED_PURPOSE, CommittedInputs, FixedInputs
from protocols.homomorphic.screening.messages import (
    EVALUATION_PURPOSE,
    EvaluationKeys,
    ScreeningCopy,
    ScreeningNumbers,
    ScreeningResult,
)
from protocols.homomorphic.screening.screening import RealVector
from protocols.homomorphic.services.messages import SCREENING, DecryptRequest, SessionRequest
from protocols.homomorphic.services.services import Channel
from protocols.homomorphic.terms import EncryptionTerms
from protocols.session import ClientId

_Answer = TypeVar("_Answer")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """The services that the aggregator works with.

    Args:
        decryptor: The service that holds the keys.
        verifier: The service that verifies sums; None where the terms name none.
        worker: The service that adds; where it can die, it can be started again.
        screener: The service that computes on copies without a verifier; None where the terms screen nothing.
        reference: By segment index: the public direction with which a screener compares updates, asked for once per
            session; None where there is none yet. A verifier accepts no direction from this side.
    """

    decryptor: Channel
    worker: Channel
    verifier: Channel | None = None
    screener: Channel | None = None
    reference: Callable[[], Mapping[int, RealVector] | None] = lambda: None


@final
class Calls:
    """The calls of one session."""

    def __init__(self, terms: EncryptionTerms, roles: Roles) -> None:
        self._terms = terms
        self._decryptor = roles.decryptor
        self._verifier = roles.verifier

    @property
    def verified(self) -> bool:
        """Whether there is a verifier."""
        return self._verifier is not None

    def round_key(self) -> RoundKey:
        """Have the decryptor make the session's key, and the verifier follow it."""
        session = self._terms.session
        key = self._ask_decryptor(SessionRequest(session=session).to_bytes(), self._read_key)
        self._tell_verifier(SessionRequest(session=session, key=key).to_bytes())
        return key

    def fix(self, committed: CommittedInputs) -> FixedInputs:
        """Have decryptor and verifier sign the list of inputs."""
        listed, request = committed.listed(), committed.to_bytes()
        services, signed = self._terms.services, listed.signed_part()

        def read(name: ClientId) -> Callable[[bytes], bytes]:
            def checked(signature: bytes) -> bytes:
                self._terms.trust.verify(name, FIXED_PURPOSE, signed, signature)
                return signature

            return checked

        verified = b""
        if self._verifier is not None:
            verified = _ask("verifier", self._verifier, request, read(services.verifier))
        decryptors = self._ask_decryptor(request, read(services.decryptor))
        return replace(listed, decryptor=decryptors, verifier=verified)

    def add_at_verifier(self, message: EncryptedInput) -> None:
        """Have the verifier, if there is one, add an input too; it already has the copy."""
        if self._verifier is not None:
            self._tell_verifier(replace(message, copy=b"").to_bytes())

    def evaluation_keys(self) -> EvaluationKeys:
        """Return the decryptor's keys for computing on copies; the verifier gets them too."""
        keys = self._ask_decryptor(SCREENING, self._read_evaluation_keys)
        self._tell_verifier(keys.to_bytes())
        return keys

    def verified_numbers(self, sender: int, copy: bytes) -> ScreeningNumbers:
        """Return the verifier's signed numbers of one copy."""
        if self._verifier is None:
            raise ServiceError("there is no verifier that could compute the numbers of a copy")
        request = ScreeningCopy(context=self._terms.context, sender=sender, copy=copy, direction=None)
        return _ask("verifier", self._verifier, request.to_bytes(), ScreeningNumbers.from_bytes)

    def open_numbers(self, numbers: ScreeningNumbers) -> ScreeningResult:
        """Have the decryptor open a copy's numbers, and return what it releases of them."""
        return self._ask_decryptor(numbers.to_bytes(), ScreeningResult.from_bytes)

    def decrypt(self, encrypted: EncryptedSum) -> DecryptedSums:
        """Return the decryptor's signed answer about sums that the verifier has signed."""
        verified = SumSignature(signature=b"")
        if self._verifier is not None:
            verified = _ask("verifier", self._verifier, encrypted.to_bytes(), SumSignature.from_bytes)
        request = DecryptRequest(encrypted=encrypted, verified=verified)
        return self._ask_decryptor(request.to_bytes(), lambda data: self._read_sums(data, encrypted))

    def show_opened(self, opened: DecryptedSums) -> None:
        """Send the verifier the opened sum that it has signed; the next updates are compared with it."""
        self._tell_verifier(opened.to_bytes())

    def _ask_decryptor(self, request: bytes, read: Callable[[bytes], _Answer]) -> _Answer:
        return _ask("decryptor", self._decryptor, request, read)

    def _tell_verifier(self, request: bytes) -> None:
        if self._verifier is not None:
            _ask("verifier", self._verifier, request, bytes)

    def _read_key(self, payload: bytes) -> RoundKey:
        key = RoundKey.from_bytes(payload)
        checks.check_round_key(self._terms, key)
        return key

    def _read_evaluation_keys(self, payload: bytes) -> EvaluationKeys:
        keys = EvaluationKeys.from_bytes(payload)
        checks.check_context(self._terms, keys.context)
        decryptor = self._terms.services.decryptor
        self._terms.trust.verify(decryptor, EVALUATION_PURPOSE, keys.signed_part(), keys.signature)
        return keys

    def _read_sums(self, payload: bytes, encrypted: EncryptedSum) -> DecryptedSums:
        answer = DecryptedSums.from_bytes(payload)
        checks.check_context(self._terms, answer.context)
        if answer.sum_digest != encrypted.digest or set(answer.sums) != set(encrypted.ciphertexts):
            raise ContextError("the decryptor has answered about another sum")
        decryptor = self._terms.services.decryptor
        self._terms.trust.verify(decryptor, RESULT_PURPOSE, answer.signed_part(), answer.signature)
        checks.check_lengths(self._terms, answer)
        return answer


def _ask(who: str, channel: Channel, request: bytes, read: Callable[[bytes], _Answer]) -> _Answer:
    """Return a service's answer, read and checked."""
    try:
        return read(channel.call(request))
    except ServiceError as error:
        raise ServiceError(f"the {who}: {error}") from None
    except ProtocolError as error:
        raise ServiceError(f"the {who}: {type(error).__name__}: {error}") from None
