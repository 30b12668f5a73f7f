"""Ring vectors: signed integers go in, wrap, and come out exactly within the capacity, packed without gaps between."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import WireError
from protocols.ring import RING_BITS, capacity, centred, folded, pack, packed_size, to_ring, unpack
from tests.contracts.sessions import PROPERTY

INT64 = st.integers(-(2**63), 2**63 - 1)
WORDS = st.lists(st.integers(0, 2**32 - 1), max_size=21)
BITS = pytest.mark.parametrize("bits", RING_BITS)


def packed_by_hand(words: list[int], bits: int) -> bytes:
    """All elements as one long little-endian number, the first in the lowest bits."""
    number = sum((word % 2**bits) << (bits * place) for place, word in enumerate(words))
    return number.to_bytes(-(-bits * len(words) // 8), "little")


@PROPERTY
@given(values=st.lists(INT64, max_size=20))
def test_integers_become_their_residues(values: list[int]) -> None:
    """A signed integer becomes its residue modulo 2^32."""
    vector = to_ring(np.array(values, dtype=np.int64))

    assert vector.dtype == np.uint32
    assert vector.tolist() == [value % 2**32 for value in values]


def test_the_rings_are_those_of_the_format() -> None:
    """Sessions and uploads name a ring by its bits, so the list is part of the format."""
    assert RING_BITS == (16, 20, 24, 32)


@BITS
@PROPERTY
@given(words=WORDS)
def test_the_lift_is_centred(bits: int, words: list[int]) -> None:
    """A word becomes the one integer in [-2^(bits-1), 2^(bits-1)) that is congruent to it modulo 2^bits."""
    vector = np.array(words, dtype=np.uint32)

    lifted = centred(vector, bits=bits)

    assert lifted.dtype == np.int64
    assert all(-(2 ** (bits - 1)) <= value < 2 ** (bits - 1) for value in lifted.tolist())
    assert [value % 2**bits for value in lifted.tolist()] == [word % 2**bits for word in words]
    assert vector.tolist() == words


@pytest.mark.parametrize(
    ("word", "value"),
    [(0, 0), (1, 1), (2**31 - 1, 2**31 - 1), (2**31, -(2**31)), (2**31 + 1, 1 - 2**31), (2**32 - 1, -1)],
)
def test_the_lift_at_its_ends(word: int, value: int) -> None:
    """The lift turns over between 2^31 - 1 and 2^31."""
    lifted = centred(np.array([word], dtype=np.uint32))

    assert lifted.tolist() == [value]


@BITS
def test_the_lift_of_a_narrow_ring_at_its_ends(bits: int) -> None:
    """The lift turns over between 2^(bits-1) - 1 and 2^(bits-1), whatever the bits above the ring."""
    half = 2 ** (bits - 1)
    words = [0, 1, half - 1, half, half + 1, 2 * half - 1]
    above = [(word + 5 * 2 * half) % 2**32 for word in words]

    lifts = [centred(np.array(given, dtype=np.uint32), bits=bits).tolist() for given in (words, above)]

    assert lifts == [[0, 1, half - 1, -half, 1 - half, -1]] * 2


@BITS
@PROPERTY
@given(data=st.data(), summands=st.integers(1, 50))
def test_sums_within_capacity_are_exact(data: st.DataObject, bits: int, summands: int) -> None:
    """So many integers, none above the capacity in magnitude, are summed exactly through the ring."""
    bound = capacity(summands, bits=bits)
    values = data.draw(
        st.lists(
            st.one_of(st.integers(-bound, bound), st.sampled_from([-bound, bound])),
            min_size=summands,
            max_size=summands,
        )
    )
    total = np.zeros(1, dtype=np.uint32)

    for value in values:
        total += to_ring(np.array([value], dtype=np.int64))

    assert centred(total, bits=bits).tolist() == [sum(values)]


@BITS
@PROPERTY
@given(summands=st.integers(1, 2**16))
def test_capacity_is_the_largest_that_fits(bits: int, summands: int) -> None:
    """At capacity all possible sums together are at most half of the ring, and with one more per summand they are not."""
    bound = capacity(summands, bits=bits)

    assert 2 * summands * bound + 1 <= 2 ** (bits - 1) < 2 * summands * (bound + 1) + 1


def test_the_widest_ring_is_the_default() -> None:
    """Without a number of bits, capacity and lift are those of 32."""
    assert capacity(1) == 2**30 - 1
    assert centred(np.array([2**31], dtype=np.uint32)).tolist() == [-(2**31)]


@BITS
def test_twice_the_capacity_wraps(bits: int) -> None:
    """With the free bit used up as well, the ring gives a wrong sum."""
    summands = 4
    bound = 2 * capacity(summands, bits=bits) + 1
    too_large = np.array([bound + 1], dtype=np.int64)

    total = sum((to_ring(too_large) for _ in range(summands)), np.zeros(1, dtype=np.uint32))

    assert centred(total, bits=bits).tolist() == [summands * (bound + 1) - 2**bits]


def test_ring_vectors_are_fresh() -> None:
    """Writing to a ring vector or to its lift does not reach what it was made from."""
    values = np.array([1, 2, 3], dtype=np.int64)

    vector = to_ring(values)
    lifted = centred(vector)
    vector[0] = 9
    lifted[1] = 9

    assert values.tolist() == [1, 2, 3]
    assert vector.tolist() == [9, 2, 3]


# Packing.


@BITS
@PROPERTY
@given(words=WORDS)
def test_packed_bytes_are_one_long_number(bits: int, words: list[int]) -> None:
    """The low bits of all elements stand without gaps, and come back modulo 2^bits."""
    vector = np.array(words, dtype=np.uint32)

    data = pack(vector, bits=bits)
    unpacked = unpack(data, len(words), bits=bits)

    assert data == packed_by_hand(words, bits)
    assert packed_size(len(words), bits=bits) == len(data)
    assert unpacked.dtype == np.uint32
    assert unpacked.tolist() == [word % 2**bits for word in words]
    assert vector.tolist() == words


@pytest.mark.parametrize(
    ("bits", "data"),
    [
        (16, "56347956bcab"),
        (20, "5634926745bcab08"),
        (24, "563412795634bcab78"),
        (32, "5634120079563412bcab78ff"),
    ],
)
def test_a_vector_packed_by_hand(bits: int, data: str) -> None:
    """Three elements as they stand on the wire in each ring."""
    vector = np.array([0x00123456, 0x12345679, 0xFF78ABBC], dtype=np.uint32)

    packed = pack(vector, bits=bits)

    assert packed.hex() == data


@BITS
def test_a_strided_vector_packs_like_any_other(bits: int) -> None:
    """Every other element of an array packs as a vector of its own."""
    whole = np.arange(14, dtype=np.uint32) * np.uint32(99_991)

    packed = pack(whole[::2], bits=bits)

    assert packed == packed_by_hand(whole[::2].tolist(), bits)


@BITS
@pytest.mark.parametrize("length", [0, 1, 2, 5, 6])
def test_another_number_of_bytes_is_refused(bits: int, length: int) -> None:
    """Bytes that are one short or one long for the elements raise WireError."""
    data = pack(np.ones(length, dtype=np.uint32), bits=bits)

    for wrong in (data[:-1], data + b"\x00"):
        if wrong != data:
            with pytest.raises(WireError, match=f"{bits} bits"):
                unpack(wrong, length, bits=bits)


@pytest.mark.parametrize("high", range(1, 16))
@pytest.mark.parametrize("length", [1, 3, 7])
def test_padding_of_an_odd_vector_must_be_zero(length: int, high: int) -> None:
    """An odd number of 20-bit elements leaves half a byte, which has one value only."""
    data = pack(np.full(length, 0xFFFFF, dtype=np.uint32), bits=20)
    spoilt = data[:-1] + bytes([data[-1] | high << 4])

    with pytest.raises(WireError, match="padding"):
        unpack(spoilt, length, bits=20)


def test_an_even_vector_has_no_padding() -> None:
    """All bits of an even number of 20-bit elements are theirs."""
    data = b"\xff" * 5

    assert unpack(data, 2, bits=20).tolist() == [2**20 - 1] * 2


@BITS
def test_a_folded_word_moves_no_further_than_the_word(bits: int) -> None:
    """Round the whole ring neighbours have lifts at most 1 apart; centred, the control, they are the ring apart once."""
    step = max(1, 2**bits // 2**16)
    edges = np.arange(-4, 5) + np.array([[0], [2 ** (bits - 2)], [2 ** (bits - 1)], [3 * 2 ** (bits - 2)]])
    words = np.unique(np.concatenate([np.arange(0, 2**bits, step), edges.ravel() % 2**bits])).astype(
        np.uint32
    )
    around = np.append(words, words[0])
    steps = np.diff(around.astype(np.int64)) % 2**bits

    assert (np.abs(np.diff(folded(around, bits=bits))) <= steps).all()
    assert not (np.abs(np.diff(centred(around, bits=bits))) <= steps).all()


@PROPERTY
@given(
    values=st.lists(INT64, min_size=1, max_size=20),
    moves=st.lists(st.integers(-(2**13), 2**13), min_size=20, max_size=20),
)
def test_what_one_input_changes_of_folded_sums_is_at_most_its_norm(
    values: list[int], moves: list[int]
) -> None:
    """Wherever a sum was put before it, in every ring."""
    first = to_ring(np.array(values, dtype=np.int64))
    change = np.array(moves[: len(values)], dtype=np.int64)

    for bits in RING_BITS:
        moved = folded(first + to_ring(change), bits=bits) - folded(first, bits=bits)
        assert np.linalg.norm(moved) <= np.linalg.norm(change)


@BITS
@pytest.mark.parametrize("summands", [1, 3, 10, 1000])
def test_folding_changes_nothing_within_capacity(bits: int, summands: int) -> None:
    """The largest sums of honest inputs are lifted as they are."""
    largest = summands * capacity(summands, bits=bits)
    values = np.array([-largest, -1, 0, 1, largest], dtype=np.int64)

    assert folded(to_ring(values), bits=bits).tolist() == values.tolist()
