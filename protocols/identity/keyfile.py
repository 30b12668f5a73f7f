"""Keys and certificates as text files: PEM (RFC 7468) around PKCS8 (RFC 5958) and X.509.

Bytes in, bytes out: modes and places of files are the business of whoever writes them.
"""

from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from protocols.errors import CertificateError, KeyFileError
from protocols.primitives.secret import Secret
from protocols.primitives.signing import SigningKey

MAX_PASSPHRASE_SIZE = 1023  # OpenSSL reads no more
_PLAIN: Final = b"-----BEGIN PRIVATE KEY-----"
_ENCRYPTED: Final = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"


def encode_key(key: SigningKey, passphrase: Secret | None = None) -> bytes:
    """Return a private key as PEM, encrypted if there is a passphrase.

    Caveat: the library's encryption (AES-256-CBC, PBKDF2 with 2,048 steps of HMAC-SHA256 in OpenSSL 3) slows down
    guessing only a little: a passphrase protects a stolen file as far as it is long and random.

    Raises:
        KeyFileError: The passphrase is empty or longer than 1,023 bytes.
    """
    encryption = (
        NoEncryption() if passphrase is None else BestAvailableEncryption(_checked_passphrase(passphrase))
    )
    private = Ed25519PrivateKey.from_private_bytes(key.secret)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def decode_key(pem: bytes, passphrase: Secret | None = None) -> SigningKey:
    """Inverse of :func:`encode_key`.

    Raises:
        KeyFileError: The bytes are no PKCS8 PEM of an Ed25519 key; it is encrypted and the passphrase is missing or
            wrong; or it is not encrypted although a passphrase was given.
    """
    _check_protection(pem, passphrase)
    try:
        private = load_pem_private_key(pem, passphrase and _checked_passphrase(passphrase))
    except (ValueError, TypeError):
        reason = "malformed" if passphrase is None else "damaged, or the passphrase is wrong"
        raise KeyFileError(f"the private key is {reason}") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyFileError("the private key must be an Ed25519 key")
    return SigningKey(Secret(private.private_bytes_raw()))


def is_encrypted(pem: bytes) -> bool:
    """Return whether a private key file needs a passphrase."""
    return pem.startswith(_ENCRYPTED)


def _check_protection(pem: bytes, passphrase: Secret | None) -> None:
    if not pem.startswith((_PLAIN, _ENCRYPTED)):
        raise KeyFileError("the file must begin with a PKCS8 private key in PEM")
    if is_encrypted(pem) and passphrase is None:
        raise KeyFileError("the private key is encrypted: a passphrase is needed")
    if not is_encrypted(pem) and passphrase is not None:
        # Its owner believes that it is protected.
        raise KeyFileError("a passphrase was given, but the private key is not encrypted")


def _checked_passphrase(passphrase: Secret) -> bytes:
    if not 1 <= len(passphrase) <= MAX_PASSPHRASE_SIZE:
        raise KeyFileError(f"a passphrase of {len(passphrase)} bytes must have 1..{MAX_PASSPHRASE_SIZE}")
    return passphrase


def encode_certificate(der: bytes) -> bytes:
    """Return a certificate as PEM."""
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def decode_certificate(pem: bytes) -> bytes:
    """Inverse of :func:`encode_certificate`: DER, not yet verified.

    Raises:
        CertificateError: The bytes are not one certificate in PEM.
    """
    try:
        (certificate,) = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise CertificateError("the file must hold one certificate in PEM") from None
    return certificate.public_bytes(Encoding.DER)
