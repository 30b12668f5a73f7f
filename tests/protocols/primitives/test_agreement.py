"""X25519 through our wrapper gives the values of RFC 7748, and refuses keys of small order and second encodings."""

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import KeyAgreementError
from protocols.primitives.agreement import PRIVATE_KEY_SIZE, PUBLIC_KEY_SIZE, PrivateKey, check_public_key
from protocols.primitives.secret import Secret
from tests.contracts.sessions import PROPERTY

FIELD = 2**255 - 19
BASE_POINT = bytes([9]) + bytes(31)

# RFC 7748, section 5.2: scalar, u-coordinate, product.
SCALAR_PRODUCTS = [
    (
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ),
    (
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    ),
]

# RFC 7748, section 6.1.
ALICE = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
ALICE_PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
BOB = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
BOB_PUBLIC = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
SHARED = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"

# Every u-coordinate of small order, non-canonical encodings included: 0, 1, two of order 8, p - 1, p, p + 1.
SMALL_ORDER = [
    "00" * 32,
    "01" + "00" * 31,
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ec" + "ff" * 30 + "7f",
    "ed" + "ff" * 30 + "7f",
    "ee" + "ff" * 30 + "7f",
]


def private_key(text: str) -> PrivateKey:
    """A private key from its hex form."""
    return PrivateKey(Secret(bytes.fromhex(text)))


@pytest.mark.parametrize(("scalar", "point", "product"), SCALAR_PRODUCTS)
def test_agreement_is_the_product_of_rfc_7748(scalar: str, point: str, product: str) -> None:
    """The two known products of RFC 7748 section 5.2 come out, for the canonical form of the second's u-coordinate."""
    u = (int.from_bytes(bytes.fromhex(point), "little") % 2**255 % FIELD).to_bytes(32, "little")

    secret = private_key(scalar).agree(u)

    assert bytes(secret).hex() == product


def test_a_thousand_iterations_give_the_value_of_rfc_7748() -> None:
    """The iterated products of RFC 7748 section 5.2 come out after one and after a thousand steps."""
    scalar = point = BASE_POINT
    seen = []

    for _ in range(1000):
        scalar, point = bytes(PrivateKey(Secret(scalar)).agree(point)), scalar
        seen.append(scalar.hex())

    assert seen[0] == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert seen[-1] == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


@pytest.mark.parametrize(("private", "public"), [(ALICE, ALICE_PUBLIC), (BOB, BOB_PUBLIC)])
def test_public_keys_are_those_of_rfc_7748(private: str, public: str) -> None:
    """The public keys of RFC 7748 section 6.1 come out."""
    key = private_key(private)

    assert key.public.hex() == public
    assert len(key.public) == PUBLIC_KEY_SIZE
    assert len(key.secret) == PRIVATE_KEY_SIZE


def test_both_sides_agree_on_the_secret_of_rfc_7748() -> None:
    """Alice and Bob of RFC 7748 section 6.1 arrive at the same known secret."""
    alice, bob = private_key(ALICE), private_key(BOB)

    secrets = {alice.agree(bytes.fromhex(BOB_PUBLIC)), bob.agree(bytes.fromhex(ALICE_PUBLIC))}

    assert {bytes(secret).hex() for secret in secrets} == {SHARED}
    assert all(isinstance(secret, Secret) for secret in secrets)


@pytest.mark.parametrize("public", SMALL_ORDER)
@pytest.mark.parametrize("top_bit", [0x00, 0x80])
def test_public_keys_of_small_order_are_refused(public: str, top_bit: int) -> None:
    """A public key that would give a zero secret raises KeyAgreementError, whatever its unused top bit says."""
    key = bytearray.fromhex(public)
    key[31] |= top_bit

    with pytest.raises(KeyAgreementError):
        private_key(ALICE).agree(bytes(key))


def second_names(u: int) -> list[bytes]:
    """Every other encoding of a u-coordinate that RFC 7748 has receivers accept."""
    numbers = [u + FIELD] if u + FIELD < 2**255 else []
    return [n.to_bytes(32, "little") for number in [u, *numbers] for n in (number, number + 2**255)][1:]


@pytest.mark.parametrize("u", [2, 3, 9, 18, 19, 2**200 + 7, FIELD - 2])
def test_a_second_encoding_of_a_key_is_refused(u: int) -> None:
    """Every other encoding of a u raises KeyAgreementError; the library alone would agree on the same secret (control)."""
    name = u.to_bytes(32, "little")
    careless = X25519PrivateKey.from_private_bytes(bytes.fromhex(ALICE))

    check_public_key(name)
    shared = private_key(ALICE).agree(name)

    assert second_names(u)
    for other in second_names(u):
        assert careless.exchange(X25519PublicKey.from_public_bytes(other)) == shared
        with pytest.raises(KeyAgreementError, match="canonical"):
            check_public_key(other)
        with pytest.raises(KeyAgreementError, match="canonical"):
            private_key(ALICE).agree(other)


@pytest.mark.parametrize("number", [FIELD, FIELD + 2, 2**255 - 1, 2**255 + 9, 2**256 - 1])
def test_the_edges_of_the_field_are_refused(number: int) -> None:
    """From p upwards everything raises KeyAgreementError; p - 2 is a key."""
    with pytest.raises(KeyAgreementError, match="canonical"):
        check_public_key(number.to_bytes(32, "little"))

    check_public_key((FIELD - 2).to_bytes(32, "little"))


@PROPERTY
@given(secret=st.binary(min_size=32, max_size=32))
def test_no_honest_key_is_refused(secret: bytes) -> None:
    """Whatever the private key is, the public key that the library writes is canonical and can be agreed with."""
    check_public_key(PrivateKey(Secret(secret)).public)


@pytest.mark.parametrize("size", [0, 1, 31, 33, 64])
def test_public_keys_of_the_wrong_size_are_refused(size: int) -> None:
    """A public key that is not 32 bytes long raises KeyAgreementError."""
    key = private_key(ALICE)

    with pytest.raises(KeyAgreementError):
        key.agree(b"\x09" * size)
