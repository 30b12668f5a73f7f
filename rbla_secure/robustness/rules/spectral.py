"""Divide and conquer: what bad rows have in common shows in the direction of largest variance."""

import math

import numpy as np
import numpy.typing as npt

from rbla_secure.errors import RobustnessError
from rbla_secure.robustness.rules.matrix import (
    Matrix,
    Vector,
    check_count,
    check_matrix,
    check_positive,
    combine,
)

# Shejwalkar and Houmansadr 2021, section VI: 10,000 coordinates, and as many rows dropped as there may be bad ones.
COORDINATES = 10_000
FILTER_FRACTION = 1.0


def divide_and_conquer(
    x: Matrix,
    *,
    f: int,
    generator: np.random.Generator,
    c: float = FILTER_FRACTION,
    coordinates: int = COORDINATES,
    iterations: int = 1,
) -> Vector:
    """The mean of the rows that are never among the ceil(c f) highest scores; f = 0 is the mean.

    Stands against f < n/2 rows that pull together; what is orthogonal to the top direction passes. Bound the lengths
    first: one huge row is dropped, but it alone is then the top direction, and hides the others. Source: DnC,
    Shejwalkar and Houmansadr 2021 (NDSS), algorithm 2.

    Args:
        x: Shape (n, d).
        f: How many bad rows to stand against.
        generator: Draws the coordinates of each iteration; a stream of its own, so that rounds can be repeated.
        c: Rows dropped per bad row.
        coordinates: How many coordinates are looked at.
        iterations: How many draws; only rows kept in all of them count.

    Raises:
        RobustnessError: n < 2f + 1, iterations * ceil(c f) >= n (nobody might be left), a parameter that is not
            positive, or `x` is no finite matrix.
    """
    check_matrix(x)
    check_positive("c", c)
    check_positive("iterations", iterations)
    n = len(x)
    check_count("divide and conquer", n, f, at_least=2 * f + 1)
    dropped = math.ceil(c * f)
    if iterations * dropped >= n:
        raise RobustnessError(
            f"divide and conquer: {iterations} iterations that drop {dropped} of n={n} rows may keep none"
        )
    kept = np.ones(n, dtype=np.bool_)
    for _ in range(iterations):
        scores = spectral_scores(x, generator=generator, coordinates=coordinates)
        kept[np.argsort(scores, kind="stable")[n - dropped :]] = False
    return combine(kept / kept.sum(), x)


def spectral_scores(
    x: Matrix, *, generator: np.random.Generator, coordinates: int = COORDINATES
) -> npt.NDArray[np.float64]:
    """|<x_i - mean, v>| for the top right singular vector v of the centered rows, shape (n,); high is suspicious.

    The paper takes the square, which orders the rows alike; a length does not overflow where the values do not. From
    the n x n Gram matrix: with its top eigenpair (l, u) the scores are sqrt(l) |u_i|.

    Args:
        x: Shape (n, d).
        generator: Draws the coordinates where there are more than `coordinates`.
        coordinates: How many to look at.

    Raises:
        RobustnessError: `x` is no finite matrix, or no coordinate is to be looked at.
    """
    check_matrix(x)
    check_positive("coordinates", coordinates)
    d = x.shape[1]
    seen = np.sort(generator.choice(d, size=coordinates, replace=False)) if d > coordinates else slice(None)
    looked_at = x[:, seen].astype(np.float64)
    largest = float(np.abs(looked_at).max())
    if not largest:
        return np.zeros(len(x))
    # Scaled to 1 first: the squares of large finite values must not overflow before they are compared.
    looked_at /= largest
    looked_at -= looked_at.mean(axis=0)
    values, vectors = np.linalg.eigh(looked_at @ looked_at.T)
    with np.errstate(over="ignore"):
        return np.asarray(math.sqrt(max(float(values[-1]), 0.0)) * np.abs(vectors[:, -1]) * largest)
