"""The homomorphic mode keeps the contract of every secure sum, with and without a verifier, in every profile."""

from typing import ClassVar

from protocols.errors import ProtocolError, WireError
from protocols.homomorphic.parameters import BFV_2X29
from protocols.interface import SecureSum, SumResult
from protocols.session import Segment, Session
from tests.contracts.secure_sum import SecureSumContract
from tests.protocols.homomorphic.parties import VERIFIED, EveryonesHomomorphic


class HomomorphicContract(SecureSumContract):
    """Bindings are signed beside the ciphertexts: where they differ, the segment stays closed.

    Its first request carries the round key, so a first request of another form is malformed.
    """

    refusal_of_a_foreign_first_request: ClassVar[type[ProtocolError]] = WireError

    def check_mixed_bindings(
        self,
        session: Session,
        result: SumResult,
        sums_of_inputs: dict[int, list[int]],
    ) -> None:
        """Segment 0 stays closed by name, also at full capacity."""
        assert result.refused[0] == "its members were bound to different models"

    def check_foreign_server_binding(
        self,
        session: Session,
        result: SumResult,
        sums_of_inputs: dict[int, list[int]],
    ) -> None:
        """The same."""
        assert result.refused[0] == "its members were bound to another model than the server"

    def quorum(self, session: Session, part: Segment) -> int:
        """The session's own."""
        return part.quorum


class TestHomomorphic(HomomorphicContract):
    """Two fields of 20 bits: the capacity of the ring of 20 bits."""

    secure_sum: ClassVar[SecureSum] = EveryonesHomomorphic()
    ring_bits: ClassVar[int] = 20


class TestVerifiedHomomorphic(HomomorphicContract):
    """A verifier adds the same inputs."""

    secure_sum: ClassVar[SecureSum] = EveryonesHomomorphic(services=VERIFIED)
    ring_bits: ClassVar[int] = 20


class TestHomomorphicIn29Bits(HomomorphicContract):
    """Two fields of 29 bits, of which sessions in the ring of 24 bits use a part."""

    secure_sum: ClassVar[SecureSum] = EveryonesHomomorphic(BFV_2X29)
    ring_bits: ClassVar[int] = 24
