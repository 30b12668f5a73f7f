"""Ring vectors: signed integers go in, wrap, and come out exactly within the capacity."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import ring
from protocols.ring import MAX_SUM, RING_BITS, capacity, centred, to_ring
from tests.contracts.sessions import PROPERTY

INT64 = st.integers(-(2**63), 2**63 - 1)


def test_the_example_in_the_docstring_runs() -> None:
    """The module's doctest passes."""
    outcome = doctest.testmod(ring)

    assert outcome.attempted > 0
    assert outcome.failed == 0


@PROPERTY
@given(values=st.lists(INT64, max_size=20))
def test_integers_become_their_residues(values: list[int]) -> None:
    """A signed integer becomes its residue modulo 2^32."""
    vector = to_ring(np.array(values, dtype=np.int64))

    assert vector.dtype == np.uint32
    assert vector.tolist() == [value % 2**RING_BITS for value in values]


@PROPERTY
@given(words=st.lists(st.integers(0, 2**32 - 1), max_size=20))
def test_the_lift_is_centred(words: list[int]) -> None:
    """A ring element becomes the one congruent integer in [-2^31, 2^31)."""
    lifted = centred(np.array(words, dtype=np.uint32))

    assert lifted.dtype == np.int64
    assert all(-(2**31) <= value < 2**31 for value in lifted.tolist())
    assert [value % 2**32 for value in lifted.tolist()] == words


@pytest.mark.parametrize(
    ("word", "value"),
    [(0, 0), (1, 1), (2**31 - 1, 2**31 - 1), (2**31, -(2**31)), (2**31 + 1, 1 - 2**31), (2**32 - 1, -1)],
)
def test_the_lift_at_its_ends(word: int, value: int) -> None:
    """The lift turns over between 2^31 - 1 and 2^31."""
    lifted = centred(np.array([word], dtype=np.uint32))

    assert lifted.tolist() == [value]


@PROPERTY
@given(data=st.data(), summands=st.integers(1, 50))
def test_sums_within_capacity_are_exact(data: st.DataObject, summands: int) -> None:
    """So many integers, none above the capacity in magnitude, are summed exactly through the ring."""
    bound = capacity(summands)
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

    assert centred(total).tolist() == [sum(values)]


@PROPERTY
@given(summands=st.integers(1, 2**16))
def test_capacity_is_the_largest_that_fits(summands: int) -> None:
    """At capacity the sum still fits below 2^31, and one more per summand would not."""
    bound = capacity(summands)

    assert summands * bound <= 2**31 - 1 < summands * (bound + 1)
    assert MAX_SUM == 2**31 - 1


def test_one_above_capacity_wraps() -> None:
    """Beyond the capacity the ring gives a wrong sum, which is why sessions refuse it."""
    summands = 4
    too_large = np.array([capacity(summands) + 1], dtype=np.int64)

    total = sum((to_ring(too_large) for _ in range(summands)), np.zeros(1, dtype=np.uint32))

    assert centred(total).tolist() == [summands * (capacity(summands) + 1) - 2**32]


def test_ring_vectors_are_fresh() -> None:
    """Writing to a ring vector or to its lift does not reach what it was made from."""
    values = np.array([1, 2, 3], dtype=np.int64)

    vector = to_ring(values)
    lifted = centred(vector)
    vector[0] = 9
    lifted[1] = 9

    assert values.tolist() == [1, 2, 3]
    assert vector.tolist() == [9, 2, 3]
