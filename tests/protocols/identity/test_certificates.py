"""Certificates and revocation lists say what was issued, and exactly one form of them is read."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from protocols import session
from protocols.errors import CertificateError
from protocols.identity import certificates
from protocols.identity.certificates import (
    MAX_CERTIFICATE_SIZE,
    MAX_RANK,
    RANK_OID,
    Certificate,
    issue_authority,
    issue_certificate,
    read_authority,
    read_certificate,
)
from protocols.identity.revocations import (
    MAX_LIST_NUMBER,
    RevocationList,
    issue_revocations,
    read_revocations,
)
from protocols.identity.x509 import MAX_TIME, PARSE_ERRORS, read_date, read_name
from protocols.primitives.secret import Secret
from protocols.primitives.signing import SigningKey
from tests.contracts.sessions import PROPERTY

NOW = 1_800_000_000
BEGIN = datetime.fromtimestamp(NOW, UTC)
YEAR = 365 * 86_400
KEY = SigningKey(Secret(bytes([1]) * 32))
CLIENT_KEY = SigningKey(Secret(bytes([2]) * 32))
STRANGER = SigningKey(Secret(bytes([3]) * 32))
AUTHORITY = issue_authority(KEY, name="authority", now=NOW, valid_for=10 * YEAR)
NEUTRAL_POINT = bytes([1]) + bytes(31)


def issue(**changes: Any) -> Certificate:
    """A client's certificate with some terms changed."""
    terms: dict[str, Any] = {
        "client": "client-01",
        "rank": 8,
        "public_key": CLIENT_KEY.public,
        "now": NOW,
        "valid_for": YEAR,
    }
    return issue_certificate(KEY, AUTHORITY, **{**terms, **changes})


def revocations(*serials: int, **changes: Any) -> RevocationList:
    """A revocation list with some terms changed."""
    terms: dict[str, Any] = {"number": 1, "now": NOW, "valid_for": YEAR}
    return issue_revocations(KEY, AUTHORITY, serials=serials, **{**terms, **changes})


# --- certificates that the authority's key signs, but that are not of the form; built without our code ---

Builder = x509.CertificateBuilder
Step = Callable[[Builder], Builder]


def name(*texts: str) -> x509.Name:
    """A distinguished name of common names."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text) for text in texts])


def usage(**flags: bool) -> x509.KeyUsage:
    """A key usage with these flags only."""
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{**dict.fromkeys(every.split(), False), **flags})


def identifier(key: SigningKey) -> x509.AuthorityKeyIdentifier:
    """The identifier of an issuer's key."""
    return x509.AuthorityKeyIdentifier(certificates.key_identifier(key.public), None, None)


EXTENSIONS: list[tuple[x509.ExtensionType, bool]] = [
    (x509.BasicConstraints(ca=False, path_length=None), True),
    (usage(digital_signature=True), True),
    (identifier(KEY), False),
    (x509.UnrecognizedExtension(RANK_OID, b"\x02\x01\x08"), True),
]


def handmade(
    extensions: list[tuple[x509.ExtensionType, bool]] | None = None,
    *,
    signer: Any = None,
    algorithm: Any = None,
    subject: x509.Name | None = None,
    issuer: x509.Name | None = None,
    public_key: Any = None,
    serial: int = 77,
    begin: datetime = BEGIN,
) -> bytes:
    """A certificate by the library's own builder."""
    builder = x509.CertificateBuilder().serial_number(serial)
    builder = builder.subject_name(name("client-01") if subject is None else subject).issuer_name(
        issuer or name("authority")
    )
    own = ed25519.Ed25519PublicKey.from_public_bytes(CLIENT_KEY.public)
    builder = builder.public_key(public_key or own)
    builder = builder.not_valid_before(begin).not_valid_after(begin + timedelta(days=9))
    for extension, critical in EXTENSIONS if extensions is None else extensions:
        builder = builder.add_extension(extension, critical=critical)
    signer = signer or ed25519.Ed25519PrivateKey.from_private_bytes(KEY.secret)
    return builder.sign(signer, algorithm).public_bytes(Encoding.DER)


def replaced(place: int, extension: x509.ExtensionType, *, critical: bool = True) -> bytes:
    """A certificate with one extension replaced."""
    extensions = list(EXTENSIONS)
    extensions[place] = (extension, critical)
    return handmade(extensions)


def rank_bytes(value: bytes) -> bytes:
    """A certificate whose rank has these bytes."""
    return replaced(3, x509.UnrecognizedExtension(RANK_OID, value))


