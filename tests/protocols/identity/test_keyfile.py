"""Keys and certificates go to PEM and back, and nothing else is taken for them."""

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from protocols.errors import CertificateError, KeyFileError
from protocols.identity.certificates import issue_authority
from protocols.identity.keyfile import (
    MAX_PASSPHRASE_SIZE,
    decode_certificate,
    decode_key,
    encode_certificate,
    encode_key,
    is_encrypted,
)
from protocols.primitives.secret import Secret
from protocols.primitives.signing import SigningKey

KEY = SigningKey(Secret(bytes(range(32))))
PASSPHRASE = Secret(b"correct horse battery staple")
AUTHORITY = issue_authority(KEY, name="authority", now=1_800_000_000, valid_for=1000).der


# Test ids show values: secrets have none to show.
@pytest.mark.parametrize(
    "passphrase", [None, PASSPHRASE, Secret(b"x"), Secret(b"x" * MAX_PASSPHRASE_SIZE)], ids=repr
)
def test_a_key_comes_back(passphrase: Secret | None) -> None:
    """A key written with or without a passphrase is read with the same."""
    pem = encode_key(KEY, passphrase)

    key = decode_key(pem, passphrase)

    assert key.secret == KEY.secret
    assert is_encrypted(pem) is (passphrase is not None)


def test_a_plain_key_is_pkcs8_of_rfc_8410() -> None:
    """The example of RFC 8410 section 10.3 is read, and its key is written as the same text."""
    pem = (
        b"-----BEGIN PRIVATE KEY-----\n"
        b"MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n"
        b"-----END PRIVATE KEY-----\n"
    )

    key = decode_key(pem)

    assert bytes(key.secret).hex() == "d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842"
    assert encode_key(key) == pem


def test_an_encrypted_key_hides_the_secret() -> None:
    """The bytes of the secret are not in an encrypted file, and two encryptions differ."""
    one, other = encode_key(KEY, PASSPHRASE), encode_key(KEY, PASSPHRASE)

    assert encode_key(KEY).splitlines()[1] not in one
    assert one != other


@pytest.mark.parametrize(
    ("written", "read", "reason"),
    [
        (PASSPHRASE, None, "a passphrase is needed"),
        (PASSPHRASE, Secret(b"wrong"), "the passphrase is wrong"),
        (None, PASSPHRASE, "is not encrypted"),
    ],
    ids=repr,
)
def test_another_passphrase_is_refused(written: Secret | None, read: Secret | None, reason: str) -> None:
    """A missing, wrong or superfluous passphrase raises KeyFileError, which says which and shows none."""
    pem = encode_key(KEY, written)

    with pytest.raises(KeyFileError, match=reason) as caught:
        decode_key(pem, read)

    assert "correct horse" not in str(caught.value)


@pytest.mark.parametrize("size", [0, MAX_PASSPHRASE_SIZE + 1])
def test_passphrases_that_openssl_would_not_take_are_refused(size: int) -> None:
    """An empty or overlong passphrase raises KeyFileError at the writer and at the reader."""
    passphrase = Secret(b"x" * size)

    with pytest.raises(KeyFileError):
        encode_key(KEY, passphrase)
    with pytest.raises(KeyFileError):
        decode_key(encode_key(KEY, PASSPHRASE), passphrase)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"no key",
        b"-----BEGIN PRIVATE KEY-----\n",
        encode_key(KEY)[:60],
        b"\n" + encode_key(KEY),
        encode_certificate(AUTHORITY),
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
        X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    ],
    ids=["empty", "text", "header", "cut", "shifted", "certificate", "openssh", "x25519"],
)
def test_other_files_are_no_keys(pem: bytes) -> None:
    """What is not one PKCS8 PEM of an Ed25519 key raises KeyFileError."""
    with pytest.raises(KeyFileError):
        decode_key(pem)


def test_a_certificate_comes_back() -> None:
    """PEM holds the very bytes of the certificate."""
    assert decode_certificate(encode_certificate(AUTHORITY)) == AUTHORITY


@pytest.mark.parametrize("pem", [b"", b"text", encode_certificate(AUTHORITY) * 2, encode_key(KEY)])
def test_other_files_are_no_certificates(pem: bytes) -> None:
    """No certificate, two of them, or something else raise CertificateError."""
    with pytest.raises(CertificateError):
        decode_certificate(pem)
