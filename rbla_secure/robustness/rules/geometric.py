"""The geometric median: the point with the smallest sum of distances."""

import numpy as np

from rbla_secure.errors import RobustnessError
from rbla_secure.robustness.rules.coordinatewise import coordinate_median
from rbla_secure.robustness.rules.matrix import (
    Matrix,
    Vector,
    check_matrix,
    check_positive,
    check_vector,
    columns,
    row_norms,
)

# Pillutla et al. 2022, section 4: nu = 1e-6; a handful of steps is enough there, more cost little here.
SMOOTHING = 1e-6
ITERATIONS = 10


def geometric_median(
    x: Matrix,
    *,
    weights: Vector | None = None,
    start: Vector | None = None,
    nu: float = SMOOTHING,
    iterations: int = ITERATIONS,
) -> Vector:
    """Smoothed Weiszfeld steps z <- sum_i b_i x_i / sum_i b_i with b_i = w_i / max(nu, ||z - x_i||).

    Breakdown point 1/2 (of the weight) at convergence. Started from the mean, few steps still feel a huge row; the
    coordinate median is a start that a minority cannot move. Source: RFA, Pillutla et al. 2022, arXiv 1912.13445,
    algorithm 2.

    Args:
        x: Shape (n, d).
        weights: Shape (n,), not negative; equal if not given.
        start: Shape (d,); the coordinate median if not given.
        nu: Distances below it count as nu: smoothing, in units of `x`.
        iterations: How many steps.

    Raises:
        RobustnessError: No positive nu or iterations, weights that are negative or all zero, or no finite matrix.
    """
    check_matrix(x)
    check_positive("nu", nu)
    check_positive("iterations", iterations)
    shares = _checked(weights, x)
    z = coordinate_median(x) if start is None else start.astype(np.float64)
    check_vector("start", z, x)
    distances = row_norms(x, z)
    for _ in range(iterations):
        pulls = shares / np.maximum(nu, distances)
        if not pulls.any():
            break  # everything is infinitely far from z: no direction is better than another
        z, distances = _step(x, pulls / pulls.sum())
    return z


def _step(x: Matrix, pulls: Vector) -> tuple[Vector, Vector]:
    """The weighted mean and every row's distance to it, in one walk through the matrix."""
    z = np.empty(x.shape[1])
    squares = np.zeros(len(x))
    with np.errstate(over="ignore"):
        for part in columns(x):
            chunk = x[:, part].astype(np.float64)
            z[part] = np.einsum("i,ij->j", pulls, chunk)
            chunk -= z[part]
            squares += np.square(chunk, out=chunk).sum(axis=1)
    return z, np.sqrt(squares)


def _checked(weights: Vector | None, x: Matrix) -> Vector:
    if weights is None:
        return np.ones(len(x))
    if weights.shape != (len(x),) or not np.isfinite(weights).all() or (weights < 0).any():
        raise RobustnessError(f"weights must be {len(x)} finite numbers >= 0, one per row")
    if not weights.any():
        raise RobustnessError("weights must not all be zero")
    return weights.astype(np.float64)
