"""Ed25519 signatures (RFC 8032, section 5.1: PureEdDSA)."""

from typing import Final, Self, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from protocols.errors import SignatureError
from protocols.primitives.secret import SYSTEM_RANDOM, RandomBytes, Secret

SECRET_SIZE = 32
PUBLIC_KEY_SIZE = 32
SIGNATURE_SIZE = 64

_FIELD: Final = 2**255 - 19
_ORDER_8_Y: Final = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
# The y-coordinates of the eight points of small order: their order is 4, 1, 2, 8 and 8.
_SMALL_ORDER_Y: Final = frozenset({0, 1, _FIELD - 1, _ORDER_8_Y, _FIELD - _ORDER_8_Y})


@final
class SigningKey:
    """A private key; its holder signs with it.

    Args:
        secret: The 32-byte seed of RFC 8032.

    Raises:
        SignatureError: The seed has another size.
    """

    __slots__ = ("_key", "public", "secret")

    def __init__(self, secret: Secret) -> None:
        if len(secret) != SECRET_SIZE:
            raise SignatureError(f"a signing key of {len(secret)} bytes must have {SECRET_SIZE}")
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.secret = secret
        self.public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def __repr__(self) -> str:
        return "<SigningKey>"

    @classmethod
    def generate(cls, random_bytes: RandomBytes = SYSTEM_RANDOM) -> Self:
        """A fresh key from 32 random bytes."""
        return cls(Secret.random(SECRET_SIZE, random_bytes))

    def sign(self, message: bytes) -> bytes:
        """Return the signature, 64 bytes; the same message always gives the same one."""
        return self._key.sign(message)


def verify(public: bytes, signature: bytes, message: bytes) -> None:
    """Refuse a signature that the holder of the private key did not make over this message.

    Raises:
        SignatureError: It does not verify, or the public key is one that :func:`check_public_key` refuses.
    """
    check_public_key(public)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise SignatureError("a signature does not verify") from None


def check_public_key(public: bytes) -> None:
    """Refuse a public key under which a signature would prove nothing.

    Under a key of small order anybody can write signatures, and one signature fits many messages; the library
    accepts such keys. A second encoding of the same point would give one key two names.

    Raises:
        SignatureError: It has the wrong size, is not in canonical form, or has small order.
    """
    if len(public) != PUBLIC_KEY_SIZE:
        raise SignatureError(f"a public key of {len(public)} bytes must have {PUBLIC_KEY_SIZE}")
    y = int.from_bytes(public, "little") % 2**255  # the top bit is the sign of x
    if y >= _FIELD or y in _SMALL_ORDER_Y:
        raise SignatureError("a public key is not canonical or has small order")