EXTRA = (x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]), False)
ODD_CERTIFICATES = {
    "a CA": replaced(0, x509.BasicConstraints(ca=True, path_length=0)),
    "constraints not critical": replaced(0, EXTENSIONS[0][0], critical=False),
    "usage to sign certificates": replaced(1, usage(digital_signature=True, key_cert_sign=True)),
    "usage to agree on keys": replaced(1, usage(key_agreement=True)),
    "usage not critical": replaced(1, EXTENSIONS[1][0], critical=False),
    "another issuer's key": replaced(2, identifier(STRANGER), critical=False),
    "identifier critical": replaced(2, EXTENSIONS[2][0]),
    "rank not critical": replaced(3, EXTENSIONS[3][0], critical=False),
    "rank negative": rank_bytes(b"\x02\x01\xf8"),
    "rank too large": rank_bytes(b"\x02\x03\x01\x00\x00"),
    "rank huge": rank_bytes(b"\x02\x7f" + b"\x01" * 127),
    "rank padded": rank_bytes(b"\x02\x02\x00\x08"),
    "rank of another type": rank_bytes(b"\x04\x01\x08"),
    "rank of a wrong length": rank_bytes(b"\x02\x02\x08"),
    "rank with trailing bytes": rank_bytes(b"\x02\x01\x08\x00"),
    "rank empty": rank_bytes(b""),
    "no extension": handmade([]),
    "no constraints": handmade(EXTENSIONS[1:]),
    "no rank": handmade(EXTENSIONS[:3]),
    "one extension too many": handmade([*EXTENSIONS, EXTRA]),
    "another order": handmade(EXTENSIONS[::-1]),
    "two subjects": handmade(subject=name("client-01", "client-02")),
    "no subject": handmade(subject=x509.Name([])),
    "a subject that is no client id": handmade(subject=name("../client")),
    "another subject attribute": handmade(
        subject=x509.Name([*name("client-01"), x509.NameAttribute(NameOID.COUNTRY_NAME, "CH")])
    ),
    "an issuer with line breaks": handmade(issuer=name("a\nb")),
    "an elliptic curve key": handmade(public_key=ec.generate_private_key(ec.SECP256R1()).public_key()),
    "a key that cannot sign": handmade(public_key=x25519.X25519PrivateKey.generate().public_key()),
    "a key of small order": handmade(public_key=ed25519.Ed25519PublicKey.from_public_bytes(NEUTRAL_POINT)),
    "a serial beyond 15 bytes": handmade(serial=1 << 120),
    "a date before 1970": handmade(begin=datetime(1960, 1, 1, tzinfo=UTC)),
}


# --- what is issued is read ---


@PROPERTY
@given(
    client=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    rank=st.integers(0, MAX_RANK),
    begin=st.integers(NOW, NOW + YEAR),
    valid_for=st.integers(1, 9 * YEAR),
)
def test_a_certificate_says_what_was_issued(client: str, rank: int, begin: int, valid_for: int) -> None:
    """Every field comes back from the bytes, whatever it holds."""
    issued = issue(client=client, rank=rank, now=begin, valid_for=valid_for)

    found = read_certificate(issued.der, KEY.public)

    assert found == issued
    assert (found.client, found.rank, found.public_key) == (client, rank, CLIENT_KEY.public)
    assert (found.not_before, found.not_after) == (begin, begin + valid_for)


def test_the_form_is_the_documented_one() -> None:
    """The library's builder, given the documented extensions, makes the bytes that ours makes."""
    expected = handmade()

    issued = issue(valid_for=9 * 86_400, random_bytes=lambda size: (77).to_bytes(size, "big"))

    assert issued.der == expected
    assert read_certificate(expected, KEY.public).rank == 8


def test_an_authority_says_what_was_issued() -> None:
    """The authority's own certificate comes back from its bytes."""
    found = read_authority(AUTHORITY.der)

    assert found == AUTHORITY
    assert (found.name, found.public_key) == ("authority", KEY.public)
    assert (found.not_before, found.not_after) == (NOW, NOW + 10 * YEAR)


@PROPERTY
@given(serials=st.sets(st.integers(1, 2**120 - 1), max_size=20), number=st.integers(1, MAX_LIST_NUMBER))
def test_a_revocation_list_says_what_was_issued(serials: set[int], number: int) -> None:
    """Serial numbers, number and dates come back from the bytes."""
    issued = revocations(*serials, number=number)

    found = read_revocations(issued.der, KEY.public)

    assert found == issued
    assert (found.serials, found.number) == (serials, number)
    assert (found.issued_at, found.next_update) == (NOW, NOW + YEAR)


def test_serial_numbers_are_fresh_and_never_zero() -> None:
    """Two certificates have two serial numbers; even zeros from the source make a valid one."""
    assert issue().serial != issue().serial
    assert issue(random_bytes=bytes).serial == 1


