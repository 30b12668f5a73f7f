"""Authenticated encryption of short secrets between two parties: AES-128-GCM (NIST SP 800-38D)."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocols.errors import SealError
from protocols.primitives.secret import SYSTEM_RANDOM, RandomBytes, Secret

KEY_SIZE = 16
NONCE_SIZE = 12
TAG_SIZE = 16


def seal(
    key: Secret, plaintext: Secret, *, context: bytes, random_bytes: RandomBytes = SYSTEM_RANDOM
) -> bytes:
    """Return nonce, ciphertext and tag. A key seals one message in one direction; the nonce is still random."""
    nonce = random_bytes(NONCE_SIZE)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, context)


def open_sealed(key: Secret, sealed: bytes, *, context: bytes) -> Secret:
    """Return the plaintext.

    Raises:
        SealError: The bytes, the key or the context are not those of the sealing.
    """
    if len(sealed) < NONCE_SIZE + TAG_SIZE:
        raise SealError(f"{len(sealed)} sealed bytes must be at least {NONCE_SIZE + TAG_SIZE}")
    try:
        return Secret(AESGCM(key).decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], context))
    except InvalidTag:
        raise SealError("a sealed share does not authenticate") from None
