"""Rules that bound how far each vector pulls, and reject none."""

import numpy as np

from rbla_secure.robustness.rules.matrix import (
    Matrix,
    Vector,
    check_matrix,
    check_positive,
    check_vector,
    combine,
    row_norms,
)


def norm_bound(x: Matrix, *, bound: float) -> Vector:
    """The mean of the rows, each scaled down to length `bound` if it is longer.

    Breakdown point 0 in direction, but f bad rows move the result by at most 2 f bound / n. Source: Sun et al. 2019,
    "Can you really backdoor federated learning?", arXiv 1911.07963. A row whose squares overflow counts as zero.

    Raises:
        RobustnessError: `bound` is no positive finite number, or `x` no finite matrix.
    """
    check_matrix(x)
    check_positive("bound", bound)
    return combine(shrink_factors(row_norms(x), bound) / len(x), x)


def centered_clipping(x: Matrix, *, center: Vector, radius: float, iterations: int = 1) -> Vector:
    """Steps v <- v + mean_i (x_i - v) min(1, radius / ||x_i - v||), starting from `center`.

    f bad rows move each step by at most 2 f radius / n. Source: Karimireddy et al. 2021, arXiv 2012.10333, algorithm 2,
    with the previous aggregate as center. An attacker that knows the center can hide inside the radius (arXiv
    2208.09894).

    Args:
        x: Shape (n, d).
        center: Shape (d,).
        radius: In units of `x`.
        iterations: How many steps.

    Raises:
        RobustnessError: No positive radius or iterations, a center that does not fit, or no finite matrix.
    """
    check_matrix(x)
    check_positive("radius", radius)
    check_positive("iterations", iterations)
    check_vector("center", center, x)
    v = center.astype(np.float64)
    for _ in range(iterations):
        factors = shrink_factors(row_norms(x, v), radius) / len(x)
        v = v * (1.0 - factors.sum()) + combine(factors, x)
    return v


def shrink_factors(norms: Vector, bound: float) -> Vector:
    """min(1, bound / norm): 1 for the zero vector, 0 for an infinite one."""
    return np.asarray(bound / np.maximum(norms, bound))
