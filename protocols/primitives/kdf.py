"""HKDF-SHA256 (RFC 5869) with labels: every derived key says what it is for and to which session it belongs."""

from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocols.primitives.secret import Secret

_PREFIX: Final = b"rbla-secure v1 "


def derive_key(secret: Secret, *, label: str, context: tuple[bytes, ...], size: int) -> Secret:
    """A key for one purpose.

    Args:
        secret: Input key material of full entropy.
        label: The purpose.
        context: What the key is bound to; each part is preceded by its length, so that no two tuples collide.
        size: Bytes wanted.
    """
    parts = (_PREFIX + label.encode(), *context)
    return hkdf(secret, info=b"".join(len(part).to_bytes(2, "big") + part for part in parts), size=size)


def hkdf(secret: Secret, *, info: bytes, size: int) -> Secret:
    """HKDF-SHA256 without salt, as RFC 5869 has it; protocols call :func:`derive_key`."""
    return Secret(HKDF(algorithm=SHA256(), length=size, salt=None, info=info).derive(secret))
