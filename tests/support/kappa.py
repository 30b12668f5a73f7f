"""Proven robustness coefficients: how far a rule may be from the mean of any n - f honest vectors.

A rule F is (f, kappa)-robust if for every subset S of n - f vectors

    || F(x) - mean_S ||^2  <=  kappa / |S| * sum_{i in S} || x_i - mean_S ||^2.

No rule has kappa < f / (n - 2f). The bounds below are those of Allouah et al. 2023 (arXiv 2302.01772), with
q = f / (n - 2f).
"""


def lower_bound(n: int, f: int) -> float:
    """What no rule can beat."""
    return f / (n - 2 * f)


def trimmed_mean_kappa(n: int, f: int) -> float:
    """6 q (1 + q)."""
    q = lower_bound(n, f)
    return 6 * q * (1 + q)


def krum_kappa(n: int, f: int) -> float:
    """6 (1 + q)."""
    return 6 * (1 + lower_bound(n, f))


def median_kappa(n: int, f: int) -> float:
    """4 (1 + q)^2, for the coordinate median and for the geometric median at convergence."""
    return 4 * (1 + lower_bound(n, f)) ** 2


def mixed_kappa(n: int, f: int, kappa: float) -> float:
    """8 f / (n - f) (kappa + 1): a rule with `kappa` after nearest-neighbor mixing."""
    return 8 * f / (n - f) * (kappa + 1)
