"""The homomorphic mode keeps the contract of every secure sum, with and without a verifier, in every profile."""

from typing import ClassVar

from protocols.errors import ProtocolError, WireError
from protocols.homomorphic.scheme.parameters import BFV_2X29
from protocols.interface import SecureSum, SumResult
from protocols.session import Segment, Session
from tests.contracts.secure_sum import SecureSumContract
from tests.contracts.sessions import OTHER_MODEL, make_inputs
from tests.protocols.homomorphic.meeting import VERIFIED, EveryonesHomomorphic


class HomomorphicContract(SecureSumContract):
    """One model for all segments is signed beside the digests of the ciphertexts: a few with another one are left out.

    Its first request carries the round key, so a first request of another form is malformed.
    """

    refusal_of_a_foreign_first_request: ClassVar[type[ProtocolError]] = WireError
    odd_bindings: ClassVar[dict[int, bytes]] = {0: OTHER_MODEL, 1: OTHER_MODEL}

    def check_other_segments(self, result: SumResult, sums_of_inputs: dict[int, list[int]]) -> None:
        """What befalls one segment befalls all."""
        assert (1 in result.sums) == (0 in result.sums)
        assert 1 not in result.sums or result.sums[1].tolist() != sums_of_inputs[1]

    def check_mixed_bindings(
        self,
        session: Session,
        result: SumResult,
        sums_of_inputs: dict[int, list[int]],
    ) -> None:
        """The odd one has dropped out of all segments before it uploaded, also at full capacity."""
        (odd,) = set(session.members) - set(result.survivors)
        own = make_inputs(session)[odd]
        assert {index: (values + own[index].values).tolist() for index, values in result.sums.items()} == (
            sums_of_inputs
        )

    def check_foreign_server_binding(
        self,
        session: Session,
        result: SumResult,
        sums_of_inputs: dict[int, list[int]],
    ) -> None:
        """Every segment stays closed by name."""
        assert result.refused == dict.fromkeys(
            sums_of_inputs, "its members were bound to another model than the server"
        )

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
