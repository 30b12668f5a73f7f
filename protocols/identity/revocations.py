"""X.509 revocation lists (RFC 5280, section 5) with Ed25519: one form, read as strictly as certificates."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from protocols.errors import CertificateError
from protocols.identity.certificates import AuthorityCertificate
from protocols.identity.x509 import (
    ANY_KEY,
    PARSE_ERRORS,
    authority_identifier,
    check_authority_name,
    check_form,
    check_serial,
    check_signature,
    check_span,
    check_time,
    date_of,
    name_of,
    private_key,
    read_date,
    read_name,
)
from protocols.primitives.signing import SigningKey

MAX_LIST_NUMBER = 2**63 - 1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """The list of certificates that the authority has revoked.

    Args:
        number: Number of the list, which grows with every list.
        serials: Serial numbers of the revoked certificates.
        issued_at: First second of its validity.
        next_update: Last second of its validity; a newer list is due by then.
        der: The list itself.
    """

    number: int
    serials: frozenset[int]
    issued_at: int
    next_update: int
    der: bytes = field(repr=False)

    def check_valid_at(self, now: int) -> None:
        """Refuse the list outside its validity. Raises CertificateError."""
        check_time(f"revocation list {self.number}", first=self.issued_at, now=now, last=self.next_update)


def issue_revocations(
    authority_key: SigningKey,
    authority: AuthorityCertificate,
    *,
    serials: Iterable[int],
    number: int,
    now: int,
    valid_for: int,
) -> RevocationList:
    """Issue a list of every certificate revoked so far; run by the authority. It states no date of revocation.

    Args:
        authority_key: Signing key of the authority.
        authority: The authority's certificate, which it must not outlive.
        serials: Serial numbers of the revoked certificates.
        number: Number of the list, larger than that of every list before it.
        now: First second of its validity.
        valid_for: Seconds from then on.

    Raises:
        CertificateError: An argument breaks these rules, or the key is not the authority's.
    """
    authority.check_issue(authority_key, first=now, last=now + valid_for)
    draft = RevocationList(
        number=number, serials=frozenset(serials), issued_at=now, next_update=now + valid_for, der=b""
    )
    der = _build_revocations(draft, authority_key, issuer=authority.name, authority=authority.public_key)
    return read_revocations(der, authority.public_key)


def read_revocations(der: bytes, authority: bytes) -> RevocationList:
    """Read a revocation list; run by everybody. Whether it is the newest is checked afterwards.

    Args:
        der: The list, without a byte before or after it.
        authority: The authority's public key.

    Raises:
        CertificateError: Another key signed it, or its form is not exactly that of :func:`issue_revocations`.
    """
    try:
        parsed = x509.load_der_x509_crl(der)
    except PARSE_ERRORS:
        raise CertificateError("a revocation list is malformed") from None
    check_signature(authority, parsed.signature, parsed.tbs_certlist_bytes)
    try:
        issuer = read_name(parsed.issuer)
        found = RevocationList(
            number=parsed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number,
            serials=frozenset(entry.serial_number for entry in parsed),
            issued_at=read_date(parsed.last_update_utc),
            next_update=read_date(parsed.next_update_utc),
            der=der,
        )
    except PARSE_ERRORS:
        raise CertificateError("a revocation list lacks a name, a number or a date") from None
    again = _build_revocations(found, ANY_KEY, issuer=issuer, authority=authority)
    check_form("a revocation list", der, again)
    return found


def _build_revocations(record: RevocationList, key: SigningKey, *, issuer: str, authority: bytes) -> bytes:
    """Build the list; this is the whole definition of its form. Every entry carries the date of the list."""
    check_authority_name(issuer)
    check_span(record.issued_at, record.next_update)
    if not 1 <= record.number <= MAX_LIST_NUMBER:
        raise CertificateError(f"revocation list number={record.number} must lie in 1..2**63-1")
    first, last = date_of(record.issued_at), date_of(record.next_update)
    builder = x509.CertificateRevocationListBuilder().issuer_name(name_of(issuer))
    builder = builder.last_update(first).next_update(last)
    builder = builder.add_extension(authority_identifier(authority), critical=False)
    builder = builder.add_extension(x509.CRLNumber(record.number), critical=False)
    for serial in sorted(record.serials):
        check_serial(serial)
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(first)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(private_key(key), None).public_bytes(Encoding.DER)
