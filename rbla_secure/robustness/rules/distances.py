"""Squared distances between all pairs of rows."""

import numpy as np
import numpy.typing as npt

from rbla_secure.robustness.rules.coordinatewise import coordinate_median
from rbla_secure.robustness.rules.matrix import Matrix, Vector, columns

Square = npt.NDArray[np.float64]

# A distance below this share of the lengths it is the difference of has lost half its digits: it is computed anew.
CANCELLED = 1e-8


def squared_distances(x: Matrix) -> Square:
    """||x_i - x_j||^2, shape (n, n), symmetric, zero on the diagonal.

    From one Gram matrix about the coordinate median: around the mean, a single row at 1e30 would swallow the digits of
    all others. Pairs whose distance nearly cancels are recomputed from their difference. A row whose squares overflow
    is infinitely far from all others.

    Pre-conditions: `x` is a finite matrix.
    """
    center = coordinate_median(x)
    gram = np.zeros((len(x), len(x)))
    with np.errstate(over="ignore", invalid="ignore"):
        for part in columns(x):
            chunk = x[:, part].astype(np.float64) - center[part]
            gram += chunk @ chunk.T
        lengths = gram.diagonal()
        sums = lengths[:, None] + lengths[None, :]
        found = np.asarray(sums - 2.0 * gram)
    lost = ~np.isfinite(lengths)
    found[lost, :] = np.inf
    found[:, lost] = np.inf
    np.fill_diagonal(found, 0.0)
    for i, j in np.argwhere(np.triu((found <= CANCELLED * sums) & np.isfinite(sums), k=1)):
        found[i, j] = found[j, i] = _squared_distance(x[i], x[j])
    return found


def _squared_distance(a: Matrix, b: Matrix) -> float:
    pair: Vector = a.astype(np.float64) - b
    return float(np.square(pair, out=pair).sum())
