"""HKDF-SHA256 (RFC 5869) with labels: every derived key is bound to a purpose and to a session."""

from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from protocols.primitives.secret import Secret

_PREFIX: Final = b"rbla-secure v1 "
_SHA256: Final = SHA256()
_HASH_SIZE: Final = 32


def derive_key(secret: Secret, *, label: str, context: tuple[bytes, ...], size: int) -> Secret:
    """Derive a key for one purpose.

    Args:
        secret: Input key material of full entropy.
        label: The purpose.
        context: What the key is bound to; each part is preceded by its length, so that no two tuples collide.
        size: Size of the key in bytes.
    """
    return hkdf(secret, info=purpose(label, *context), size=size)


def purpose(label: str, *context: bytes) -> bytes:
    """Return the unambiguous bytes of a label and the parts of a context.

    They can be made once for many keys whose last parts alone differ: ``purpose(a, b, c) == purpose(a, b) + part(c)``.
    """
    return part(_PREFIX + label.encode()) + b"".join(map(part, context))


def part(value: bytes) -> bytes:
    """Return one part of a context, preceded by its length."""
    return len(value).to_bytes(2, "big") + value


def hkdf(secret: Secret, *, info: bytes, size: int) -> Secret:
    """Return HKDF-SHA256 without salt, as in RFC 5869; `info` comes from :func:`purpose`."""
    return Secret(HKDF(algorithm=_SHA256, length=size, salt=None, info=info).derive(secret))


def hkdf_expand(key: Secret, *, info: bytes, size: int) -> Secret:
    """Return HKDF-Expand alone, in half the time, for a key that is already uniform; `info` from :func:`purpose`.

    RFC 5869, section 3.3, lets extraction be left out where the input is a pseudo-random key already, such as bytes of
    the system's generator. A Diffie-Hellman secret is none: it goes through :func:`hkdf`.

    Args:
        key: At least as many uniform bytes as SHA-256 gives.
        info: Purpose and context of the derived key.
        size: Size of the key in bytes.
    """
    if len(key) < _HASH_SIZE:
        raise ValueError(f"a key of {len(key)} bytes must have {_HASH_SIZE} or more to be expanded alone")
    return Secret(HKDFExpand(algorithm=_SHA256, length=size, info=info).derive(key))