def test_the_client_id_rule_is_that_of_sessions() -> None:
    """The rule that stands here and the one of protocols.session are one."""
    assert certificates.CLIENT_ID.pattern == session._CLIENT_ID.pattern


# --- validity ---


@pytest.mark.parametrize("record", [AUTHORITY, issue(valid_for=10 * YEAR), revocations(valid_for=10 * YEAR)])
def test_validity_includes_both_ends(record: Any) -> None:
    """From the first to the last second it is valid; a second earlier or later CertificateError says which."""
    record.check_valid_at(NOW)
    record.check_valid_at(NOW + 10 * YEAR)

    with pytest.raises(CertificateError, match="not yet valid"):
        record.check_valid_at(NOW - 1)
    with pytest.raises(CertificateError, match="expired 1 seconds ago"):
        record.check_valid_at(NOW + 10 * YEAR + 1)


# --- what is not issued ---


@pytest.mark.parametrize(
    "changes",
    [
        {"client": ""},
        {"client": "a/b"},
        {"client": "-a"},
        {"client": "a" * 65},
        {"client": "ä"},
        {"client": "a\n"},
        {"rank": -1},
        {"rank": MAX_RANK + 1},
        {"public_key": bytes(31)},
        {"public_key": NEUTRAL_POINT},
        {"valid_for": 0},
        {"valid_for": -1},
        {"valid_for": 10 * YEAR + 1},
        {"now": NOW - 1},
        {"now": NOW + 10 * YEAR + 1},
    ],
)
def test_certificates_that_break_a_rule_are_not_issued(changes: dict[str, Any]) -> None:
    """A malformed client, rank, key or validity, or one beyond the authority's, raises CertificateError."""
    with pytest.raises(CertificateError):
        issue(**changes)


@pytest.mark.parametrize(
    "changes",
    [{"name": ""}, {"name": "a\nb"}, {"name": "a" * 65}, {"valid_for": 0}, {"now": -1}, {"now": MAX_TIME}],
)
def test_authorities_that_break_a_rule_are_not_issued(changes: dict[str, Any]) -> None:
    """A malformed name or validity raises CertificateError."""
    with pytest.raises(CertificateError):
        issue_authority(KEY, **{"name": "authority", "now": NOW, "valid_for": YEAR, **changes})


@pytest.mark.parametrize(
    ("serials", "changes"),
    [
        ([0], {}),
        ([-1], {}),
        ([1 << 120], {}),
        ([], {"number": 0}),
        ([], {"number": 2**63}),
        ([], {"valid_for": 0}),
    ],
)
def test_revocation_lists_that_break_a_rule_are_not_issued(
    serials: list[int], changes: dict[str, Any]
) -> None:
    """A malformed serial, number or validity raises CertificateError."""
    with pytest.raises(CertificateError):
        revocations(*serials, **changes)


def test_another_key_cannot_issue() -> None:
    """Issuing with a key that is not the authority's raises CertificateError."""
    with pytest.raises(CertificateError, match="not that of authority"):
        issue_certificate(
            STRANGER, AUTHORITY, client="a", rank=1, public_key=CLIENT_KEY.public, now=NOW, valid_for=1
        )
    with pytest.raises(CertificateError, match="not that of authority"):
        issue_revocations(STRANGER, AUTHORITY, serials=(), number=1, now=NOW, valid_for=1)


# --- what is not read ---


@pytest.mark.parametrize("der", ODD_CERTIFICATES.values(), ids=ODD_CERTIFICATES.keys())
def test_only_one_form_is_read(der: bytes) -> None:
    """The authority's signature does not help a certificate of another form: CertificateError."""
    with pytest.raises(CertificateError):
        read_certificate(der, KEY.public)


def test_certificates_of_a_stranger_are_refused() -> None:
    """A certificate, list or self-signed authority under another key raises CertificateError."""
    by_hand = handmade(signer=ed25519.Ed25519PrivateKey.from_private_bytes(STRANGER.secret))
    elliptic = handmade(signer=ec.generate_private_key(ec.SECP256R1()), algorithm=SHA256())

    for der in (by_hand, elliptic):
        with pytest.raises(CertificateError, match="not signed by this authority"):
            read_certificate(der, KEY.public)
    with pytest.raises(CertificateError, match="not signed by this authority"):
        read_certificate(issue().der, STRANGER.public)
    with pytest.raises(CertificateError, match="not signed by this authority"):
        read_revocations(revocations().der, STRANGER.public)


