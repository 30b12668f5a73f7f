"""One seed for everything that may be reproduced: data splits, initial weights, cohorts, batches, rounding.

Keys, masks and shares never come from here: they are the operating system's randomness (`protocols`).
"""

import hashlib


def derive_seed(seed: int, *labels: str | int) -> int:
    """Return a 63-bit seed for one purpose, independent of every other purpose's.

    Args:
        seed: The seed of the run.
        labels: What the randomness is for, e.g. ``"batches", round, client``. Their types and order matter.

    Returns:
        An integer in [0, 2**63): it fits numpy's and torch's generators alike.
    """
    return int.from_bytes(_digest(seed, *labels)[:8], "big") >> 1


def derive_key(seed: int, *labels: str | int) -> bytes:
    """Return 16 bytes for one purpose, for generators that take a key. Not secret: the seed is public."""
    return _digest(seed, *labels)[:16]


def _digest(seed: int, *labels: str | int) -> bytes:
    text = "\x1f".join(f"{type(label).__name__}:{label}" for label in (seed, *labels))
    return hashlib.sha256(b"rbla-secure seed\x00" + text.encode()).digest()
