"""X25519 key agreement (RFC 7748)."""

from typing import final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from protocols.errors import KeyAgreementError
from protocols.primitives.secret import Secret

PRIVATE_KEY_SIZE = 32
PUBLIC_KEY_SIZE = 32


@final
class PrivateKey:
    """A private key, loaded once for many agreements.

    Args:
        secret: 32 bytes, any value.
    """

    __slots__ = ("_key", "public", "secret")

    def __init__(self, secret: Secret) -> None:
        self._key = X25519PrivateKey.from_private_bytes(secret)
        self.secret = secret
        self.public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def __repr__(self) -> str:
        return "<PrivateKey>"

    def agree(self, public: bytes) -> Secret:
        """The raw shared secret, 32 bytes; feed it to :func:`protocols.primitives.kdf.derive_key`.

        Raises:
            KeyAgreementError: The public key has the wrong size or small order (the shared secret would be zero).
        """
        try:
            return Secret(self._key.exchange(X25519PublicKey.from_public_bytes(public)))
        except ValueError:
            raise KeyAgreementError("a public key has the wrong size or small order") from None


def check_public_key(public: bytes) -> None:
    """Refuse a public key with which nobody could agree.

    Raises:
        KeyAgreementError: It has the wrong size or small order.
    """
    _PROBE.agree(public)


# No secret: it only tries whether a public key can be agreed with.
_PROBE = PrivateKey(Secret(bytes(PRIVATE_KEY_SIZE)))
