"""The verifier: holds no key, adds the same inputs as the aggregator, and signs the sum if it is equal.

It also fixes the list of inputs beside the decryptor, before any ciphertext is sent, and where updates are screened it
alone computes what is opened of them. With it, an aggregator that lies cannot have anything decrypted but sums of inputs on
that list, whose ciphertexts were chosen before anybody saw another's, and the two numbers of each that the rule
names. It learns what the aggregator learns: ciphertexts and who contributed. It costs as many bytes and as much adding again.
"""

from dataclasses import dataclass
from typing import final

from protocols.errors import CiphertextError, StageError
from protocols.homomorphic import checks
from protocols.homomorphic.commitments import Commitments
from protocols.homomorphic.messages import (
    SUM_PURPOSE,
    DecryptedSums,
    EncryptedInput,
    EncryptedSum,
    RoundKey,
    SumSignature,
)
from protocols.homomorphic.parties.classed_adder import ClassedAdder
from protocols.homomorphic.receipts import CommittedInputs
from protocols.homomorphic.screening.at_verifier import (
    NOTHING_YET,
    Reference,
    VerifiedScreening,
    reference_of,
)
from protocols.homomorphic.screening.messages import EvaluationKeys, ScreeningCopy, ScreeningNumbers
from protocols.homomorphic.services.charge import Charge, check_session
from protocols.homomorphic.terms import EncryptionTerms
from protocols.identity.trust import Identity, TrustStore
from protocols.session import Session


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Following:
    """A session whose inputs are being added."""

    terms: EncryptionTerms
    key_id: bytes
    commitments: Commitments
    screening: VerifiedScreening
    adder: ClassedAdder


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Signed:
    """The last sum that was signed, until its outcome is shown."""

    terms: EncryptionTerms
    present: frozenset[int]
    digest: bytes


