"""How private examples are dealt to the clients of a simulated federation.

Both rules give disjoint parts that cover every example, and every client at least `MIN_EXAMPLES` of them.
"""

import numpy as np
import numpy.typing as npt

from rbla_secure.errors import DataError

Indices = npt.NDArray[np.int64]
Parts = tuple[Indices, ...]

# Fewer is no data set. A client that the draw leaves with less is topped up from the client that has the most.
MIN_EXAMPLES = 2


def partition_iid(labels: npt.NDArray[np.int64], *, clients: int, seed: int) -> Parts:
    """Deal the examples at random into parts whose sizes differ by at most one.

    Args:
        labels: Shape (n,). Only their number matters.
        clients: Number of parts.
        seed: The same seed gives the same parts.

    Returns:
        One sorted array of indices into `labels` for each client.

    Raises:
        DataError: `clients` * `MIN_EXAMPLES` exceeds the number of examples.
    """
    _check(len(labels), clients)
    order = np.random.default_rng(seed).permutation(len(labels))
    return tuple(np.sort(part) for part in np.array_split(order, clients))


def partition_dirichlet(labels: npt.NDArray[np.int64], *, clients: int, alpha: float, seed: int) -> Parts:
    """Deal the examples of every class in proportions drawn from a symmetric Dirichlet distribution.

    Small `alpha` gives every client its own few classes and its own number of examples, large `alpha` approaches
    :func:`partition_iid`. (Hsu, Qi, Brown 2019, arXiv:1909.06335, drawn per class.)

    Args:
        labels: Shape (n,), the class of every example.
        clients: Number of parts.
        alpha: Concentration, above 0.
        seed: The same seed gives the same parts.

    Returns:
        One sorted array of indices into `labels` for each client.

    Raises:
        DataError: `clients` * `MIN_EXAMPLES` exceeds the number of examples.
    """
    _check(len(labels), clients)
    generator = np.random.default_rng(seed)
    dealt: list[list[Indices]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        shares = generator.dirichlet(np.full(clients, alpha))
        cuts = np.rint(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for pile, part in zip(dealt, np.split(members, cuts), strict=True):
            pile.append(part)
    return _top_up([np.concatenate(pile) for pile in dealt])


def _check(examples: int, clients: int) -> None:
    if clients < 1:
        raise DataError(f"clients={clients} must be at least 1")
    if clients * MIN_EXAMPLES > examples:
        raise DataError(f"{examples} examples cannot give clients={clients} at least {MIN_EXAMPLES} each")


def _top_up(parts: list[Indices]) -> Parts:
    """Move examples from the largest part until none is below the minimum."""
    for client in range(len(parts)):
        while len(parts[client]) < MIN_EXAMPLES:
            largest = max(range(len(parts)), key=lambda other: len(parts[other]))
            parts[client] = np.append(parts[client], parts[largest][-1])
            parts[largest] = parts[largest][:-1]
    return tuple(np.sort(part) for part in parts)
