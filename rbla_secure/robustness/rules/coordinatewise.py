"""Rules that look at one coordinate at a time."""

from collections.abc import Iterator

import numpy as np

from rbla_secure.robustness.rules.matrix import Matrix, Vector, check_count, check_matrix, columns


def coordinate_median(x: Matrix) -> Vector:
    """The median of each coordinate; the mean of the two middle values where n is even.

    Breakdown point 1/2: with f < n/2 every value of the result lies in the range of the honest values there. Source:
    Yin et al. 2018, arXiv 1803.01498, definition 1. On heterogeneous data it forgets what few clients know.

    Raises:
        RobustnessError: `x` is no finite matrix.
    """
    check_matrix(x)
    low, high = (len(x) - 1) // 2, len(x) // 2
    found = np.empty(x.shape[1])
    for part, ordered in _ordered(x):
        # Halved first, so that two huge values do not overflow; halving is exact.
        found[part] = ordered[:, low] / 2.0 + ordered[:, high] / 2.0
    return found


def trimmed_mean(x: Matrix, *, f: int) -> Vector:
    """The mean of each coordinate without its f smallest and f largest values; f = 0 is the mean.

    Breakdown point f/n: against at most f bad rows every value lies in the range of the honest values there. Source:
    Yin et al. 2018, arXiv 1803.01498, definition 2.

    Raises:
        RobustnessError: n < 2f + 1, or `x` is no finite matrix.
    """
    check_matrix(x)
    n = len(x)
    check_count("trimmed mean", n, f, at_least=2 * f + 1)
    found = np.empty(x.shape[1])
    for part, ordered in _ordered(x):
        found[part] = ordered[:, f : n - f].mean(axis=1, dtype=np.float64)
    return found


def _ordered(x: Matrix) -> Iterator[tuple[slice, Matrix]]:
    """By chunk: each coordinate's values in increasing order, shape (width, n), float64.

    Fully sorted, not partitioned: sums in one order do not depend on the order of the clients.
    """
    for part in columns(x):
        # Sorting in the narrow type is faster, and widening afterwards is exact.
        yield part, np.sort(np.ascontiguousarray(x[:, part].T), axis=1).astype(np.float64)
