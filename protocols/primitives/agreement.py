"""X25519 key agreement (RFC 7748), with one encoding for every public key.

RFC 7748, section 5, has receivers clear the top bit and reduce u modulo p, so that one u has several encodings. Here keys are
told apart by their bytes (a key is advertised once, by one client, for one purpose, and signatures and digests cover
bytes): any encoding but the canonical one, u < p = 2^255 - 19 with the top bit clear, would be one key under two names, and is
refused. No honest key is: the library writes canonical ones.

Different keys may still agree on one secret: those that differ by a point of small order (section 7). So no secret is used
as it comes: every key derived from one is bound to the positions of both parties, the segment and the session
(:mod:`protocols.masking.masks`, :mod:`protocols.masking.client`).
"""

from typing import Final, final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from protocols.errors import KeyAgreementError
from protocols.primitives.secret import Secret

PRIVATE_KEY_SIZE = 32
PUBLIC_KEY_SIZE = 32
_FIELD: Final = 2**255 - 19


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
        """Return the raw shared secret, 32 bytes; feed it to :func:`protocols.primitives.kdf.derive_key`.

        Raises:
            KeyAgreementError: The public key has the wrong size, is not canonical, or has small order (the shared secret
                would be zero).
        """
        check_encoding(public)
        try:
            return Secret(self._key.exchange(X25519PublicKey.from_public_bytes(public)))
        except ValueError:
            raise KeyAgreementError("a public key has small order") from None


def check_encoding(public: bytes) -> None:
    """Refuse a public key in any other than its one canonical form.

    Raises:
        KeyAgreementError: It has the wrong size, or is not below 2^255 - 19.
    """
    if len(public) != PUBLIC_KEY_SIZE:
        raise KeyAgreementError(f"a public key of {len(public)} bytes must have {PUBLIC_KEY_SIZE}")
    if int.from_bytes(public, "little") >= _FIELD:  # the top bit included: it must be clear
        raise KeyAgreementError(
            "a public key is not canonical: it must be below 2^255 - 19, its top bit clear"
        )


def check_public_key(public: bytes) -> None:
    """Refuse a public key with which nobody could agree, or that has a second name.

    Raises:
        KeyAgreementError: It has the wrong size, is not canonical, or has small order.
    """
    _PROBE.agree(public)


# No secret: it only tries whether a public key can be agreed with.
_PROBE = PrivateKey(Secret(bytes(PRIVATE_KEY_SIZE)))
