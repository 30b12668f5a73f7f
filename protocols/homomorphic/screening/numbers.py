"""The two encrypted numbers of one copy, computed without a key by the verifier or, without one, by the screener."""

from typing import Final

from protocols.errors import ScreeningError
from protocols.homomorphic.receipts import commitment_to_copy
from protocols.homomorphic.scheme import polynomials
from protocols.homomorphic.scheme.ckks import Evaluator
from protocols.homomorphic.screening.messages import ScreeningCopy, ScreeningNumbers
from protocols.homomorphic.screening.screening import CIPHERTEXT_MODULI, DEGREE, SCALAR_MODULI, RealVector

_PAIR_BYTES: Final = polynomials.size_of(1, moduli=CIPHERTEXT_MODULI, degree=DEGREE)


def compute_numbers(
    evaluator: Evaluator, message: ScreeningCopy, direction: RealVector | None
) -> ScreeningNumbers:
    """Return the two encrypted numbers of one copy, unsigned.

    Raises:
        CiphertextError: The bytes are no copy.
        ScreeningError: The library cannot compute on it.
    """
    copy = polynomials.decode(
        message.copy,
        count=len(message.copy) // _PAIR_BYTES,
        moduli=CIPHERTEXT_MODULI,
        degree=DEGREE,
    )
    projection = b""
    try:
        squared = evaluator.squared_norm(copy)
        if direction is not None:
            projection = polynomials.encode(evaluator.projection(copy, direction), SCALAR_MODULI)
    except (ValueError, RuntimeError) as error:
        raise ScreeningError(f"the encryption library cannot compute on this copy: {error}") from None
    return ScreeningNumbers(
        context=message.context,
        sender=message.sender,
        copy_digest=commitment_to_copy(message.context, message.sender, message.copy),
        squared_norm=polynomials.encode(squared, SCALAR_MODULI),
        projection=projection,
    )