@final
class Verifier:
    """The verifier of one run. It signs one list and one sum of each session, unless it is restarted in between.

    Args:
        charge: The sessions and parties that it serves.
        trust: Its current view of whom to believe.
        identity: Its own identity, enrolled as a service.
    """

    def __init__(self, charge: Charge, trust: TrustStore, identity: Identity) -> None:
        self._charge = charge
        self._trust = trust
        self._identity = identity
        self._session: _Following | None = None
        self._newest: Session | None = None
        self._fixed_round = 0
        self._signed: _Signed | None = None
        self._reference: Reference = NOTHING_YET

    @property
    def reference(self) -> Reference:
        """The reference for the next session's updates; empty until the outcome of the last signed sum is shown."""
        return self._reference if self._signed is None else NOTHING_YET

    def recall(self, reference: Reference) -> None:
        """Restore the reference that a verifier of this run held before its restart. Only its operator can call this.

        Raises:
            StageError: It has followed a session already, so its own reference counts.
        """
        if self._newest is not None:
            raise StageError(
                "a verifier is told what it held before only as long as it has followed no session"
            )
        self._reference = reference

    def believe(self, trust: TrustStore) -> None:
        """Replace the view of whom to believe; a session begun under other lists ends."""
        if trust.digest != self._trust.digest:
            self.end_session()
        self._trust = trust

    def end_session(self) -> None:
        """Forget the current session, the sum that was signed last, and the direction.

        What a decryptor that the new lists take back says of that sum is not taken; and as nobody knows here what came of
        it, the next updates are compared with nothing.
        """
        self._session = self._signed = None
        self._reference = NOTHING_YET

    def follow(self, session: Session, key: RoundKey) -> None:
        """Begin a session; the one before it ends.

        Raises:
            ContextError, StageError, QuorumError, SessionError, IdentityError: It is not the next one of the run, a member
                of it cannot be believed, or the key is not the decryptor's for it.
        """
        charge = self._charge
        check_session(charge, session, self._newest)
        if session.round <= self._fixed_round:
            raise StageError(
                f"round {session.round}: the inputs of round {self._fixed_round} were fixed already"
            )
        terms = charge.terms(session, self._trust)
        checks.check_round_key(terms, key)
        self._newest = session
        self._session = _Following(
            terms=terms,
            key_id=key.key_id,
            commitments=Commitments(terms, key.key_id, self._identity),
            screening=VerifiedScreening(terms, self._identity, self.reference),
            adder=ClassedAdder(terms),
        )

    def fix_inputs(self, message: CommittedInputs) -> bytes:
        """Sign the one list of inputs; raises as :meth:`Commitments.fix`, and StageError without a session."""
        following = self._following()
        signature = following.commitments.fix(message)
        self._fixed_round = following.terms.session.round
        return signature

    def take_evaluation_keys(self, keys: EvaluationKeys) -> None:
        """Prepare to screen; raises as :meth:`VerifiedScreening.take_keys`, and StageError without a session."""
        self._following().screening.take_keys(keys)

    def screen(self, message: ScreeningCopy) -> ScreeningNumbers:
        """Compute and sign the numbers of one client's copy.

        Raises:
            StageError: No session is open, or its list is not fixed.
            CommitmentError, RosterError: The client is not on it.
            ProtocolError: As :meth:`VerifiedScreening.numbers`.
        """
        following = self._following()
        return following.screening.numbers(message, following.commitments.receipt(message.sender))

    def handle_input(self, message: EncryptedInput) -> None:
        """Add one client's input.

        Raises:
            StageError: No session is open, its list is not fixed, or this client's input was added before.
            CommitmentError: The client is not on the list, or shows another receipt.
            CiphertextError, ContextError, KeyUseError, RosterError: It is refused.
        """
        following = self._following()
        terms, sender = following.terms, message.receipt.sender
        checks.check_context(terms, message.receipt.context)
        checks.check_key_id(message.receipt.key_id, following.key_id)
        committed = following.commitments.receipt(sender)
        checks.check_input(terms, message, key_id=following.key_id, committed=committed)
        if sender in following.adder.added:
            raise StageError(f"position {sender}: its input was added before")
        following.adder.add(sender, message.ciphertexts)

    def sign_sum(self, message: EncryptedSum) -> SumSignature:
        """Sign the aggregator's sum, once, if it is exactly the sum of inputs that were added here.

        Of the inputs that were added, a whole class may be left out: one with too few members to be opened.

        Raises:
            StageError: No session is open, or its sum was signed.
            RosterError: The contributors are not those of the inputs.
            CiphertextError: A sum is another one; or where updates are screened, one is missing.
            ContextError, KeyUseError, CommitmentError: The sum is of another session, key or list.
            IdentityError: A service or contributor cannot be believed any more: its certificate, or a list, has expired since.
        """
        following = self._following()
        present = following.commitments.check_sum(message)
        checks.check_whole(following.terms, present, message)
        following.terms.check_parties(present)
        own = following.adder.sums(present)
        for index, ciphertexts in message.ciphertexts.items():
            if own.get(index) != ciphertexts:
                raise CiphertextError(f"segment {index}: this is not the sum of the inputs")
        self._session = None
        self._signed = _Signed(terms=following.terms, present=present, digest=message.digest)
        return SumSignature(signature=self._identity.sign(SUM_PURPOSE, message.digest))

    def take_opened(self, opened: DecryptedSums) -> None:
        """Take the sums that the decryptor has opened; the next session's updates are compared with them.

        Raises:
            StageError: No sum was signed since the last ones.
            ContextError, IdentityError: As :func:`reference_of`.
        """
        if self._signed is None:
            raise StageError("no sum was signed of which these could be the opened ones")
        signed = self._signed
        self._reference = reference_of(signed.terms, signed.present, signed.digest, opened)
        self._signed = None

    def _following(self) -> _Following:
        if self._session is None:
            raise StageError("the verifier follows no session, or has signed its sum")
        return self._session
