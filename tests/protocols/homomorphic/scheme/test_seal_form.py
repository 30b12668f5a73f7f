"""What we write for the library is what the library writes, and another layout is noticed."""

import struct

import numpy as np
import pytest
import zstandard

from protocols.errors import CiphertextError
from protocols.homomorphic.scheme import bfv, seal_form
from protocols.homomorphic.scheme.parameters import BFV_2X20, PROFILES, EncryptionProfile

HEADER = 16
EVERY_PROFILE = pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)


def body(stream: bytes) -> bytes:
    """A stream that the library has compressed, unpacked."""
    return zstandard.ZstdDecompressor().stream_reader(stream[HEADER:]).read()


@EVERY_PROFILE
def test_a_ciphertext_is_written_as_the_library_writes_it(profile: EncryptionProfile) -> None:
    """From the residues we took out, the library's own bytes come out again, headers and all."""
    secret = bfv.RoundSecret.generate(profile)
    written = bfv.library().bfv_vector(secret._context, list(range(profile.degree))).serialize()
    (stream,) = seal_form.streams_of(written)
    level = bfv._shape(profile).ciphertext

    pair = seal_form.read_pair(stream, level, primes=len(profile.ciphertext_moduli), degree=profile.degree)

    assert seal_form.pair_stream(pair, level)[HEADER:] == body(stream)
    assert seal_form.vector([stream], length=profile.degree) == written


@EVERY_PROFILE
def test_a_public_key_is_written_as_the_library_writes_it(profile: EncryptionProfile) -> None:
    """A context with the key spliced in encrypts what the secret key opens, and holds no secret."""
    secret = bfv.RoundSecret.generate(profile)
    whole = secret._context.serialize(
        save_public_key=True, save_secret_key=False, save_galois_keys=False, save_relin_keys=False
    )
    stream = seal_form.public_key_of(whole)
    level = bfv._shape(profile).key

    pair = seal_form.read_pair(stream, level, primes=len(profile.moduli), degree=profile.degree)

    assert seal_form.pair_stream(pair, level)[HEADER:] == body(stream)
    rebuilt = seal_form.with_public_key(bfv._shape(profile).context, stream)
    assert rebuilt == whole
    assert not bfv.library().context_from(rebuilt, n_threads=1).has_secret_key()


@pytest.mark.parametrize(
    "damage",
    [
        lambda stream: stream[:-8],
        lambda stream: stream + bytes(8),
        lambda stream: stream[:HEADER] + bytes(32) + stream[HEADER + 32 :],
        lambda stream: stream[: HEADER + 32] + b"\x01" + stream[HEADER + 33 :],
        lambda stream: stream[: HEADER + 33] + struct.pack("<Q", 3) + stream[HEADER + 41 :],
        lambda stream: stream[:5] + b"\x01" + stream[6:],
    ],
    ids=["short", "long", "parameters", "transformed", "three polynomials", "compressed by zlib"],
)
def test_another_layout_is_refused_by_name(damage: object) -> None:
    """A library that writes anything else than the known layout is not trusted to have meant it."""
    level = bfv._shape(BFV_2X20).ciphertext
    pair = np.ones((2, 1, BFV_2X20.degree), dtype=np.uint64)
    stream = damage(seal_form.pair_stream(pair, level))  # type: ignore[operator]

    with pytest.raises(CiphertextError):
        seal_form.read_pair(stream, level, primes=1, degree=BFV_2X20.degree)


def test_long_fields_have_long_lengths() -> None:
    """Lengths beyond seven bits take several bytes, the low ones first, as protobuf has it."""
    assert [seal_form._varint(value).hex() for value in (0, 127, 128, 300, 2**21)] == [
        "00",
        "7f",
        "8001",
        "ac02",
        "80808001",
    ]
