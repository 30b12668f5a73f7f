"""The decryptor's part of screening: opens two numbers per listed client once, and applies the rule to them."""

from dataclasses import replace
from typing import final

from protocols.errors import CommitmentError, ScreeningError, SignatureError
from protocols.homomorphic import checks
from protocols.homomorphic.commitments import Commitments
from protocols.homomorphic.scheme import polynomials
from protocols.homomorphic.scheme.ckks import ScreeningSecret
from protocols.homomorphic.screening.messages import (
    EVALUATION_PURPOSE,
    NO_REFERENCE,
    NUMBERS_PURPOSE,
    EvaluationKeys,
    ScreeningNumbers,
    ScreeningResult,
)
from protocols.homomorphic.screening.screening import DEGREE, SCALAR_MODULI
from protocols.homomorphic.terms import EncryptionTerms
from protocols.identity.trust import Identity


@final
class NumberOpening:
    """The screening of one session.

    Why an aggregator reads no update by it, where there is a verifier: what is opened bears the verifier's signature, with
    the position and the copy that the fixed list names for it, so it was computed by the verifier from that client's copy;
    and the direction is that of the sums which this decryptor opened last, or there is none. Opened is the first
    slot alone, once per client. Caveat: whoever is in those sums has a say in the direction (`screening.py`).

    Args:
        terms: The terms of the session.
        secret: The secret key of the session's copies.
        identity: The identity of the decryptor.
        commitments: The list of inputs.
        last_opened: Digest of the last sums that were opened; NO_REFERENCE where there are none.
    """

    def __init__(
        self,
        terms: EncryptionTerms,
        secret: ScreeningSecret,
        identity: Identity,
        commitments: Commitments,
        *,
        last_opened: bytes,
    ) -> None:
        self._terms = terms
        self._secret = secret
        self._identity = identity
        self._commitments = commitments
        self._last_opened = last_opened
        self._passed: dict[int, bool] = {}

    def evaluation_keys(self) -> EvaluationKeys:
        """Return the signed keys for computing on copies."""
        keys = EvaluationKeys(context=self._terms.context, keys=self._secret.evaluation_keys())
        return replace(keys, signature=self._identity.sign(EVALUATION_PURPOSE, keys.signed_part()))

    def open(self, message: ScreeningNumbers) -> ScreeningResult:
        """Open the numbers of one client's update and judge them.

        Raises:
            ContextError, RosterError, CiphertextError: The numbers are of another session or no member, or malformed.
            StageError: The list of inputs is not fixed yet.
            CommitmentError: The client is not on it, or the numbers are of another copy.
            SignatureError: The verifier has not signed them.
            ScreeningError: This client was screened before, or the direction is not that of the last opened sums.
        """
        rule = self._terms.screening
        checks.check_context(self._terms, message.context)
        receipt = self._commitments.receipt(message.sender)
        name = self._terms.session.client_at(message.sender)
        if rule is None or message.sender in self._passed:
            raise ScreeningError(f"{name}: was screened before; a client is screened once per session")
        if message.copy_digest != receipt.copy_digest:
            raise CommitmentError(f"{name}: the numbers are of another copy than the one it has committed to")
        self._check_verified(message)
        squared = self._scalar(message.squared_norm)
        product = self._scalar(message.projection) if message.projection else None
        self._passed[message.sender] = False  # whatever comes out, this was the one time
        screened = rule.judge(
            squared_norm=self._secret.open(squared),
            projection=self._secret.open(product) if product is not None else None,
        )
        self._passed[message.sender] = not screened.reason
        return ScreeningResult.of(screened)

    def check_passed(self, present: frozenset[int]) -> None:
        """Refuse contributors that were not screened, or did not pass.

        Raises:
            ScreeningError: There is such a contributor.
        """
        # Whoever holds no segment has nothing to screen.
        session = self._terms.session
        holding = {p for s in session.segments for p in self._terms.present(s, present)}
        if odd := sorted(position for position in holding if not self._passed.get(position)):
            raise ScreeningError(
                f"{session.client_at(odd[0])}: contributes without having passed the screening"
            )

    def _check_verified(self, message: ScreeningNumbers) -> None:
        verifier = self._terms.services.verifier
        if not verifier:
            if message.signature:
                raise SignatureError("a verifier's signature, where there is no verifier")
            return
        self._terms.trust.verify(verifier, NUMBERS_PURPOSE, message.signed_part(), message.signature)
        if message.reference != (self._last_opened if message.projection else NO_REFERENCE):
            raise ScreeningError("the direction is not the mean of the sums that were opened last")

    def _scalar(self, data: bytes) -> polynomials.Polynomials:
        return polynomials.decode(data, count=1, moduli=SCALAR_MODULI, degree=DEGREE)
