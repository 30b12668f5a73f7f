"""Sealed shares open only whole, with their key and their context."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import SealError
from protocols.primitives.sealed import KEY_SIZE, NONCE_SIZE, TAG_SIZE, open_sealed, seal
from protocols.primitives.secret import Secret
from tests.contracts.sessions import PROPERTY

KEY = Secret(bytes(range(KEY_SIZE)))
CONTEXT = b"a session"
PLAINTEXT = Secret(b"thirty-three bytes of some share.")


@PROPERTY
@given(
    plaintext=st.binary(max_size=100), context=st.binary(max_size=40), key=st.binary(min_size=16, max_size=16)
)
def test_what_is_sealed_opens(plaintext: bytes, context: bytes, key: bytes) -> None:
    """Opening with the same key and context gives the plaintext, as a secret, from a message of known size."""
    sealed = seal(Secret(key), Secret(plaintext), context=context)

    opened = open_sealed(Secret(key), sealed, context=context)

    assert bytes(opened) == plaintext
    assert isinstance(opened, Secret)
    assert len(sealed) == NONCE_SIZE + len(plaintext) + TAG_SIZE


def test_the_format_is_nonce_ciphertext_tag_of_gcm() -> None:
    """Test case 4 of the GCM specification (its ciphertext and tag are public) comes out behind the nonce."""
    key = bytes.fromhex("feffe9928665731c6d6a8f9467308308")
    nonce = bytes.fromhex("cafebabefacedbaddecaf888")
    plaintext = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    )
    context = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")

    sealed = seal(Secret(key), Secret(plaintext), context=context, random_bytes=lambda size: nonce[:size])

    assert sealed.hex() == (
        "cafebabefacedbaddecaf888"
        "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e"
        "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091"
        "5bc94fbc3221a5db94fae95ae7121a47"
    )


@pytest.mark.parametrize("bit", [0, 7])
def test_a_change_of_any_byte_is_refused(bit: int) -> None:
    """Flipping a bit of any byte, nonce and tag included, raises SealError."""
    sealed = seal(KEY, PLAINTEXT, context=CONTEXT)

    for place in range(len(sealed)):
        tampered = bytearray(sealed)
        tampered[place] ^= 1 << bit
        with pytest.raises(SealError):
            open_sealed(KEY, bytes(tampered), context=CONTEXT)


def test_every_truncation_and_an_extension_are_refused() -> None:
    """A sealed message that is shorter or longer raises SealError, down to no bytes at all."""
    sealed = seal(KEY, PLAINTEXT, context=CONTEXT)

    for wrong in [*(sealed[:size] for size in range(len(sealed))), sealed + b"\x00", b"\x00" + sealed]:
        with pytest.raises(SealError):
            open_sealed(KEY, wrong, context=CONTEXT)


@pytest.mark.parametrize("context", [b"", b"a sessio", b"a session ", b"A session"])
def test_another_context_is_refused(context: bytes) -> None:
    """A message sealed in one context raises SealError in another."""
    sealed = seal(KEY, PLAINTEXT, context=CONTEXT)

    with pytest.raises(SealError):
        open_sealed(KEY, sealed, context=context)


def test_another_key_is_refused() -> None:
    """A key that differs in any one bit raises SealError."""
    sealed = seal(KEY, PLAINTEXT, context=CONTEXT)

    for bit in range(8 * KEY_SIZE):
        key = bytearray(KEY)
        key[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealError):
            open_sealed(Secret(bytes(key)), sealed, context=CONTEXT)


def test_every_sealing_takes_a_fresh_nonce() -> None:
    """Sealing the same thing many times never repeats a nonce or a ciphertext."""
    sealed = [seal(KEY, PLAINTEXT, context=CONTEXT) for _ in range(200)]

    assert len({message[:NONCE_SIZE] for message in sealed}) == 200
    assert len({message[NONCE_SIZE:] for message in sealed}) == 200


def test_an_error_shows_no_key_and_no_content() -> None:
    """The refusal of a tampered message names neither the key nor what was sealed."""
    sealed = seal(KEY, PLAINTEXT, context=CONTEXT)

    with pytest.raises(SealError) as caught:
        open_sealed(KEY, sealed[:-1] + bytes([sealed[-1] ^ 1]), context=CONTEXT)

    assert caught.value.__cause__ is None
    for hidden in (KEY, PLAINTEXT):
        assert bytes(hidden).hex() not in str(caught.value)
        assert repr(bytes(hidden))[2:-1] not in str(caught.value)
