"""Residues are packed without gaps, decoded strictly, and added as the library adds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import CiphertextError
from protocols.homomorphic.scheme import bfv, polynomials, seal_form
from protocols.homomorphic.scheme.parameters import BFV_2X20, PROFILES, EncryptionProfile
from tests.contracts.sessions import PROPERTY

# One prime of every width that a profile or the screening has, and narrow ones.
PRIMES = {
    3: 7,
    36: 68_719_403_009,
    40: 1_099_511_480_321,
    54: 18_014_398_509_309_953,
    60: 1_152_921_504_606_748_673,
}
EVERY_PROFILE = pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)


def bits_of(values: list[int], width: int) -> bytes:
    """Residues one after the other, the lowest bit first: an oracle in Python integers."""
    number = sum(value << (place * width) for place, value in enumerate(values))
    return number.to_bytes(len(values) * width // 8, "little")


@PROPERTY
@given(data=st.data(), widths=st.lists(st.sampled_from(sorted(PRIMES)), min_size=1, max_size=3))
def test_the_form_is_that_of_one_long_number(data: st.DataObject, widths: list[int]) -> None:
    """Encoding equals an independent one in Python integers, prime by prime, and decoding gives the residues back."""
    moduli = [PRIMES[width] for width in widths]
    count, degree = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([4, 8, 16]))
    shape = (count, 2, len(moduli), degree)
    pairs = np.zeros(shape, dtype=np.uint64)
    for place, modulus in enumerate(moduli):
        numbers = st.one_of(st.sampled_from([1, modulus - 1]), st.integers(1, modulus - 1))
        drawn = data.draw(st.lists(numbers, min_size=2 * count * degree, max_size=2 * count * degree))
        pairs[:, :, place] = np.array(drawn, dtype=np.uint64).reshape(count, 2, degree)

    encoded = polynomials.encode(pairs, moduli)

    assert encoded == b"".join(
        bits_of(pairs[:, :, place].reshape(-1).tolist(), width) for place, width in enumerate(widths)
    )
    decoded = polynomials.decode(encoded, count=count, moduli=moduli, degree=degree)
    assert decoded.tolist() == pairs.tolist()


@EVERY_PROFILE
@pytest.mark.parametrize("excess", [0, 1])
@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("half", [0, 1])
def test_a_residue_that_is_not_below_its_prime_is_refused(
    profile: EncryptionProfile, excess: int, place: int, half: int
) -> None:
    """The prime itself, anywhere, raises CiphertextError: one message has one encoding."""
    moduli = profile.ciphertext_moduli
    pairs = np.ones((2, 2, len(moduli), profile.degree), dtype=np.uint64)
    pairs[place, half, place, place] = moduli[place] + excess

    with pytest.raises(CiphertextError, match="not below its prime"):
        polynomials.decode(polynomials.encode(pairs, moduli), count=2, moduli=moduli, degree=profile.degree)


@pytest.mark.parametrize("change", [-1, 1, 27, -27])
def test_another_number_of_bytes_is_refused(change: int) -> None:
    """Nothing is read from bytes of another size."""
    moduli = BFV_2X20.ciphertext_moduli
    size = polynomials.size_of(1, moduli=moduli, degree=BFV_2X20.degree)

    with pytest.raises(CiphertextError, match=f"{size + change} bytes must be {size}"):
        polynomials.decode(bytes(size + change), count=1, moduli=moduli, degree=BFV_2X20.degree)


def test_a_second_polynomial_of_zeros_is_refused() -> None:
    """In one of several pairs is enough: such a ciphertext would carry its message in the clear."""
    moduli = BFV_2X20.ciphertext_moduli
    pairs = np.ones((3, 2, 1, BFV_2X20.degree), dtype=np.uint64)
    pairs[1, 1] = 0

    with pytest.raises(CiphertextError, match="second polynomial"):
        polynomials.decode(polynomials.encode(pairs, moduli), count=3, moduli=moduli, degree=BFV_2X20.degree)


@EVERY_PROFILE
def test_adding_residues_is_what_the_library_does(profile: EncryptionProfile) -> None:
    """The sum of two ciphertexts by residues is bit for bit the one that the library computes from the same two."""
    secret = bfv.RoundSecret.generate(profile)
    key = bfv.PublicKey(profile, secret.public_key())
    rows = np.random.default_rng(0).integers(0, profile.plain_modulus // 2, (2, profile.degree))
    pairs = key.encrypt(rows)
    level = bfv._shape(profile).ciphertext
    first, second = (
        bfv.library().bfv_vector_from(
            secret._context,
            seal_form.vector([seal_form.pair_stream(pair, level)], length=profile.degree),
        )
        for pair in pairs
    )

    ours = pairs[:1].copy()
    polynomials.add(ours, pairs[1:], profile.ciphertext_moduli)

    (stream,) = seal_form.streams_of((first + second).serialize())
    theirs = seal_form.read_pair(stream, level, primes=len(profile.ciphertext_moduli), degree=profile.degree)
    assert ours[0].tolist() == theirs.tolist()


def test_sums_stay_below_the_primes() -> None:
    """Largest plus largest, and values that meet exactly at the prime, are reduced."""
    moduli = [PRIMES[36], PRIMES[60]]
    primes = np.array(moduli, dtype=np.uint64)[:, None]
    target = np.repeat(primes - 1, 4, axis=1)[None, None].repeat(2, axis=1)
    other = target.copy()
    other[..., 0], other[..., 1], other[..., 2] = 1, 0, 2

    polynomials.add(target, other, moduli)

    expected = [[0, modulus - 1, 1, modulus - 2] for modulus in moduli]
    assert target[0, 0].tolist() == target[0, 1].tolist() == expected
