"""X.509 certificates (RFC 5280) with Ed25519 (RFC 8410), in one form; no other form is read.

Whatever is read is built again from its fields: unless the same bytes come out, it is refused. So the two builders
below are the whole definition of the form, and nothing hides in a field that nobody looks at.

A client's certificate carries its rank in a critical extension of our own, a DER INTEGER under RANK_OID: readers that
do not know it must refuse the certificate, and a client cannot claim another rank than the one it was enrolled with.

All times are arguments, in unix seconds, and both ends of a validity belong to it.
"""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Final, final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from protocols.errors import CertificateError, SignatureError
from protocols.identity.x509 import (
    ANY_KEY,
    PARSE_ERRORS,
    SERIAL_SIZE,
    authority_identifier,
    check_authority_name,
    check_form,
    check_serial,
    check_signature,
    check_span,
    check_time,
    date_of,
    key_identifier,
    name_of,
    private_key,
    read_date,
    read_name,
)
from protocols.primitives.secret import SYSTEM_RANDOM, RandomBytes
from protocols.primitives.signing import SigningKey, check_public_key

# Under the arc that RFC 5612 sets aside for documentation: 1.3.6.1.4.1.32473. 1 = rbla-secure, 1 = enrolled rank.
RANK_OID: Final = x509.ObjectIdentifier("1.3.6.1.4.1.32473.1.1")
MAX_RANK = 2**16 - 1
MAX_CERTIFICATE_SIZE = 4096  # bytes; ours have less than 500
# The rule of protocols.session, which stands above this file; a test keeps the two the same.
CLIENT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityCertificate:
    """The enrolment authority's certificate, signed by itself.

    Caveat: everybody can make one. Trust comes from comparing its fingerprint with one from a safe source.

    Args:
        name: 1..64 letters, digits, spaces, dots, underscores and hyphens.
        public_key: Ed25519, 32 bytes.
        serial: Random serial number.
        not_before: First second of its validity.
        not_after: Last second of its validity.
        der: The certificate itself.
    """

    name: str
    public_key: bytes
    serial: int
    not_before: int
    not_after: int
    der: bytes = field(repr=False)

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the DER bytes, for two people to compare over the telephone."""
        return hashlib.sha256(self.der).digest()

    def check_valid_at(self, now: int) -> None:
        """Refuse the certificate outside its validity. Raises CertificateError."""
        what = f"the certificate of authority {self.name!r}"
        check_time(what, first=self.not_before, now=now, last=self.not_after)

    def check_issue(self, key: SigningKey, *, first: int, last: int) -> None:
        """Refuse to issue with a key that is not the authority's, or anything that would outlive it.

        Raises:
            CertificateError: The key is not the authority's, or the validity is too long.
        """
        if key.public != self.public_key:
            raise CertificateError(f"the key is not that of authority {self.name!r}")
        self.check_valid_at(first)
        if last > self.not_after:
            raise CertificateError(
                f"a validity until {last} must not outlive authority {self.name!r}, which ends at {self.not_after}"
            )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The authority's certificate that a public key belongs to a client of this rank.

    Args:
        client: Client id.
        rank: The enrolled rank tier, in 1..65535; 0 for a service (a decryptor, a verifier), which holds no rows.
        public_key: Ed25519, 32 bytes.
        serial: Random serial number, by which the certificate is revoked.
        not_before: First second of its validity.
        not_after: Last second of its validity.
        der: The certificate itself.
    """

    client: str
    rank: int
    public_key: bytes
    serial: int
    not_before: int
    not_after: int
    der: bytes = field(repr=False)

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the DER bytes."""
        return hashlib.sha256(self.der).digest()

    def check_valid_at(self, now: int) -> None:
        """Refuse the certificate outside its validity. Raises CertificateError."""
        what = f"the certificate of {self.client!r}"
        check_time(what, first=self.not_before, now=now, last=self.not_after)


# --- issuing: run by the authority ---


def issue_authority(
    key: SigningKey, *, name: str, now: int, valid_for: int, random_bytes: RandomBytes = SYSTEM_RANDOM
) -> AuthorityCertificate:
    """Issue a certificate of the authority for itself.

    Args:
        key: The authority's key.
        name: Name of the authority; see :class:`AuthorityCertificate`.
        now: First second of its validity.
        valid_for: Seconds from then on.
        random_bytes: Source of the serial number; called once.

    Raises:
        CertificateError: The name or the times break the rules.
    """
    draft = AuthorityCertificate(
        name=name,
        public_key=key.public,
        serial=_fresh_serial(random_bytes),
        not_before=now,
        not_after=now + valid_for,
        der=b"",
    )
    return read_authority(_build_authority(draft, key))


def issue_certificate(
    authority_key: SigningKey,
    authority: AuthorityCertificate,
    *,
    client: str,
    rank: int,
    public_key: bytes,
    now: int,
    valid_for: int,
    random_bytes: RandomBytes = SYSTEM_RANDOM,
) -> Certificate:
    """Issue a certificate for a client.

    Pre-conditions: the authority knows the client, and that it holds the private key.

    Args:
        authority_key: Signing key of the authority.
        authority: The authority's certificate, which it must not outlive.
        client: Client id by the rule of sessions.
        rank: The enrolled rank tier, in 1..65535; 0 for a service.
        public_key: The client's Ed25519 key, 32 bytes.
        now: First second of its validity.
        valid_for: Seconds from then on.
        random_bytes: Source of the serial number; called once.

    Raises:
        CertificateError: An argument breaks these rules, or the key is not the authority's.
    """
    authority.check_issue(authority_key, first=now, last=now + valid_for)
    draft = Certificate(
        client=client,
        rank=rank,
        public_key=public_key,
        serial=_fresh_serial(random_bytes),
        not_before=now,
        not_after=now + valid_for,
        der=b"",
    )
    der = _build_certificate(draft, authority_key, issuer=authority.name, authority=authority.public_key)
    return read_certificate(der, authority.public_key)


def _fresh_serial(random_bytes: RandomBytes) -> int:
    return int.from_bytes(random_bytes(SERIAL_SIZE), "big") or 1


# --- reading: run by everybody ---


def read_authority(der: bytes) -> AuthorityCertificate:
    """Read an authority's certificate, in our form and signed by the key in it.

    Raises:
        CertificateError: It is not.
    """
    parsed = _parse(der)
    try:
        found = AuthorityCertificate(
            name=read_name(parsed.subject),
            public_key=_read_key(parsed),
            serial=parsed.serial_number,
            not_before=read_date(parsed.not_valid_before_utc),
            not_after=read_date(parsed.not_valid_after_utc),
            der=der,
        )
    except PARSE_ERRORS:
        raise CertificateError("an authority's certificate lacks a name or a key that can be read") from None
    check_signature(found.public_key, parsed.signature, parsed.tbs_certificate_bytes)
    check_form("an authority's certificate", der, _build_authority(found, ANY_KEY))
    return found


def read_certificate(der: bytes, authority: bytes) -> Certificate:
    """Read a client's certificate. Validity in time and revocation are checked afterwards.

    Args:
        der: The certificate, without a byte before or after it.
        authority: The authority's public key.

    Raises:
        CertificateError: Another key signed it, or its form is not exactly that of :func:`issue_certificate`: it is a
            CA, has another key usage, lacks an extension or has one too many, names its client or rank by another
            rule, or binds a key that is no sound Ed25519 key.
    """
    parsed = _parse(der)
    check_signature(authority, parsed.signature, parsed.tbs_certificate_bytes)
    try:
        issuer = read_name(parsed.issuer)
        found = Certificate(
            client=read_name(parsed.subject),
            rank=_read_rank(parsed.extensions),
            public_key=_read_key(parsed),
            serial=parsed.serial_number,
            not_before=read_date(parsed.not_valid_before_utc),
            not_after=read_date(parsed.not_valid_after_utc),
            der=der,
        )
    except PARSE_ERRORS:
        raise CertificateError("a certificate lacks a name, a rank or a key that can be read") from None
    again = _build_certificate(found, ANY_KEY, issuer=issuer, authority=authority)
    check_form(f"the certificate of {found.client!r}", der, again)
    return found


def check_client_id(client: str) -> None:
    """Refuse a client id that no session would accept.

    Raises:
        CertificateError: It breaks the rule.
    """
    if not CLIENT_ID.fullmatch(client):
        raise CertificateError(f"client id {client!r} must match {CLIENT_ID.pattern}")


def _parse(der: bytes) -> x509.Certificate:
    if len(der) > MAX_CERTIFICATE_SIZE:
        raise CertificateError(f"a certificate of {len(der)} bytes must have at most {MAX_CERTIFICATE_SIZE}")
    try:
        return x509.load_der_x509_certificate(der)
    except PARSE_ERRORS:
        raise CertificateError("a certificate is malformed") from None


def _read_key(parsed: x509.Certificate) -> bytes:
    key = parsed.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateError("a certificate must bind an Ed25519 key")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _read_rank(extensions: x509.Extensions) -> int:
    extension = extensions.get_extension_for_oid(RANK_OID).value
    if not isinstance(extension, x509.UnrecognizedExtension) or len(extension.value) > len(
        _der_integer(MAX_RANK)
    ):
        raise CertificateError(f"a certificate's rank must be a DER INTEGER in 0..{MAX_RANK}")
    # Tag and length are checked when the certificate is built again.
    return int.from_bytes(extension.value[2:], "big", signed=True)


# --- the form ---


def _build_authority(record: AuthorityCertificate, key: SigningKey) -> bytes:
    builder = _begin(record, issuer=record.name, subject=record.name)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(authority=True), critical=True)
    identifier = x509.SubjectKeyIdentifier(key_identifier(record.public_key))
    builder = builder.add_extension(identifier, critical=False)
    return builder.sign(private_key(key), None).public_bytes(Encoding.DER)


def _build_certificate(record: Certificate, key: SigningKey, *, issuer: str, authority: bytes) -> bytes:
    check_client_id(record.client)
    if not 0 <= record.rank <= MAX_RANK:
        raise CertificateError(f"client {record.client!r}: rank={record.rank} must lie in 0..{MAX_RANK}")
    rank = x509.UnrecognizedExtension(RANK_OID, _der_integer(record.rank))
    builder = _begin(record, issuer=issuer, subject=record.client)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(authority=False), critical=True)
    builder = builder.add_extension(authority_identifier(authority), critical=False)
    builder = builder.add_extension(rank, critical=True)
    return builder.sign(private_key(key), None).public_bytes(Encoding.DER)


def _begin(
    record: AuthorityCertificate | Certificate, *, issuer: str, subject: str
) -> x509.CertificateBuilder:
    check_authority_name(issuer)
    check_serial(record.serial)
    check_span(record.not_before, record.not_after)
    try:
        check_public_key(record.public_key)
    except SignatureError as error:
        raise CertificateError(f"the certificate of {subject!r}: {error}") from None
    public = Ed25519PublicKey.from_public_bytes(record.public_key)
    builder = x509.CertificateBuilder().issuer_name(name_of(issuer)).subject_name(name_of(subject))
    builder = builder.public_key(public).serial_number(record.serial)
    return builder.not_valid_before(date_of(record.not_before)).not_valid_after(date_of(record.not_after))


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    """Return the key usage: everybody signs messages; the authority also signs certificates and lists."""
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _der_integer(value: int) -> bytes:
    """Return a DER INTEGER of fewer than 128 bytes."""
    body = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes((2, len(body))) + body
