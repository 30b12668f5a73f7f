"""Ed25519 through our wrapper gives the signatures of RFC 8032 and refuses keys that prove nothing."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from protocols.errors import SignatureError
from protocols.primitives.secret import Secret
from protocols.primitives.signing import (
    _SMALL_ORDER_Y,
    PUBLIC_KEY_SIZE,
    SIGNATURE_SIZE,
    SigningKey,
    check_public_key,
    verify,
)

# RFC 8032, section 7.1, tests 1, 2, 3 and SHA(abc): secret key, public key, message, signature.
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
    (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        (
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
            "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        ),
        (
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589"
            "09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704"
        ),
    ),
]
SECRET = Secret(bytes.fromhex(VECTORS[0][0]))
MESSAGE = b"a message"
FIELD = 2**255 - 19
CURVE_D = -121665 * pow(121666, -1, FIELD) % FIELD
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
Point = tuple[int, int]


def add_points(p: Point, q: Point) -> Point:
    """The addition law of RFC 8032, section 5.1, in affine form."""
    product = CURVE_D * p[0] * q[0] * p[1] * q[1] % FIELD
    x = (p[0] * q[1] + p[1] * q[0]) * pow(1 + product, -1, FIELD)
    y = (p[1] * q[1] + p[0] * q[0]) * pow(1 - product, -1, FIELD)
    return x % FIELD, y % FIELD


def square_root(value: int) -> int:
    """A square root in the field."""
    root = pow(value, (FIELD + 3) // 8, FIELD)
    return root if root * root % FIELD == value % FIELD else root * pow(2, (FIELD - 1) // 4, FIELD) % FIELD


def point_at(y: int) -> Point:
    """A point of the curve with this y-coordinate."""
    x = square_root((y * y - 1) * pow(CURVE_D * y * y + 1, -1, FIELD))
    assert (y * y - x * x - 1 - CURVE_D * x * x * y * y) % FIELD == 0
    return x, y


def times_eight(p: Point) -> Point:
    """Three doublings."""
    for _ in range(3):
        p = add_points(p, p)
    return p


@pytest.mark.parametrize(("secret", "public", "message", "signature"), VECTORS)
def test_signatures_are_those_of_rfc_8032(secret: str, public: str, message: str, signature: str) -> None:
    """Public keys and signatures of RFC 8032 section 7.1 come out, and verify."""
    key = SigningKey(Secret(bytes.fromhex(secret)))

    signed = key.sign(bytes.fromhex(message))

    assert (key.public.hex(), signed.hex()) == (public, signature)
    assert (len(key.public), len(signed)) == (PUBLIC_KEY_SIZE, SIGNATURE_SIZE)
    verify(key.public, signed, bytes.fromhex(message))


@pytest.mark.parametrize("part", ["public", "signature", "message"])
def test_a_change_of_any_byte_is_refused(part: str) -> None:
    """Flipping a bit of any byte of key, signature or message raises SignatureError."""
    key = SigningKey(SECRET)
    parts = {"public": key.public, "signature": key.sign(MESSAGE), "message": MESSAGE}

    for place in range(len(parts[part])):
        changed = bytearray(parts[part])
        changed[place] ^= 1
        with pytest.raises(SignatureError):
            verify(**{**parts, part: bytes(changed)})


@pytest.mark.parametrize("size", [0, 63, 65, 128])
def test_signatures_of_the_wrong_size_are_refused(size: int) -> None:
    """A signature that is not 64 bytes long raises SignatureError."""
    key = SigningKey(SECRET)
    signature = (key.sign(MESSAGE) * 2)[:size]

    with pytest.raises(SignatureError):
        verify(key.public, signature, MESSAGE)


def test_a_second_form_of_a_signature_is_refused() -> None:
    """Adding the group order to the scalar half, which changes nothing modulo it, raises SignatureError."""
    key = SigningKey(SECRET)
    signature = key.sign(MESSAGE)
    scalar = int.from_bytes(signature[32:], "little") + GROUP_ORDER

    with pytest.raises(SignatureError):
        verify(key.public, signature[:32] + scalar.to_bytes(32, "little"), MESSAGE)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_keys_of_the_wrong_size_are_refused(size: int) -> None:
    """A public or private key that is not 32 bytes long raises SignatureError."""
    with pytest.raises(SignatureError):
        check_public_key(bytes([9]) * size)
    with pytest.raises(SignatureError):
        SigningKey(Secret(bytes(size)))


def test_the_refused_points_are_those_of_small_order() -> None:
    """By our own curve arithmetic eight times each refused point is the neutral one; five y make eight points."""
    points = {(sign * x % FIELD, y) for x, y in map(point_at, _SMALL_ORDER_Y) for sign in (1, -1)}

    assert {times_eight(point) for point in points} == {(0, 1)}
    assert len(points) == 8


@pytest.mark.parametrize("y", sorted(_SMALL_ORDER_Y))
@pytest.mark.parametrize("sign", [0, 2**255])
def test_public_keys_of_small_order_are_refused(y: int, sign: int) -> None:
    """A key under which anybody can sign raises SignatureError, whatever the sign of its point."""
    with pytest.raises(SignatureError, match="small order"):
        check_public_key((y + sign).to_bytes(32, "little"))


@pytest.mark.parametrize("y", range(FIELD, 2**255))
def test_a_second_encoding_of_a_key_is_refused(y: int) -> None:
    """A y-coordinate that is not reduced raises SignatureError."""
    with pytest.raises(SignatureError, match="canonical"):
        check_public_key(y.to_bytes(32, "little"))


def test_the_library_alone_would_accept_a_forgery() -> None:
    """With the neutral point as key one signature fits every message: the library takes it, our check does not."""
    neutral = bytes([1]) + bytes(31)
    forged = neutral + bytes(32)

    Ed25519PublicKey.from_public_bytes(neutral).verify(forged, MESSAGE)

    with pytest.raises(SignatureError):
        verify(neutral, forged, MESSAGE)


def test_fresh_keys_come_from_the_given_bytes() -> None:
    """A generated key is its 32 random bytes, and by default two are never the same."""
    key = SigningKey.generate(lambda size: bytes(SECRET)[:size])

    assert key.public.hex() == VECTORS[0][1]
    assert SigningKey.generate().public != SigningKey.generate().public


def test_a_key_does_not_print() -> None:
    """Neither text form of a key holds its bytes."""
    key = SigningKey(SECRET)

    assert repr(key) == str(key) == "<SigningKey>"
    assert bytes(SECRET).hex() not in f"{key!r}{key}{key.secret!r}"
