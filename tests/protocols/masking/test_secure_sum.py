"""Masking keeps the contract of every secure sum."""

from typing import ClassVar

from protocols.interface import SecureSum, SumResult
from protocols.masking.secure_sum import Masking
from protocols.session import Session
from tests.contracts.secure_sum import SecureSumContract


class TestMasking(SecureSumContract):
    """It mixes the bindings into the masks: where they differ, masks stay in the sum and every value is noise.

    Noise exceeds what honest inputs can add up to, so the segment is refused; only where the bound uses up the ring
    does it open, and then to noise.
    """

    secure_sum: ClassVar[SecureSum] = Masking()

    def check_mixed_bindings(
        self, session: Session, result: SumResult, sums_of_inputs: dict[int, list[int]]
    ) -> None:
        """Segment 0 stays closed, or at full capacity opens to something that shares hardly a value with the sum."""
        if session.input_bound == 1000:
            assert "another model" in result.refused[0]
        else:
            pairs = zip(result.sums[0].tolist(), sums_of_inputs[0], strict=True)
            assert sum(found == plain for found, plain in pairs) <= 1  # of 8; one by chance: 2^-29

    def check_foreign_server_binding(
        self, session: Session, result: SumResult, sums_of_inputs: dict[int, list[int]]
    ) -> None:
        """The same: the self masks that the server removes are not those that were added."""
        self.check_mixed_bindings(session, result, sums_of_inputs)
