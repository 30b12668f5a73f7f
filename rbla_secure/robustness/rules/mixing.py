"""Steps before a rule: they make honest vectors more alike, so that heterogeneity looks less like an attack."""

import numpy as np
import numpy.typing as npt

from rbla_secure.errors import RobustnessError
from rbla_secure.robustness.rules.distances import squared_distances
from rbla_secure.robustness.rules.matrix import Matrix, check_count, check_matrix, check_positive, columns

Rows = npt.NDArray[np.float64]


def nearest_neighbor_mixing(x: Matrix, *, f: int) -> Rows:
    """Each row becomes the mean of the n - f rows nearest to it, itself among them; shape (n, d).

    After it a rule with coefficient kappa has 8 f / (n - f) (kappa + 1). f = 0 makes every row the mean. Source: NNM,
    Allouah et al. 2023, arXiv 2302.01772, algorithm 2.

    Raises:
        RobustnessError: n < 2f + 1, or `x` is no finite matrix.
    """
    check_matrix(x)
    n = len(x)
    check_count("nearest neighbor mixing", n, f, at_least=2 * f + 1)
    nearest = np.argsort(squared_distances(x), axis=1, kind="stable")[:, : n - f]
    shares = np.zeros((n, n))
    np.put_along_axis(shares, nearest, 1 / (n - f), axis=1)
    return _mixed(shares, x)


def bucketing(x: Matrix, *, s: int, order: npt.NDArray[np.intp]) -> Rows:
    """Means of buckets of s rows in the given order, shape (ceil(n / s), d); the last bucket may be smaller.

    At most f of the buckets are bad, so the rule after it must stand against f of ceil(n / s): with s = 2 that halves
    what it can take. Source: Karimireddy et al. 2022, arXiv 2006.09365, algorithm 1.

    Args:
        x: Shape (n, d).
        s: Rows per bucket.
        order: A random permutation of range(n), drawn after the rows are fixed.

    Raises:
        RobustnessError: `s` is not positive, `order` is no permutation, or `x` is no finite matrix.
    """
    check_matrix(x)
    check_positive("s", s)
    n = len(x)
    if not np.array_equal(np.sort(order), np.arange(n)):
        raise RobustnessError(f"order must be a permutation of the {n} rows")
    shares = np.zeros((-(-n // s), n))
    for bucket, start in enumerate(range(0, n, s)):
        members = order[start : start + s]
        shares[bucket, members] = 1 / len(members)
    return _mixed(shares, x)


def _mixed(shares: Rows, x: Matrix) -> Rows:
    # shares @ x, never x[indices]: that would hold n copies of the matrix.
    found = np.empty((len(shares), x.shape[1]))
    for part in columns(x):
        found[:, part] = shares @ x[:, part].astype(np.float64)
    return found
