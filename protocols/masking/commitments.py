"""Commitments to shared secrets: they separate wrong shares from right ones, and lying holders from lying dealers.

    advertised   H(seed || what it is)[:16]               by the dealer, of every self-mask seed and extra secret
    dealt        H(share || whose, whose to keep)[:16]    by the dealer, of every share of every secret, to the server
    delivered    H(all commitments to one holder's shares of one dealer)    by the server, with the sealed bundle

A holder checks on delivery that its shares are those the server has commitments to. If not, or if the bundle does not
open, it goes on without these shares and says so with its upload: a *dispute*, in which either of the two lies and the
server cannot tell which. Otherwise the server can check every share that the holder reveals later.

**Why commitments to shares, and not decoding.** Decoding over all m shares that came (Berlekamp and Welch 1986; unique up to
(m - t)/2 wrong ones) names whoever is off the polynomial, and so lets a dealer frame a holder by dealing it a wrong
share. With commitments by the dealer any t right shares are enough whatever the others are, and whoever is
named is at fault:

* A holder whose share misses its commitment: it has let the very commitment pass on delivery, so it has seen a share
  that fits. An honest one reveals that.
* A dealer, if shares that all fit its own commitments do not give the secret it committed to.
* A client in dispute with more others than may lie. Two honest clients have no dispute, so that one of those
  others is honest (the dispute control of Beerliova-Trubiniova and Hirt, TCC 2006).

**Binding.** Sixteen bytes: a share or secret that fits another's commitment is a second preimage, 2^128 tries (one
target each: owner, holder, segment and number are hashed along). A dealer can find a collision of its own with 2^64 and
gains nothing: two seeds with one commitment, or a share swapped by a colluding holder, still give either
the secret as committed to or its own conviction. What the holder compares has 32 bytes, for there a dealer's collision
would frame the holder.

**Hiding.** A seed is 32 uniform bytes; given t - 1 shares, every other is uniform over a field of 2^257 - 93. With SHA-256 as
a random oracle a commitment helps only whoever guesses one of these. Extra secrets must be uniform likewise.

**What it does not stop.** A dealer can deal shares that fit its commitments and lie on no polynomial, or upload what it
likes: either closes the segments that it is a member of, the first by name. Verifiable sharing (Feldman 1987; from hashes
alone Atapoor, Baghery, Cozzo and Pedersen, ASIACRYPT 2023) would stop the first, with an exchange more for complaints
before any input, and not the second; so a dishonest client would lose nothing.
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from typing import Final, final

from protocols.masking.messages import COMMITMENT_SIZE, SegmentShares, ShareBundle
from protocols.primitives.kdf import purpose

# Numbers of the secrets of a segment, in the order of their commitments; extra secret i has number EXTRA + i.
MASK_KEY: Final = 0
SELF_MASK: Final = 1
EXTRA: Final = 2

# Whose secret, of which segment, the number of the secret, and the share.
Share = tuple[int, int, int, bytes]


@final
class Commitments:
    """The maker of the commitments of one session.

    Args:
        context: Digest that all of them are bound to.
    """

    def __init__(self, context: bytes) -> None:
        self._secret = purpose("commitment to a secret", context)
        self._share = purpose("commitment to a share", context)
        self._bundle = purpose("commitments of a bundle", context)

    def secret(self, value: bytes, *, owner: int, segment: int, number: int) -> bytes:
        """Return the commitment to a self-mask seed or an extra secret."""
        text = self._secret + struct.pack(">3H", owner, segment, number) + value
        return hashlib.sha256(text).digest()[:COMMITMENT_SIZE]

    def secrets(self, seed: bytes, extra: Sequence[bytes], *, owner: int, segment: int) -> tuple[bytes, ...]:
        """Return the commitments to one segment's seed and extra secrets, as they are advertised."""
        values = [(SELF_MASK, seed), *enumerate(extra, start=EXTRA)]
        return tuple(self.secret(v, owner=owner, segment=segment, number=number) for number, v in values)

    def shares(self, shares: Iterable[Share], *, holder: int) -> list[bytes]:
        """Return the commitments to the shares of one holder; computed together, as there are thousands."""
        sha256, numbers, label, join = hashlib.sha256, struct.Struct(">4H").pack, self._share, b"".join
        # Joined, not added: to add to a secret makes one more secret each time.
        return [
            sha256(join((label, numbers(owner, holder, segment, number), value))).digest()[:COMMITMENT_SIZE]
            for owner, segment, number, value in shares
        ]

    def bundle(self, bundle: ShareBundle, *, owner: int, holder: int) -> bytes:
        """Return the commitments to all shares of one bundle, in the order of its bytes."""
        shares = [
            (owner, index, number, share)
            for index in sorted(bundle.segments)
            for number, share in enumerate(_in_order(bundle.segments[index]))
        ]
        return b"".join(self.shares(shares, holder=holder))

    def digest(self, commitments: bytes, *, owner: int, holder: int) -> bytes:
        """Return the digest a holder compares: over all commitments to its shares of one owner's secrets."""
        return hashlib.sha256(self._bundle + struct.pack(">2H", owner, holder) + commitments).digest()


def _in_order(shares: SegmentShares) -> tuple[bytes, ...]:
    return (shares.mask_key, shares.self_mask, *shares.extra)
