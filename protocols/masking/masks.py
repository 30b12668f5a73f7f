"""The masks: their keys and their expansion, for client and server alike.

    y_u = x_u + PRG(b_u) + sum_{v > u} PRG(s_uv) - sum_{v < u} PRG(s_uv)      (Bonawitz et al. 2017, section 4, eq. 1)

once per segment, over the segment's members. All keys are bound to the session's context, the segment and the
binding that the caller gives for the segment (the digest of the model its values were computed from): clients that
were given different models do not cancel. The secret behind a pairwise mask is an X25519 secret, which is extracted
before it is expanded; self-mask seeds are uniform as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import final

from protocols.primitives import prg
from protocols.primitives.kdf import hkdf, hkdf_expand, part, purpose
from protocols.primitives.secret import Secret
from protocols.ring import RingVector
from protocols.session import MAX_MEMBERS

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

    def hide(self, target: RingVector, seed: Secret, partners: Mapping[int, Secret], *, owner: int) -> None:
        """Add all masks of one client's upload, in place: its self mask, plus for later and minus for earlier peers.

        Args:
            target: The client's upload, as ring elements.
            seed: The owner's self-mask seed.
            partners: By position of a peer: the X25519 secret of the two mask keys.
            owner: Position of the client.
        """
        later, earlier = self._split({(owner, peer): secret for peer, secret in partners.items()})
        prg.apply_streams(target, add=[*self._self_keys({owner: seed}), *later], subtract=earlier)

    def remove(
        self, target: RingVector, seeds: Mapping[int, Secret], uncancelled: Mapping[tuple[int, int], Secret]
    ) -> None:
        """Remove everything from a sum that is not an input, in place.

        Args:
            target: The sum of uploads.
            seeds: By survivor: its self-mask seed.
            uncancelled: By (dropped client, survivor): the X25519 secret of their masks, of which the survivor's half
                is in the sum.
        """
        # What the dropped client would have added is what is missing for the pair to cancel.
        later, earlier = self._split(uncancelled)
        prg.apply_streams(target, add=later, subtract=[*self._self_keys(seeds), *earlier])

    def _split(self, secrets: Mapping[tuple[int, int], Secret]) -> tuple[list[Secret], list[Secret]]:
        """Return the keys of pairwise masks that an owner adds, and of those it subtracts, by (owner, peer)."""
        later: list[Secret] = []
        earlier: list[Secret] = []
        bound = self._bound("pairwise mask")
        for (owner, peer), secret in secrets.items():
            first, second = (owner, peer) if owner < peer else (peer, owner)
            key = hkdf(secret, info=bound + _part(first) + _part(second), size=prg.KEY_SIZE)
            (later if owner < peer else earlier).append(key)
        return later, earlier

    def _self_keys(self, seeds: Mapping[int, Secret]) -> list[Secret]:
        """Return the keys of self masks, by owner."""
        bound = self._bound("self mask")
        return [
            hkdf_expand(seed, info=bound + _part(owner), size=prg.KEY_SIZE) for owner, seed in seeds.items()
        ]

    def _bound(self, label: str) -> bytes:
        """Return the context that all keys of one kind share. Thousands of keys need it, so callers make it once."""
        return purpose(label, self.context, self.binding) + _part(self.segment)


@lru_cache(maxsize=MAX_MEMBERS)
def _part(number: int) -> bytes:
    """Return a position or segment as the part of a context."""
    return part(number.to_bytes(2, "big"))
