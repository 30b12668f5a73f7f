"""The decryptor: makes a key per session, fixes the contributors, decrypts one sum per band, forgets the key.

It is an organisation of its own. It never receives a client's ciphertext, only sums and the signed receipts of those whose
inputs they hold; it decides for itself whether they are enough. Whom it believes, by which revocation list and by which
clock, its own operator tells it, and nobody else. What it cannot see is whether a sum really is the sum of the inputs with
these receipts: a lying aggregator could send one client's ciphertext in its place, and another one's for every band. Hence
the verifier, whose signature it then demands; without one, it trusts the aggregator to follow the protocol.

Guarantees, whatever it is asked: per key one list of inputs, all of clients that it believes and of one model, and per
round one such key; at most one decryption of every segment, all over one set of contributors from that list; no segment
below its quorum or below `least_quorum`, no sum with a class of view below its own; never two sums of one round.
"""

from dataclasses import dataclass, replace
from typing import final

from protocols.errors import BelowThresholdError, KeyUseError, QuorumError, SignatureError, StageError
from protocols.homomorphic import checks
from protocols.homomorphic.commitments import Commitments
from protocols.homomorphic.messages import (
    KEY_PURPOSE,
    RESULT_PURPOSE,
    SUM_PURPOSE,
    DecryptedSums,
    EncryptedSum,
    RoundKey,
)
from protocols.homomorphic.receipts import CommittedInputs
from protocols.homomorphic.scheme import polynomials
from protocols.homomorphic.scheme.bfv import RoundSecret
from protocols.homomorphic.scheme.ckks import ScreeningSecret
from protocols.homomorphic.scheme.fields import from_slots
from protocols.homomorphic.screening.messages import (
    NO_REFERENCE,
    EvaluationKeys,
    ScreeningNumbers,
    ScreeningResult,
)
from protocols.homomorphic.screening.number_opening import NumberOpening
from protocols.homomorphic.screening.screening import MODULI
from protocols.homomorphic.services.charge import Charge, check_session
from protocols.homomorphic.terms import EncryptionTerms
from protocols.identity.trust import Identity, TrustStore
from protocols.ring import IntegerVector
from protocols.session import Segment, Session


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Open:
    """A key that has not been used yet."""

    terms: EncryptionTerms
    key: RoundKey
    secret: RoundSecret
    commitments: Commitments
    numbers: NumberOpening | None


