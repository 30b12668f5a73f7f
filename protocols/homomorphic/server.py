"""The aggregator of the homomorphic mode: collects ciphertexts, adds them, has the sums decrypted. It holds no key.

requests()      the round key, which the decryptor makes when it is first asked for
receive()       check the receipt; add the ciphertexts in a worker; show them to the verifier, if there is one
close_stage()   fix the one list of contributors
result()        one encrypted sum per band that meets its quorum -> [verifier signs] -> decryptor -> integers
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar, final

from protocols.errors import (
    BelowThresholdError,
    ContextError,
    ProtocolError,
    ScreeningError,
    ServiceError,
    StageError,
)
from protocols.homomorphic import checks
from protocols.homomorphic.guarded_adder import GuardedAdder
from protocols.homomorphic.messages import (
    RESULT_PURPOSE,
    DecryptedSums,
    EncryptedInput,
    EncryptedSum,
    InputReceipt,
    RoundKey,
    SumSignature,
)
from protocols.homomorphic.screener import GuardedScreener
from protocols.homomorphic.screening import RealVector, Screened
from protocols.homomorphic.screening_messages import EVALUATION_PURPOSE, EvaluationKeys, ScreeningResult
from protocols.homomorphic.service_messages import SCREENING, DecryptRequest, SessionRequest
from protocols.homomorphic.services import Channel
from protocols.homomorphic.terms import Terms
from protocols.interface import SumResult, SumServer, check_binding, reason_to_reject
from protocols.session import ClientId, Segment

STAGE = "encrypt_input"
_Answer = TypeVar("_Answer")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Whom the aggregator works with.

    Args:
        decryptor: Holds the keys.
        verifier: None where the terms name none.
        worker: Adds; where it can die, it can be started again.
        screener: Computes on copies; None where the terms screen nothing.
        reference: By segment index: the public direction that updates are held against, asked for once per session;
            None where there is none yet.
    """

    decryptor: Channel
    worker: Channel
    verifier: Channel | None = None
    screener: Channel | None = None
    reference: Callable[[], Mapping[int, RealVector] | None] = lambda: None


