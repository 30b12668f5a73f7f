"""The last stage: checks and keeps the shares that remove the masks."""

from collections.abc import Mapping
from typing import ClassVar, final

from protocols.errors import ShareError
from protocols.interface import SumResult
from protocols.masking.messages import RevealedShares
from protocols.masking.server.opening import MaskedSums, Opening
from protocols.masking.server.stage import Stage
from protocols.masking.server.tracing import Dealings


@final
class RevealShares(Stage):
    """The stage that collects the shares that remove the masks."""

    name: ClassVar[str] = "reveal_shares"

    def __init__(self, masked: MaskedSums) -> None:
        super().__init__(masked.terms)
        self._masked = masked
        self._awaited = frozenset(masked.survivors.survivors)
        self._request = masked.survivors.to_bytes()
        self._revealed: dict[int, RevealedShares] = {}
        self._offered: dict[int, frozenset[int]] = {}

    def await_only(self, positions: frozenset[int], request: bytes) -> None:
        """Ask only those who signed in agree_survivors, and send them the signatures."""
        self._awaited, self._request = positions, request

    @property
    def dealings(self) -> Dealings:
        """The records of the dealings, including the wrong shares that came."""
        return self._masked.dealings

    @property
    def expected(self) -> frozenset[int]:
        """The survivors, or those of them who have signed."""
        return self._awaited

    def request(self, position: int) -> bytes:  # noqa: ARG002
        """Return the survivor list, or the signatures of it."""
        return self._request

    def receive(self, position: int, reply: bytes) -> None:
        """Keep one client's shares: for all owners whose shares it has, in whole segments.

        A wrong share, be it no element of the field, is no reason to refuse the others: it is not used, and its sender is
        named in the result.
        """
        message = RevealedShares.from_bytes(reply)
        name = self._check_sender(position, message)
        offered = frozenset(index for _, index in (*message.mask_key_shares, *message.self_mask_shares))
        if strangers := [index for index in offered if index >= len(self.session.segments)]:
            raise ShareError(f"{name}: segment {min(strangers)} does not exist")
        wards = self._masked.wards(position)
        segments = [self.session.segments[index] for index in offered]
        if set(message.self_mask_shares) != {
            (p, s.index) for s in segments for p in wards & self._masked.present(s)
        }:
            raise ShareError(
                f"{name}: self-mask shares must be for all its survivors of a segment or for none"
            )
        if set(message.mask_key_shares) != {
            (p, s.index) for s in segments for p in wards & self._masked.gone(s)
        }:
            raise ShareError(
                f"{name}: mask-key shares must be for all its dropped peers of a segment or for none"
            )
        given_out = [(s, self._masked.given_out(s)) for s in segments]
        if set(message.extra_shares) != {
            (p, s.index, number)
            for s, out in given_out
            if out
            for p in wards & self._masked.present(s)
            for number in out
        }:
            raise ShareError(f"{name}: extra shares must be exactly those that the segments' rules give out")
        self._masked.dealings.check(message)
        self._revealed[position] = message
        self._offered[position] = offered

    def close(self) -> None:
        """Return None: no stage follows, and the sums can be opened."""
        self._check_enough()

    def open(self, bindings: Mapping[int, bytes], *, noise_follows: bool = False) -> SumResult:
        """Open the sums with these shares; see :meth:`Opening.open`. Once."""
        opening = Opening(self._masked, revealed=self._revealed, offered=self._offered)
        return opening.open(bindings, noise_follows=noise_follows)
