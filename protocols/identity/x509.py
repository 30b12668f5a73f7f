"""Names, dates, serial numbers and the check of form, shared by certificates and revocation lists."""

import hashlib
import re
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from protocols.errors import CertificateError, SignatureError
from protocols.primitives.signing import SIGNATURE_SIZE, SigningKey, verify

MAX_TIME = 253_402_300_799  # the last second of the year 9999, beyond which X.509 has no dates
SERIAL_SIZE = 15  # bytes; RFC 5280 allows 20
AUTHORITY_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")

# To build again what was read, only the form is needed: the signature of this key is cut off.
ANY_KEY: Final = SigningKey.generate(bytes)
# What the library raises over bytes and fields that are not what they should be.
PARSE_ERRORS: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
)


def private_key(key: SigningKey) -> Ed25519PrivateKey:
    """Return the key in the form that the library's builders take."""
    return Ed25519PrivateKey.from_private_bytes(key.secret)


def name_of(text: str) -> x509.Name:
    """Return a distinguished name that is one common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def read_name(name: x509.Name) -> str:
    """Inverse of :func:`name_of`; raises ValueError or TypeError."""
    (attribute,) = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not isinstance(attribute.value, str):
        raise TypeError("a common name must be text")
    return attribute.value


def date_of(seconds: int) -> datetime:
    """Return a date of X.509, to the second."""
    return datetime.fromtimestamp(seconds, UTC)


def read_date(date: datetime | None) -> int:
    """Inverse of :func:`date_of`; raises TypeError if there is none."""
    if date is None:
        raise TypeError("a date is missing")
    return int(date.timestamp())


def key_identifier(public: bytes) -> bytes:
    """Return the leftmost 160 bits of SHA-256 of the key (RFC 7093, method 1)."""
    return hashlib.sha256(public).digest()[:20]


def authority_identifier(authority: bytes) -> x509.AuthorityKeyIdentifier:
    """Return the extension that names the key of the issuer."""
    return x509.AuthorityKeyIdentifier(key_identifier(authority), None, None)


def check_signature(public: bytes, signature: bytes, message: bytes) -> None:
    """Refuse a signature by another key. Raises CertificateError."""
    try:
        verify(public, signature, message)
    except SignatureError:
        raise CertificateError("a certificate or revocation list was not signed by this authority") from None


def check_form(what: str, found: bytes, again: bytes) -> None:
    """Refuse bytes that differ from what their own fields build. Raises CertificateError.

    The signature stands last, and is the one part that another key makes otherwise.
    """
    if found[:-SIGNATURE_SIZE] != again[:-SIGNATURE_SIZE]:
        raise CertificateError(f"{what} does not have exactly the fields and extensions of its form")


def check_authority_name(name: str) -> None:
    """Refuse a name that is not plain text of 1..64 characters. Raises CertificateError."""
    if not AUTHORITY_NAME.fullmatch(name):
        raise CertificateError(f"authority name {name!r} must match {AUTHORITY_NAME.pattern}")


def check_serial(serial: int) -> None:
    """Refuse a serial number that we would not give. Raises CertificateError."""
    if not 1 <= serial < 1 << (8 * SERIAL_SIZE):
        raise CertificateError(f"serial={serial} must lie in 1..2**{8 * SERIAL_SIZE}-1")


def check_span(first: int, last: int) -> None:
    """Refuse a validity that is no span of time. Raises CertificateError."""
    if not 0 <= first < last <= MAX_TIME:
        raise CertificateError(f"validity {first}..{last} must be a span of seconds in 0..{MAX_TIME}")


def check_time(what: str, *, first: int, now: int, last: int) -> None:
    """Refuse a moment outside a validity; both ends belong to it. Raises CertificateError."""
    if now < first:
        raise CertificateError(f"{what} is not yet valid: {first - now} seconds remain")
    if now > last:
        raise CertificateError(f"{what} expired {now - last} seconds ago")
