"""Krum and Multi-Krum: the vectors whose nearest neighbors are nearest.

Blanchard et al. 2017 (NeurIPS, "Machine learning with adversaries") sum the distances to the n - f - 2 nearest other
vectors. Several public codes (byzfl, byzpy) take n - f - 1, and Multi-Krum is found with m = n - f and m = n - f - 2.
The paper's numbers are the default; both are parameters, so that either convention can be reproduced.
"""

import numpy as np
import numpy.typing as npt

from rbla_secure.errors import RobustnessError
from rbla_secure.robustness.rules.distances import squared_distances
from rbla_secure.robustness.rules.matrix import Matrix, Vector, check_count, check_matrix, combine


def krum(x: Matrix, *, f: int, neighbors: int | None = None) -> Vector:
    """The row with the smallest Krum score.

    Breakdown point (n - 3)/2n: n >= 2f + 3. In high dimension its leeway grows with sqrt(d), and rows that agree with
    each other look good to it.

    Args:
        x: Shape (n, d).
        f: How many bad rows to stand against.
        neighbors: How many nearest rows count; the paper's n - f - 2 if not given.

    Raises:
        RobustnessError: n < 2f + 3, `neighbors` outside [1, n - 1], or `x` is no finite matrix.
    """
    scores = krum_scores(x, f=f, neighbors=neighbors)
    return np.asarray(x[int(np.argmin(scores))], dtype=np.float64).copy()


def multi_krum(x: Matrix, *, f: int, m: int | None = None, neighbors: int | None = None) -> Vector:
    """The mean of the m rows with the smallest Krum scores; m = n is the mean.

    Args:
        x: Shape (n, d).
        f: How many bad rows to stand against.
        m: How many rows to keep; n - f if not given.
        neighbors: As in :func:`krum`.

    Raises:
        RobustnessError: As :func:`krum`, or m outside [1, n].
    """
    scores = krum_scores(x, f=f, neighbors=neighbors)
    n = len(x)
    kept = n - f if m is None else m
    if not 1 <= kept <= n:
        raise RobustnessError(f"multi-krum: m={m} must lie in [1, n={n}]")
    chosen = np.sort(np.argsort(scores, kind="stable")[:kept])
    coefficients = np.zeros(n)
    coefficients[chosen] = 1 / kept
    return combine(coefficients, x)


def krum_scores(x: Matrix, *, f: int, neighbors: int | None = None) -> npt.NDArray[np.float64]:
    """By row, the sum of squared distances to its nearest other rows, shape (n,); high is suspicious.

    Raises:
        RobustnessError: As :func:`krum`.
    """
    check_matrix(x)
    n = len(x)
    check_count("krum", n, f, at_least=2 * f + 3)
    count = n - f - 2 if neighbors is None else neighbors
    if not 1 <= count <= n - 1:
        raise RobustnessError(f"krum: neighbors={neighbors} must lie in [1, n - 1 = {n - 1}]")
    distances = squared_distances(x)
    # A row is not its own neighbor.
    np.fill_diagonal(distances, np.inf)
    distances.sort(axis=1)
    return np.asarray(distances[:, :count].sum(axis=1))