@final
class HomomorphicServer(SumServer):
    """The server of one session.

    Attributes:
        screened: By position: what the screening has told of a client's update.
    """

    def __init__(self, terms: Terms, roles: Roles) -> None:
        self._terms = terms
        self._session = terms.session
        self._roles = roles
        self._adder = GuardedAdder(terms, roles.worker)
        self._key: RoundKey | None = None
        self._screener: GuardedScreener | None = None
        self._receipts: dict[int, InputReceipt] = {}
        self.screened: dict[int, Screened] = {}
        self._closed = False
        self._opens = False

    def requests(self) -> Mapping[ClientId, bytes]:
        """The round key, to every member.

        Raises:
            ServiceError: The decryptor makes none, or the verifier does not follow.
        """
        self._check_open()
        return dict.fromkeys(self._session.members, self._round_key().to_bytes())

    def receive(self, client: ClientId, reply: bytes) -> None:
        """Check a whole input, screen it where that is the rule, then add it.

        Raises:
            ScreeningError: It was screened out.
            ServiceError: The worker died over it, or the verifier did not take it.
        """
        self._check_open()
        position = self._session.position(client)
        if position in self._receipts:
            raise StageError(f"{client}: has already answered {STAGE}")
        message = EncryptedInput.from_bytes(reply)
        checks.check_member(self._terms, position, message.receipt)
        checks.check_input(self._terms, message, key_id=self._round_key().key_id)
        checks.check_copy(self._terms, message)
        if message.copy:
            self._screen(position, message.copy)
        self._adder.add(message.ciphertexts)
        if self._roles.verifier is not None:
            try:
                _ask("verifier", self._roles.verifier, replace(message, copy=b"").to_bytes(), bytes)
            except ServiceError:
                # Whoever is not in the verifier's sum must not be in ours.
                self._adder.take_back(message.ciphertexts)
                raise
        self._receipts[position] = message.receipt

    def close_stage(self) -> None:
        """Fix who contributed."""
        self._check_open()
        self._closed = True
        if len(self._receipts) < self._session.threshold:
            self._adder.forget()
            raise BelowThresholdError(
                f"{STAGE}: {len(self._receipts)} of {len(self._session.members)} clients answered, "
                f"threshold={self._session.threshold} are needed"
            )
        self._opens = True

    @property
    def contributors(self) -> tuple[ClientId, ...] | None:
        """Whose inputs were added, once that is fixed."""
        if not self._closed:
            return None
        return tuple(self._session.client_at(position) for position in sorted(self._receipts))

    def result(self, bindings: Mapping[int, bytes]) -> SumResult:
        """Have the sums decrypted; once.

        Raises:
            ServiceError: A service is gone or refuses: the session ends without a result.
        """
        if not self._opens:
            raise StageError(f"the sums are opened once, after {STAGE} has closed")
        for segment in self._session.segments:
            check_binding(segment.index, bindings.get(segment.index))
        self._opens = False
        refused = {
            segment.index: reason
            for segment in self._session.segments
            if (reason := self._reason_to_keep_closed(segment, bindings[segment.index]))
        }
        sums = {}
        decrypted = self._decrypted(frozenset(range(len(self._session.segments))) - refused.keys())
        for segment in self._session.segments:
            if segment.index in refused:
                continue
            summed = decrypted.integers(segment.index)
            present = len(self._terms.present(segment, frozenset(self._receipts)))
            reason = reason_to_reject(self._session, summed, present=present)
            if not reason and summed[segment.length :].any():
                reason = "what fills up its last ciphertext is not zero: a member did not follow the protocol"
            if reason:
                refused[segment.index] = reason
            else:
                sums[segment.index] = summed[: segment.length]
        survivors = tuple(self._session.client_at(position) for position in sorted(self._receipts))
        return SumResult(survivors=survivors, sums=sums, refused=refused)

    def _round_key(self) -> RoundKey:
        if self._key is None:
            request = SessionRequest(session=self._session)
            key = _ask("decryptor", self._roles.decryptor, request.to_bytes(), self._read_key)
            if self._roles.verifier is not None:
                following = SessionRequest(session=self._session, key=key)
                _ask("verifier", self._roles.verifier, following.to_bytes(), bytes)
            self._key = key
        return self._key

    def _screen(self, position: int, copy: bytes) -> None:
        """Have one update's numbers computed and opened; once per client, whatever comes out."""
        name = self._session.client_at(position)
        if position in self.screened:
            raise ScreeningError(f"{name}: was screened before; a client is screened once per session")
        numbers = replace(self._guarded_screener().numbers(name, copy), sender=position)
        result = _ask("decryptor", self._roles.decryptor, numbers.to_bytes(), ScreeningResult.from_bytes)
        self.screened[position] = result.screened
        try:
            result.screened.check()
        except ScreeningError as error:
            raise ScreeningError(f"{name}: {error}") from None

    def _guarded_screener(self) -> GuardedScreener:
        if self._roles.screener is None:
            raise ServiceError("the terms screen updates, and this server has no screener")
        if self._screener is None:
            keys = _ask("decryptor", self._roles.decryptor, SCREENING, self._read_evaluation_keys)
            self._screener = GuardedScreener(self._terms, self._roles.screener, keys, self._roles.reference())
        return self._screener

    def _read_evaluation_keys(self, payload: bytes) -> EvaluationKeys:
        keys = EvaluationKeys.from_bytes(payload)
        checks.check_context(self._terms, keys.context)
        decryptor = self._terms.services.decryptor
        self._terms.trust.verify(decryptor, EVALUATION_PURPOSE, keys.signed_part(), keys.signature)
        return keys

    def _reason_to_keep_closed(self, segment: Segment, binding: bytes) -> str:
        receipts = self._receipts.values()
        reason = checks.reason_to_keep_closed(self._terms, segment, receipts, self._receipts.keys())
        if not reason and any(
            receipt.parts[segment.index].binding != binding
            for receipt in receipts
            if segment.index in receipt.parts
        ):
            reason = "its members were bound to another model than the server"
        return reason

    def _decrypted(self, wanted: frozenset[int]) -> DecryptedSums:
        """The decryptor's signed answer about these segments."""
        context = self._terms.context
        if not wanted:
            self._adder.forget()
            return DecryptedSums(context=context, sum_digest=b"", sums={})
        sums = self._adder.sums()
        encrypted = EncryptedSum(
            context=context,
            key_id=self._round_key().key_id,
            receipts=tuple(self._receipts[position] for position in sorted(self._receipts)),
            ciphertexts={index: sums[index] for index in sorted(wanted)},
        )
        verified = SumSignature(signature=b"")
        if self._roles.verifier is not None:
            verified = _ask("verifier", self._roles.verifier, encrypted.to_bytes(), SumSignature.from_bytes)
        request = DecryptRequest(encrypted=encrypted, verified=verified)
        return _ask(
            "decryptor",
            self._roles.decryptor,
            request.to_bytes(),
            lambda payload: self._read_sums(payload, encrypted),
        )

    def _read_key(self, payload: bytes) -> RoundKey:
        key = RoundKey.from_bytes(payload)
        checks.check_round_key(self._terms, key)
        return key

    def _read_sums(self, payload: bytes, encrypted: EncryptedSum) -> DecryptedSums:
        answer = DecryptedSums.from_bytes(payload)
        checks.check_context(self._terms, answer.context)
        if answer.sum_digest != encrypted.digest or set(answer.sums) != set(encrypted.ciphertexts):
            raise ContextError("the decryptor has answered about another sum")
        decryptor = self._terms.services.decryptor
        self._terms.trust.verify(decryptor, RESULT_PURPOSE, answer.signed_part(), answer.signature)
        profile = self._terms.profile
        for index in answer.sums:
            expected = (
                profile.ciphertexts(self._session.segments[index].length) * profile.values_per_ciphertext
            )
            if len(answer.sums[index]) != expected:
                raise ContextError(f"segment {index}: the decryptor has answered with another length")
        return answer

    def _check_open(self) -> None:
        if self._closed:
            raise StageError("all stages of the session are closed")


def _ask(who: str, channel: Channel, request: bytes, read: Callable[[bytes], _Answer]) -> _Answer:
    """A service's answer, read and checked; whatever is wrong with it, the session cannot go on by itself."""
    try:
        return read(channel.call(request))
    except ServiceError as error:
        raise ServiceError(f"the {who}: {error}") from None
    except ProtocolError as error:
        raise ServiceError(f"the {who}: {type(error).__name__}: {error}") from None
