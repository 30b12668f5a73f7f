"""The noise of one band, share by share: what an uploader adds, what of it stays, and how close its sum is to a Gaussian.

S is the target variance of a sum, n the band's uploaders, and m the shares that are counted on: with c clients whose noise
the observer may know, m = n - c, less the drop-outs that are provided for in advance. Without recovery every uploader
adds N_Z(0, S / m), and who is missing takes its share along.

**Add, then remove** (XNoise: Dordis, EuroSys 2024). To make good T drop-outs exactly, an uploader adds 1 + T independent
components:

    component 0            of variance  S / m
    component k = 1..T     of variance  S / ((m - k + 1) (m - k)) = S / (m - k) - S / (m - k + 1)

so that components 0..k have S / (m - k) together. Component k > 0 grows from a secret of its own that is shared among
the clients. Once it is settled that D uploaders are missing, the secrets of all survivors' components k > D are revealed;
the server makes the same integers anew and subtracts them.

*What stays.* With D <= T, each of the n - D survivors keeps S / (m - D). At most c of the survivors are known to the
observer, so it does not know at least n - D - c = m - D of them, which have S together: exactly S if all colluders are among
the survivors, more if colluders are among the missing. With D > T nothing is removed, and the unknown survivors keep
S (n - D - c) / (m - T), less than S: what :meth:`BandShares.kept` counts.

*What removal costs: nothing.* Let X be the sum with the components that stay, R = R(seeds) those that are removed. The
observer sees X + R and the seeds. (x, seeds) -> (x + R(seeds), seeds) can be undone, and the seeds are independent of X, so
its view is X and independent randomness: the analysis is that of X. It needs D to be settled before anything of X shows,
and the seeds of components k <= D to stay hidden; both are the secure sum's part.

**From many components to one Gaussian.** Let A and B be variances and N_Z(0, A), N_Z(0, B) independent. In
P[X + Y = x] = sum_y exp(-y^2 / 2A - (x - y)^2 / 2B) / (Z_A Z_B) complete the square: the exponent is -x^2 / (2 (A + B)) -
(y - mu)^2 / (2 v) with v = A B / (A + B), mu = x A / (A + B). By Poisson summation sum_y exp(-(y - mu)^2 / (2 v)) lies in
sqrt(2 pi v) (1 +- e) for every mu, e = 2 sum_{k >= 1} q^(k^2), q = exp(-2 pi^2 v). After normalising, P[X + Y = x] is within
a factor (1 + e) / (1 - e) of N_Z(0, A + B), and the logarithm of that is below 10 q for q <= 1/10. Add N components one by one,
none with a variance below a: each step convolves both laws of the step before with the same N_Z(0, B), which keeps the
factor between them, and adds one with v >= min(A, B) / 2 >= a / 2. So the sum is within e^tau of a discrete Gaussian,
tau = 10 (N - 1) exp(-pi^2 a). For equal variances this is Theorem 1 of Kairouz, Liu, Steinke 2021 (arXiv 2102.06387) with
every term as large as its largest; the argument is Peikert's (2010, section 3) with explicit constants.
"""

import math
from dataclasses import dataclass
from typing import final

from rbla_secure.errors import PrivacyError

# Smallest standard deviation of one component in integer units: exp(-pi^2 a) < 3e-69 (at 0.5 it is useless).
MIN_SHARE = 4.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BandShares:
    """The numbers of one band that determine its noise.

    Args:
        length: Coordinates that one share covers: all of the band's.
        uploaders: n, clients of the cohort that upload the band: its holders, or where uploads are padded everyone.
        counted: m, how many of their shares make up the target.
        recovered: T, how many missing uploaders are made good by noise that is removed where it is not needed.

    Raises:
        PrivacyError: Nobody's noise would be left.
    """

    length: int
    uploaders: int
    counted: int
    recovered: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.counted <= self.uploaders:
            raise PrivacyError(
                f"{self.counted} counted noise shares must lie in 1..{self.uploaders}, the uploaders of a band: "
                "fewer colluders, fewer expected drop-outs or more holders are needed"
            )
        if not 0 <= self.recovered < self.counted:
            raise PrivacyError(
                f"recovered={self.recovered} drop-outs must lie in 0..{self.counted - 1}: "
                f"one of {self.counted} counted noise shares has to be there"
            )

    @property
    def divisors(self) -> tuple[int, ...]:
        """By component of one share, the divisor of the target variance: m, then (m - k + 1) (m - k) for k = 1..T.

        The reciprocals of the first 1 + k add up to 1 / (m - k).
        """
        m = self.counted
        return (m, *((m - k + 1) * (m - k) for k in range(1, self.recovered + 1)))

    def kept(self, missing: int) -> tuple[int, ...]:
        """The divisors of the components that stay in the sum, of everyone in it, when so many uploaders are missing."""
        return self.divisors[: 1 + missing]


def convolution_slack(components: int, least: float) -> float:
    """tau: the logarithm of the ratio of probabilities between a sum of discrete Gaussians and a discrete Gaussian.

    Args:
        components: N, how many are summed.
        least: The smallest of their standard deviations, in integer units, at least 1/2.
    """
    return 10 * max(0, components - 1) * math.exp(-(math.pi**2) * least**2)
