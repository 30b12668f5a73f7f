"""The masks themselves: which key expands to what, for client and server alike.

    y_u = x_u + PRG(b_u) + sum_{v > u} PRG(s_uv) - sum_{v < u} PRG(s_uv)      (Bonawitz et al. 2017, section 4, eq. 1)

once per segment, over the segment's members. All keys are bound to the session's context, the segment and the
binding that the caller gives for the segment (the digest of the model its values were computed from): clients that
were given different models do not cancel.
"""

from dataclasses import dataclass, field
from typing import final

from protocols.primitives import prg
from protocols.primitives.kdf import derive_key
from protocols.primitives.secret import Secret
from protocols.ring import RingVector

SEED_SIZE = 32


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentMasks:
    """The masks of one segment of one session.

    Args:
        context: The session's context.
        segment: The segment's index.
        binding: 32 bytes that the caller binds the segment to.
    """

    context: bytes = field(repr=False)
    segment: int
    binding: bytes = field(repr=False)

    def add_self(self, target: RingVector, seed: Secret, *, owner: int) -> None:
        """Add PRG(b_u) of client `owner`, in place."""
        prg.add_stream(target, self._self_key(seed, owner))

    def remove_self(self, target: RingVector, seed: Secret, *, owner: int) -> None:
        """Subtract PRG(b_u) of client `owner`, in place."""
        prg.subtract_stream(target, self._self_key(seed, owner))

    def add_pairwise(self, target: RingVector, secret: Secret, *, owner: int, peer: int) -> None:
        """Add what `owner` adds towards `peer`, in place: plus for a later peer, minus for an earlier one.

        Args:
            target: Ring elements.
            secret: The X25519 secret of the two mask keys.
            owner: Position of the client whose upload carries this mask.
            peer: Position of the other client.
        """
        low, high = sorted((owner, peer))
        key = self._key(secret, "pairwise mask", low, high)
        if owner < peer:
            prg.add_stream(target, key)
        else:
            prg.subtract_stream(target, key)

    def _self_key(self, seed: Secret, owner: int) -> Secret:
        return self._key(seed, "self mask", owner)

    def _key(self, secret: Secret, label: str, *numbers: int) -> Secret:
        parts = (number.to_bytes(2, "big") for number in (self.segment, *numbers))
        return derive_key(
            secret, label=label, context=(self.context, self.binding, *parts), size=prg.KEY_SIZE
        )
