"""Addition of clients' ciphertexts by segment, in the aggregator's worker and the verifier. It needs no key.

Inputs are decoded whole before any of them counts, so a bad one leaves the sums as they were.
"""

from collections.abc import Mapping
from typing import final

from protocols.errors import CiphertextError
from protocols.homomorphic.scheme import polynomials
from protocols.homomorphic.scheme.parameters import EncryptionProfile
from protocols.homomorphic.scheme.polynomials import Polynomials
from protocols.session import Session


@final
class Adder:
    """The sums of one session so far, one per segment that anybody contributed to."""

    def __init__(self, profile: EncryptionProfile, session: Session) -> None:
        self._profile = profile
        self._session = session
        self._sums: dict[int, Polynomials] = {}

    def add(self, ciphertexts: Mapping[int, bytes]) -> None:
        """Add one client's ciphertexts, or a stored sum.

        Raises:
            CiphertextError: A segment does not exist, or its bytes are no ciphertexts of the profile.
        """
        moduli = self._profile.ciphertext_moduli
        decoded = {index: self._decode(index, data) for index, data in ciphertexts.items()}
        for index, pairs in decoded.items():
            if index in self._sums:
                polynomials.add(self._sums[index], pairs, moduli)
            else:
                self._sums[index] = pairs

    def sums(self) -> dict[int, bytes]:
        """Return the sums, encoded."""
        moduli = self._profile.ciphertext_moduli
        return {index: polynomials.encode(pairs, moduli) for index, pairs in self._sums.items()}

    def _decode(self, index: int, data: bytes) -> Polynomials:
        if index >= len(self._session.segments):
            raise CiphertextError(f"segment {index} does not exist")
        count = self._profile.ciphertexts(self._session.segments[index].length)
        try:
            return polynomials.decode(
                data, count=count, moduli=self._profile.ciphertext_moduli, degree=self._profile.degree
            )
        except CiphertextError as error:
            raise CiphertextError(f"segment {index}: {error}") from None
