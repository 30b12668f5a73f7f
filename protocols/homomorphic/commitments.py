"""The list of inputs of one session as a decryptor or verifier fixes it: once, before any ciphertext is sent.

Both run the same checks, each on its own. What follows for everybody: contributors are in the list, their ciphertexts are
those that the list names for them and nobody else, and all were computed from one model.
"""

from collections.abc import Mapping
from typing import final

from protocols.errors import BelowThresholdError, CommitmentError, InputError, StageError
from protocols.homomorphic import checks
from protocols.homomorphic.messages import EncryptedSum
from protocols.homomorphic.receipts import FIXED_PURPOSE, CommittedInputs, InputReceipt
from protocols.homomorphic.terms import EncryptionTerms
from protocols.identity.trust import Identity


def check_committed(terms: EncryptionTerms, message: CommittedInputs, *, key_id: bytes) -> None:
    """Refuse a list that holds a receipt which does not hold, or inputs bound to two models.

    Digests that stand in two receipts are let through: at most one sender has ciphertexts for them
    (:mod:`protocols.homomorphic.receipts`).

    Raises:
        ContextError, KeyUseError, RosterError, InputError, IdentityError: As :func:`checks.check_receipt`.
        BelowThresholdError: It is shorter than the threshold.
    """
    checks.check_context(terms, message.context)
    checks.check_key_id(message.key_id, key_id)
    for receipt in message.receipts:
        checks.check_receipt(terms, receipt, key_id=key_id)
    if len({receipt.binding for receipt in message.receipts if receipt.digests}) > 1:
        raise InputError("the inputs are bound to different models: whose is another must be left out")
    if len(message.receipts) < terms.session.threshold:
        raise BelowThresholdError(
            f"{len(message.receipts)} committed inputs must be >= threshold={terms.session.threshold}"
        )


@final
class Commitments:
    """The list of inputs of one session at one service.

    Args:
        terms: The terms of the session.
        key_id: Digest of the session's round key, 32 bytes.
        identity: The identity of the service.
    """

    def __init__(self, terms: EncryptionTerms, key_id: bytes, identity: Identity) -> None:
        self._terms = terms
        self._key_id = key_id
        self._identity = identity
        self._fixed: tuple[bytes, bytes] | None = None
        self._receipts: Mapping[int, InputReceipt] = {}

    def fix(self, message: CommittedInputs) -> bytes:
        """Check the list and sign it. The same list again gets the same signature; no other list is signed.

        Raises:
            CommitmentError: Another list was fixed.
            ProtocolError: As :func:`check_committed`.
        """
        listed = message.listed()
        if self._fixed is None:
            check_committed(self._terms, message, key_id=self._key_id)
            self._fixed = (listed.digest, self._identity.sign(FIXED_PURPOSE, listed.signed_part()))
            self._receipts = {receipt.sender: receipt for receipt in message.receipts}
        if listed.digest != self._fixed[0]:
            raise CommitmentError(
                "another list of inputs was fixed for this session: what comes later or was changed does not count"
            )
        return self._fixed[1]

    @property
    def receipts(self) -> Mapping[int, InputReceipt]:
        """The receipts of everyone on the list.

        Raises:
            StageError: None is fixed yet.
        """
        if self._fixed is None:
            raise StageError("the list of inputs is not fixed yet")
        return self._receipts

    def receipt(self, sender: int) -> InputReceipt:
        """Return the receipt of one client.

        Raises:
            StageError: No list is fixed yet.
            RosterError: There is no such member.
            CommitmentError: It is not on the list.
        """
        name = self._terms.session.client_at(sender)
        if sender not in self.receipts:
            raise CommitmentError(f"{name}: is not on the list of inputs that was fixed")
        return self.receipts[sender]

    def check_sum(self, message: EncryptedSum) -> frozenset[int]:
        """Return the contributors of a sum, after a check that all of them are on the list.

        Raises:
            ContextError, KeyUseError, CiphertextError: The sum is of another session or key, or has the wrong size.
            StageError: No list is fixed yet.
            CommitmentError: It is over another list, or somebody beyond it.
            RosterError: There is no such member.
        """
        checks.check_sum(self._terms, message, key_id=self._key_id)
        for sender in message.contributors:
            self.receipt(sender)
        if self._fixed is None or message.inputs_digest != self._fixed[0]:
            raise CommitmentError("the sum is over another list of inputs than the one that was fixed")
        return frozenset(message.contributors)
