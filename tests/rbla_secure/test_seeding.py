"""One seed, many purposes: the same labels give the same randomness, other labels other randomness."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rbla_secure.seeding import derive_key, derive_seed
from tests.support.properties import PROPERTY

LABELS = st.lists(st.text(alphabet="abc:-1", max_size=4) | st.integers(0, 2**63), min_size=0, max_size=4).map(
    tuple
)


@PROPERTY
@given(seed=st.integers(0, 2**63 - 1), first=LABELS, second=LABELS)
def test_labels_separate_purposes(
    seed: int, first: tuple[str | int, ...], second: tuple[str | int, ...]
) -> None:
    """Two lists of labels share a key and a seed exactly when they are the same list."""
    keys = derive_key(seed, *first), derive_key(seed, *second)
    seeds = derive_seed(seed, *first), derive_seed(seed, *second)

    assert (keys[0] == keys[1]) == (first == second)
    assert (seeds[0] == seeds[1]) == (first == second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((1, "a"), ("a", 1)),
        ((1,), ("1",)),
        (("a", "b"), ("ab",)),
        (("a", "b"), ("a:b",)),
        (("a", ""), ("a",)),
        ((12, 3), (1, 23)),
    ],
)
def test_neighbouring_labels_do_not_meet(first: tuple[str | int, ...], second: tuple[str | int, ...]) -> None:
    """Order, type and where one label ends all count."""
    keys = derive_key(0, *first), derive_key(0, *second)

    assert keys[0] != keys[1]


def test_the_seed_of_the_run_counts() -> None:
    """Runs of different seeds share no randomness."""
    seeds = {derive_seed(seed, "batches", 1) for seed in range(1000)}

    assert len(seeds) == 1000


@PROPERTY
@given(seed=st.integers(0, 2**63 - 1), labels=LABELS)
def test_seeds_and_keys_fit_their_generators(seed: int, labels: tuple[str | int, ...]) -> None:
    """A seed is accepted by numpy and torch alike, and a key is one of AES-128."""
    derived, key = derive_seed(seed, *labels), derive_key(seed, *labels)

    assert 0 <= derived < 2**63
    assert np.random.default_rng(derived).random() < 1
    assert torch.Generator().manual_seed(derived).initial_seed() == derived
    assert len(key) == 16


def test_derived_seeds_are_known_answers() -> None:
    """A run of today repeats tomorrow: the derivation does not change unnoticed."""
    seed, key = derive_seed(7, "training", 3, "phone-01"), derive_key(7, "rounding", 3, "phone-01")

    assert seed == 6970997024637133480
    assert key.hex() == "1d3eea3f064e963f111d5ba5ea871c8a"