@pytest.mark.parametrize("kind", ["certificate", "authority", "revocations"])
def test_a_change_of_any_byte_is_refused(kind: str) -> None:
    """Flipping a bit of any byte, cutting the end, or adding to it raises CertificateError."""
    read, der = {
        "certificate": (lambda data: read_certificate(data, KEY.public), issue().der),
        "authority": (read_authority, AUTHORITY.der),
        "revocations": (lambda data: read_revocations(data, KEY.public), revocations(5, 6).der),
    }[kind]
    changed = [der[:place] + bytes([der[place] ^ 1]) + der[place + 1 :] for place in range(len(der))]

    for data in [*changed, der[:-1], der + b"\x00", b"", der * 2]:
        with pytest.raises(CertificateError):
            read(data)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@PROPERTY
@given(data=st.binary(max_size=80))
def test_random_bytes_are_refused(data: bytes) -> None:
    """Whatever is no certificate or list raises CertificateError and nothing else."""
    for read in (
        lambda der: read_certificate(der, KEY.public),
        lambda der: read_revocations(der, KEY.public),
    ):
        with pytest.raises(CertificateError):
            read(b"\x30" + bytes([len(data)]) + data)


def test_overlong_certificates_are_refused_unread() -> None:
    """A certificate beyond the size limit raises CertificateError before it is parsed."""
    with pytest.raises(CertificateError, match="at most"):
        read_certificate(bytes(MAX_CERTIFICATE_SIZE + 1), KEY.public)


def test_kinds_are_not_mistaken_for_each_other() -> None:
    """An authority is no client, a client no authority, and neither is a revocation list: CertificateError."""
    with pytest.raises(CertificateError):
        read_certificate(AUTHORITY.der, KEY.public)
    with pytest.raises(CertificateError):
        read_authority(issue().der)
    with pytest.raises(CertificateError):
        read_revocations(issue().der, KEY.public)
    with pytest.raises(CertificateError):
        read_certificate(revocations().der, KEY.public)


def handmade_list(*entries: tuple[int, datetime], number: bool = True, extra: bool = False) -> bytes:
    """A revocation list by the library's own builder."""
    begin = datetime.fromtimestamp(NOW, UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(name("authority"))
    builder = builder.last_update(begin).next_update(begin + timedelta(days=365))
    builder = builder.add_extension(identifier(KEY), critical=False)
    if number:
        builder = builder.add_extension(x509.CRLNumber(1), critical=False)
    if extra:
        builder = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)
    for serial, date in entries:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(date)
        builder = builder.add_revoked_certificate(entry.build())
    signer = ed25519.Ed25519PrivateKey.from_private_bytes(KEY.secret)
    return builder.sign(signer, None).public_bytes(Encoding.DER)


def test_the_form_of_a_list_is_the_documented_one() -> None:
    """The library's builder, given the documented fields, makes the bytes that ours makes."""
    date = datetime.fromtimestamp(NOW, UTC)

    assert revocations(6, 5).der == handmade_list((5, date), (6, date))


@pytest.mark.parametrize(
    "der",
    [
        handmade_list(number=False),
        handmade_list(extra=True),
        handmade_list((6, datetime.fromtimestamp(NOW, UTC)), (5, datetime.fromtimestamp(NOW, UTC))),
        handmade_list((5, datetime.fromtimestamp(NOW, UTC)), (5, datetime.fromtimestamp(NOW, UTC))),
        handmade_list((5, datetime.fromtimestamp(NOW - 1, UTC))),
        handmade_list((1 << 120, datetime.fromtimestamp(NOW, UTC))),
    ],
    ids=["no number", "a delta list", "unsorted", "repeated", "another date", "a large serial"],
)
def test_only_one_form_of_a_list_is_read(der: bytes) -> None:
    """The authority's signature does not help a list of another form: CertificateError."""
    with pytest.raises(CertificateError):
        read_revocations(der, KEY.public)


def test_a_list_without_a_next_one_and_a_name_without_text_are_refused() -> None:
    """Both are legal X.509 that no builder makes; what reads them raises TypeError, which becomes CertificateError."""
    bits = x509.NameAttribute(NameOID.X500_UNIQUE_IDENTIFIER, b"bits", _ASN1Type.BitString)
    bits._oid = NameOID.COMMON_NAME

    with pytest.raises(TypeError, match="date is missing"):
        read_date(None)
    with pytest.raises(TypeError, match="must be text"):
        read_name(x509.Name([bits]))
    assert TypeError in PARSE_ERRORS


def test_records_print_no_bytes_of_certificates() -> None:
    """The text form of a record leaves out the DER, and a fingerprint is SHA-256 of it."""
    certificate = issue()

    assert "der=" not in repr(certificate)
    assert re.fullmatch(r"[0-9a-f]{64}", certificate.fingerprint.hex())
    assert certificate.fingerprint == x509.load_der_x509_certificate(certificate.der).fingerprint(SHA256())