@final
class Decryptor:
    """The decryptor of one run; it serves one session after another.

    Args:
        charge: The sessions and parties that it serves.
        trust: Its current view of whom to believe.
        identity: Its own identity, enrolled as a service.
    """

    def __init__(self, charge: Charge, trust: TrustStore, identity: Identity) -> None:
        self._charge = charge
        self._trust = trust
        self._identity = identity
        self._open: _Open | None = None
        self._newest: Session | None = None
        self._fixed_round = 0
        self._last_opened = NO_REFERENCE

    def recall(self, last_opened: bytes) -> None:
        """Restore the digest of the last sums that a decryptor of this run opened. Only its operator can call this.

        Raises:
            StageError: It has made a key already, so its own digest counts.
        """
        if self._newest is not None:
            raise StageError("a decryptor is told what was opened before only as long as it has made no key")
        self._last_opened = last_opened

    def believe(self, trust: TrustStore) -> None:
        """Replace the view of whom to believe; a session begun under other lists ends, and its key is forgotten."""
        if trust.digest != self._trust.digest:
            self.end_session()
        self._trust = trust

    def end_session(self) -> None:
        """Forget the key of the current session, if there is one; nothing under it is opened any more."""
        self._open = None

    def create_round_key(self, session: Session) -> RoundKey:
        """Make a fresh key for one session; the key of the session before is forgotten, used or not.

        Raises:
            ContextError: The session is of another run or plan.
            StageError: Its round has had its inputs fixed already, or its round or attempt does not move forward.
            QuorumError: A sum could be opened over fewer holders, or of a class, than this decryptor allows.
            SessionError, IdentityError: As :class:`EncryptionTerms`: a member cannot be believed, or not with the rank that it has.
        """
        charge = self._charge
        check_session(charge, session, self._newest)
        if session.round <= self._fixed_round:
            raise StageError(
                f"round {session.round}: the inputs of round {self._fixed_round} were fixed already"
            )
        terms = charge.terms(session, self._trust)
        secret = RoundSecret.generate(charge.profile)
        screening = ScreeningSecret.generate() if charge.screening is not None else None
        copies = polynomials.encode(screening.public_key(), MODULI) if screening is not None else b""
        key = RoundKey(
            context=terms.context,
            key=polynomials.encode(secret.public_key(), charge.profile.moduli),
            screening_key=copies,
        )
        key = replace(key, signature=self._identity.sign(KEY_PURPOSE, key.signed_part()))
        commitments = Commitments(terms, key.key_id, self._identity)
        numbers = None
        if screening is not None:
            numbers = NumberOpening(
                terms, screening, self._identity, commitments, last_opened=self._last_opened
            )
        self._newest = session
        self._open = _Open(terms=terms, key=key, secret=secret, commitments=commitments, numbers=numbers)
        return key

    def fix_inputs(self, message: CommittedInputs) -> bytes:
        """Sign the only list of inputs whose sum this key will open; the round gets no other key after that.

        Raises:
            KeyUseError: There is no key, or it was used.
            ProtocolError: As :meth:`Commitments.fix`.
        """
        opened = self._opened()
        signature = opened.commitments.fix(message)
        self._fixed_round = opened.terms.session.round
        return signature

    def evaluation_keys(self) -> EvaluationKeys:
        """Return the keys for computing on copies of the current session.

        Raises:
            KeyUseError: No session is open, or it screens nothing.
        """
        return self._numbers().evaluation_keys()

    def screen(self, message: ScreeningNumbers) -> ScreeningResult:
        """Open the numbers of one client's update, once, and release what the rule allows.

        Raises:
            KeyUseError: No session is open, or it screens nothing.
            ProtocolError: As :meth:`NumberOpening.open`.
        """
        return self._numbers().open(message)

    def decrypt(self, message: EncryptedSum, verified: bytes = b"") -> DecryptedSums:
        """Decrypt the sums of one session; the key is forgotten afterwards, whatever the outcome.

        A message that is refused before the key is touched leaves the key for a better one.

        Args:
            message: The sums.
            verified: The verifier's signature of them; empty where there is no verifier.

        Raises:
            KeyUseError: There is no such key, or it was used.
            StageError: No list of inputs was fixed.
            ContextError, RosterError, CommitmentError, CiphertextError: The message is of another session or list,
                or where updates are screened leaves out a band that may be opened.
            SignatureError: The verifier has not signed these sums.
            IdentityError: A service or contributor cannot be believed any more: its certificate, or a list, has expired since.
            BelowThresholdError: Fewer contributors than the threshold.
            QuorumError: A segment has fewer holders among them than its quorum, or a class fewer members than its own.
            ScreeningError: A contributor was not screened, or did not pass.
        """
        opened = self._opened()
        terms, secret = opened.terms, opened.secret
        present = opened.commitments.check_sum(message)
        self._check_verified(message, verified)
        if opened.numbers is not None:
            opened.numbers.check_passed(present)
        terms.check_parties(present)
        self._check_enough(terms, present, message)
        segments = [terms.session.segments[index] for index in sorted(message.ciphertexts)]
        pairs = {s.index: self._decode(s, message.ciphertexts[s.index]) for s in segments}

        # From here on the key counts as used.
        self._open = None
        sums: dict[int, IntegerVector] = {}
        for segment in segments:
            sums[segment.index] = from_slots(
                secret.decrypt(pairs[segment.index]),
                terms.profile,
                members=len(terms.session.members),
                contributors=len(terms.present(segment, present)),
            )
        found = self._signed(DecryptedSums.of(context=terms.context, sum_digest=message.digest, sums=sums))
        self._last_opened = found.digest
        return found

    def _opened(self) -> _Open:
        if self._open is None:
            raise KeyUseError("there is no key, or it was used: a round needs a key of its own")
        return self._open

    def _numbers(self) -> NumberOpening:
        numbers = self._open.numbers if self._open is not None else None
        if numbers is None:
            raise KeyUseError("there is no key for screening: no session is open, or it screens nothing")
        return numbers

    def _check_verified(self, message: EncryptedSum, signature: bytes) -> None:
        if verifier := self._charge.services.verifier:
            self._trust.verify(verifier, SUM_PURPOSE, message.digest, signature)
        elif signature:
            raise SignatureError("a verifier's signature, where there is no verifier")

    def _check_enough(self, terms: EncryptionTerms, present: frozenset[int], message: EncryptedSum) -> None:
        if len(present) < terms.session.threshold:
            raise BelowThresholdError(
                f"{len(present)} contributors must be >= threshold={terms.session.threshold}"
            )
        checks.check_classes(terms, present)
        for index in message.ciphertexts:
            segment = terms.session.segments[index]
            if reason := checks.reason_to_keep_closed(terms, segment, present):
                raise QuorumError(f"segment {index}: {reason}")
        checks.check_whole(terms, present, message)

    def _decode(self, segment: Segment, data: bytes) -> polynomials.Polynomials:
        profile = self._charge.profile
        return polynomials.decode(
            data,
            count=profile.ciphertexts(segment.length),
            moduli=profile.ciphertext_moduli,
            degree=profile.degree,
        )

    def _signed(self, message: DecryptedSums) -> DecryptedSums:
        return replace(message, signature=self._identity.sign(RESULT_PURPOSE, message.signed_part()))
