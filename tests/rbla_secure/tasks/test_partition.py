"""Every example belongs to exactly one client, and no client is left empty."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbla_secure.errors import DataError
from rbla_secure.tasks.partition import MIN_EXAMPLES, Parts, partition_dirichlet, partition_iid

LABELS = np.random.default_rng(0).integers(0, 10, size=1000)


def check_is_partition(parts: Parts, *, examples: int, clients: int) -> None:
    assert len(parts) == clients
    assert min(len(part) for part in parts) >= MIN_EXAMPLES
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(examples))
    assert all(part.dtype == np.int64 for part in parts)


@given(st.integers(1, 40), st.integers(0, 200), st.integers(0, 2**63 - 1))
def test_iid_parts_are_disjoint_complete_and_even(clients: int, extra: int, seed: int) -> None:
    """Sizes differ by at most one for every number of clients that the examples allow."""
    labels = np.zeros(MIN_EXAMPLES * clients + extra, np.int64)

    parts = partition_iid(labels, clients=clients, seed=seed)

    check_is_partition(parts, examples=len(labels), clients=clients)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@given(
    st.integers(1, 20),
    st.lists(st.integers(0, 9), max_size=60),
    st.sampled_from([1e-300, 1e-3, 0.1, 1.0, 1e6]),
    st.integers(0, 2**63 - 1),
)
def test_dirichlet_parts_are_disjoint_and_complete(
    clients: int, extra: list[int], alpha: float, seed: int
) -> None:
    """No skew, however extreme, loses an example or leaves a client below the minimum."""
    labels = np.array([0] * (MIN_EXAMPLES * clients) + extra)

    parts = partition_dirichlet(labels, clients=clients, alpha=alpha, seed=seed)

    check_is_partition(parts, examples=len(labels), clients=clients)


def test_alpha_sets_the_skew() -> None:
    """Small alpha gives clients few classes, large alpha nearly even ones."""

    def largest_share(alpha: float) -> float:
        parts = partition_dirichlet(LABELS, clients=10, alpha=alpha, seed=3)
        return float(np.mean([np.bincount(LABELS[part]).max() / len(part) for part in parts]))

    assert largest_share(1e4) < 0.2
    assert largest_share(1e4) < largest_share(1.0) < largest_share(0.05)
    assert largest_share(0.05) > 0.5


def test_partitions_follow_their_seed() -> None:
    """The same seed gives the same parts, another seed others."""
    for deal in (
        lambda seed: partition_iid(LABELS, clients=7, seed=seed),
        lambda seed: partition_dirichlet(LABELS, clients=7, alpha=1.0, seed=seed),
    ):
        first, again, other = deal(1), deal(1), deal(2)

        assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
        assert not all(np.array_equal(one, two) for one, two in zip(first, other, strict=True))


@pytest.mark.parametrize(("examples", "clients"), [(3, 2), (0, 1), (10, 11)])
def test_too_few_examples_are_refused(examples: int, clients: int) -> None:
    """The numbers of the message are those of the call."""
    labels = np.zeros(examples, np.int64)
    message = f"{examples} examples cannot give clients={clients} at least 2 each"

    with pytest.raises(DataError, match=message):
        partition_iid(labels, clients=clients, seed=0)
    with pytest.raises(DataError, match=message):
        partition_dirichlet(labels, clients=clients, alpha=1.0, seed=0)


def test_no_clients_are_refused() -> None:
    """A partition has at least one part."""
    with pytest.raises(DataError, match="clients=0 must be at least 1"):
        partition_iid(LABELS, clients=0, seed=0)
