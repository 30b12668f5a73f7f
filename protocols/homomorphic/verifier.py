"""The verifier: holds no key, adds the same inputs as the aggregator, and signs the sum if it is the same.

With it, an aggregator that lies cannot have anything decrypted but the sum of the inputs whose receipts it shows. Whether
one of these was computed from the others it cannot see: :class:`protocols.homomorphic.secure_sum.Homomorphic` says more. It
learns what the aggregator learns: ciphertexts and who contributed. It costs as many bytes and as much adding again.
"""

from dataclasses import dataclass
from typing import final

from protocols.errors import CiphertextError, KeyUseError, RosterError, StageError
from protocols.homomorphic import checks
from protocols.homomorphic.adder import Adder
from protocols.homomorphic.decryptor import Charge, check_session
from protocols.homomorphic.messages import (
    SUM_PURPOSE,
    EncryptedInput,
    EncryptedSum,
    InputReceipt,
    RoundKey,
    SumSignature,
)
from protocols.homomorphic.terms import Terms
from protocols.identity import Identity, TrustStore
from protocols.session import Session


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Following:
    """A session whose inputs are being added."""

    terms: Terms
    key_id: bytes
    adder: Adder
    receipts: dict[int, InputReceipt]


@final
class Verifier:
    """Follows the sessions of one run, one after the other, and signs one sum of each."""

    def __init__(self, charge: Charge, trust: TrustStore, identity: Identity) -> None:
        self._charge = charge
        self._trust = trust
        self._identity = identity
        self._session: _Following | None = None
        self._newest: Session | None = None

    def follow(self, session: Session, key: RoundKey) -> None:
        """Begin with a session; the one before it is over.

        Raises:
            ContextError, StageError, QuorumError, SessionError, IdentityError: It is not the next one of the run, or the
                key is not the decryptor's for it.
        """
        charge = self._charge
        check_session(charge, session, self._newest)
        terms = charge.terms(session, self._trust)
        checks.check_round_key(terms, key)
        self._newest = session
        self._session = _Following(
            terms=terms, key_id=key.key_id, adder=Adder(charge.profile, session), receipts={}
        )

    def handle_input(self, message: EncryptedInput) -> None:
        """Add one client's input.

        Raises:
            StageError: No session is open, or this client's input was added before.
            CiphertextError, ContextError, KeyUseError, RosterError, InputError, IdentityError: It is refused.
        """
        following = self._following()
        checks.check_input(following.terms, message, key_id=following.key_id)
        if message.receipt.sender in following.receipts:
            raise StageError(f"position {message.receipt.sender}: its input was added before")
        following.adder.add(message.ciphertexts)
        following.receipts[message.receipt.sender] = message.receipt

    def sign_sum(self, message: EncryptedSum) -> SumSignature:
        """Sign the aggregator's sum, once, if it is exactly the sum of the inputs that were added here.

        Raises:
            StageError: No session is open, or its sum was signed.
            RosterError: The receipts are not those of the inputs.
            CiphertextError: A sum is another one.
            ContextError, KeyUseError: The sum is of another session or key.
        """
        following = self._following()
        checks.check_context(following.terms, message.context)
        if message.key_id != following.key_id:
            raise KeyUseError("the sum is under another key than this session's")
        if {receipt.sender: receipt for receipt in message.receipts} != following.receipts:
            raise RosterError(
                "the receipts of the sum are not those of the inputs that the verifier was sent"
            )
        own = following.adder.sums()
        for index, ciphertexts in message.ciphertexts.items():
            if own.get(index) != ciphertexts:
                raise CiphertextError(f"segment {index}: this is not the sum of the inputs")
        self._session = None
        return SumSignature(signature=self._identity.sign(SUM_PURPOSE, message.digest))

    def _following(self) -> _Following:
        if self._session is None:
            raise StageError("the verifier follows no session, or has signed its sum")
        return self._session
