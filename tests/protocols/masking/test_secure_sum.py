"""Masking keeps the contract of every secure sum, under each profile and in each ring."""

from fractions import Fraction
from typing import ClassVar

from protocols.errors import ProtocolError, SignatureError
from protocols.interface import SecureSum, SumResult
from protocols.masking.secure_sum import Masking
from protocols.profiles import CONSISTENCY, ONE_ANSWER
from protocols.session import Segment, Session
from tests.contracts.secure_sum import SecureSumContract
from tests.protocols.masking.parties import TRUST, EveryonesMasking, ReproducibleMasking

SIGNATURE = 64


class MaskingContract(SecureSumContract):
    """It mixes the bindings into the masks: where they differ, masks stay in the sum and every value is noise.

    Noise exceeds what honest inputs can add up to, so the segment is refused, also with the largest bound there is.
    """

    def check_mixed_bindings(
        self, session: Session, result: SumResult, sums_of_inputs: dict[int, list[int]]
    ) -> None:
        """Segment 0 stays closed, also at full capacity, and says why."""
        assert "another model" in result.refused[0]
        assert 0 not in result.sums

    def check_foreign_server_binding(
        self, session: Session, result: SumResult, sums_of_inputs: dict[int, list[int]]
    ) -> None:
        """The same: the self masks that the server removes are not those that were added."""
        self.check_mixed_bindings(session, result, sums_of_inputs)


class TestMasking(MaskingContract):
    """Unsigned, against a semi-honest server."""

    secure_sum: ClassVar[SecureSum] = Masking()


class SignedMaskingContract(MaskingContract):
    """Advertisements and uploads end in a signature: without it they are whole, and refused as unsigned."""

    def refusal_of_a_cut(self, stage: str, missing: int) -> type[ProtocolError]:
        """A signature that is missing as a whole is a wrong one."""
        signed = stage in {"advertise_keys", "mask_input"}
        return SignatureError if signed and missing == SIGNATURE else super().refusal_of_a_cut(stage, missing)


class TestSignedSemiHonestMasking(SignedMaskingContract):
    """A semi-honest server's profile with signatures all the same."""

    secure_sum: ClassVar[SecureSum] = EveryonesMasking(trust=TRUST)


class TestOneAnswerMasking(SignedMaskingContract):
    """Every client answers one survivor list, and only over more holders than the session's quorum."""

    secure_sum: ClassVar[SecureSum] = EveryonesMasking(ONE_ANSWER)

    def quorum(self, session: Session, part: Segment) -> int:
        """The smallest whole number above e + (m - e) (n - t) / (n - c); with fewer than ten members c = 0."""
        n, m, e = len(session.members), len(part.holders), part.quorum - 1
        above = e + Fraction((m - e) * (n - session.threshold), n)
        return next(number for number in range(1, m + 1) if number > above)


class TestConsistencyMasking(SignedMaskingContract):
    """Everyone signs the survivor list before anyone reveals."""

    secure_sum: ClassVar[SecureSum] = EveryonesMasking(CONSISTENCY)

    def least_threshold(self, count: int) -> int:
        """More than two thirds."""
        return next(t for t in range(count + 1) if 3 * t > 2 * count)


class TestMaskingIn16Bits(MaskingContract):
    """The narrowest ring."""

    secure_sum: ClassVar[SecureSum] = ReproducibleMasking()
    ring_bits: ClassVar[int] = 16


class TestMaskingIn20Bits(MaskingContract):
    """The ring whose elements take half bytes."""

    secure_sum: ClassVar[SecureSum] = ReproducibleMasking()
    ring_bits: ClassVar[int] = 20


class TestMaskingIn24Bits(MaskingContract):
    """The ring whose elements take three bytes."""

    secure_sum: ClassVar[SecureSum] = ReproducibleMasking()
    ring_bits: ClassVar[int] = 24


class TestConsistencyMaskingIn24Bits(TestConsistencyMasking):
    """A narrow ring and signatures together."""

    secure_sum: ClassVar[SecureSum] = ReproducibleMasking(profile=CONSISTENCY)
    ring_bits: ClassVar[int] = 24
