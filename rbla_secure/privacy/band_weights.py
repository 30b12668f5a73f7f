"""Public weights of rank bands: less noise in an average at the same epsilon and for the same length of an update.

A client multiplies the rows of band b by a_b > 0 before it clips, and the server divides the band's average by a_b again:

    v_b = a_b u_b,   |v| <= C,   S_b = sum_i v_ib + noise of standard deviation z C,   published S_b / (D_b a_b)

The weights are numbers of the plan. The weighted update v is what is clipped, so one client still moves the sums by at most C:
the mechanism and its epsilon are those of equal weights, and the division is post-processing. What changes is where the noise
goes: z C / (D_b a_b) in each value of band b.

**Which weights.** Let c_b be the noise energy of band b's average per squared unit of z C at equal weights (over its values, the
sum of the squares of what an average multiplies a sum by), and s_b the share of an update's squared norm that is expected in the
band. Weights that keep the expected length, sum_b a_b^2 s_b = sum_b s_b, leave the clip norm its meaning. Among them the noise
energy sum_b c_b / a_b^2 is least (Cauchy and Schwarz) at

    a_b^2 = sqrt(c_b / s_b) * sum s / sum sqrt(c s),     where it is (sum_b sqrt(c_b s_b))^2 / sum_b s_b.

It is sum_b c_b, that of equal weights, exactly where c_b is proportional to s_b. The argument is that of the optimal allocation
of a sample to strata (Neyman 1934).

Limits: the expectation may be wrong, and then an update of another profile is longer or shorter than it was before the clip. That
costs accuracy, never privacy.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from rbla_secure.errors import PrivacyError


def expected_signal(ranges: Iterable[tuple[int, int]], decay: float) -> tuple[float, ...]:
    """By band, the sum over its rows r, counted from 1, of r^-decay: the share of an update's squared norm in it.

    Args:
        ranges: By band, its first row from 0 and the row after its last.
        decay: 0 spreads an update evenly over the rows.
    """
    return tuple(math.fsum((row + 1.0) ** -decay for row in range(start, stop)) for start, stop in ranges)


def least_noise_weights(costs: Sequence[float], signals: Sequence[float]) -> tuple[float, ...]:
    """Return the weights above, rounded to float32 so that a machine's rounding of powers does not show.

    Args:
        costs: By band, c_b > 0.
        signals: By band, s_b > 0.

    Raises:
        PrivacyError: Some cost or signal is not a positive finite number, or there is none.
    """
    if not costs or len(costs) != len(signals):
        raise PrivacyError(
            f"{len(costs)} costs and {len(signals)} signals of bands must be as many, and some"
        )
    if not all(0 < value < math.inf for value in (*costs, *signals)):
        raise PrivacyError("costs and signals of bands must be positive finite numbers")
    together = math.fsum(math.sqrt(c * s) for c, s in zip(costs, signals, strict=True))
    scale = math.fsum(signals) / together
    return tuple(
        float(np.float32(math.sqrt(math.sqrt(c / s) * scale))) for c, s in zip(costs, signals, strict=True)
    )


def noise_energy(costs: Sequence[float], weights: Sequence[float]) -> float:
    """Sum of c_b / a_b^2: the expected squared norm of the noise in an average, per squared unit of z C."""
    return math.fsum(cost / weight**2 for cost, weight in zip(costs, weights, strict=True))
