"""Differential privacy of single examples: noise inside a client, on every step of its local training.

DP-SGD (Abadi et al. 2016, arXiv 1607.00133, Algorithm 1): each example of a client is in a step's batch with probability q,
independently and in secret; its gradient is clipped to C; the clipped gradients are added, noise of standard deviation
z C is added to the sum, and the result is divided. The divisor is a public number, not the expected batch size q n that the
algorithm is written with: n is the client's own, and would tell whether an example is there. What leaves the client has
been through this, so masking, averaging and every later round are post-processing. Examples of different clients are
different examples: over clients the epsilons compose in parallel, and the largest one holds (McSherry 2009, Theorem 4).

**Integers from end to end.** A unit is C / 2^22. Each clipped gradient is rounded to units before it is added, which
lengthens it by at most sqrt(d) / 2 units, so that one example moves the exact integer sum by at most

    D = 2^22 + sqrt(d) / 2

and noise N_Z(0, (z D)^2 + s^2) makes each step post-processing of a continuous Gaussian mechanism of multiplier z, up to a
factor of its probabilities and up to the sampler's error (both in noise/, which s belongs to). Both are counted as for
`MOST_VALUES` coordinates a step, which is next to nothing and needs no model. Batches have the same law whether noise is drawn
or ideal, so mixing over them keeps the factor and the distance. No floating-point addition stands between the
gradients and the noise, so the attacks on those do not apply (Mironov 2012). That D bounds what one example moves takes
more: the gradient of every *other* example must be the same to the bit with and without it (sample_level.py).
"""

import math
from dataclasses import dataclass
from typing import final

from rbla_secure.errors import PrivacyError
from rbla_secure.privacy.discrete_gaussian import MAX_SIGMA, TOTAL_VARIATION
from rbla_secure.privacy.noise import SMOOTHING, SMOOTHING_SLACK

# Units in one clip norm: rounding costs 1.2e-4 of the noise at a million values.
UNITS = 2**22
# No client trains more values than this: their gradients would take eight terabytes.
MOST_VALUES = 2**40
_LEAST_STD = 4.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SampledGaussian:
    """The mechanism of a client's local training in one round.

    Args:
        noise_multiplier: z, the noise of a step over what one example can move its sum by.
        clip_norm: C, the L2 bound of one example's gradient, over all trained values.
        sample_rate: q, the probability of an example to be in a step's batch.
        steps: Steps of one round, 1 or more.

    Raises:
        PrivacyError: An argument is out of range.
    """

    noise_multiplier: float
    clip_norm: float
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        for name, value in (("noise_multiplier", self.noise_multiplier), ("clip_norm", self.clip_norm)):
            if not 0 < value < math.inf:
                raise PrivacyError(f"{name}={value} must be above 0 and finite")
        if not 0 < self.sample_rate <= 1:
            raise PrivacyError(f"sample_rate={self.sample_rate} must lie in (0, 1]")
        if self.steps < 1:
            raise PrivacyError(f"steps={self.steps} must be at least 1")
        if self.noise_multiplier * UNITS < _LEAST_STD:
            raise PrivacyError(
                f"noise_multiplier={self.noise_multiplier:g} must be >= {_LEAST_STD / UNITS:g}"
            )
        if self.noise_std(MOST_VALUES) > MAX_SIGMA:
            most = MAX_SIGMA / self.sensitivity(MOST_VALUES)
            raise PrivacyError(
                f"noise_multiplier={self.noise_multiplier:g} must be < {most:.6g}: noise beyond that is not drawn"
            )

    @property
    def unit(self) -> float:
        """The size of one integer unit, in the units of a gradient."""
        return self.clip_norm / UNITS

    @property
    def slack(self) -> float:
        """Slack of a round's steps together, defined as for a release (noise/)."""
        return self.steps * MOST_VALUES * SMOOTHING_SLACK

    @property
    def total_variation(self) -> float:
        """Total variation distance of a round's steps together, defined as for a release (noise/)."""
        return self.steps * MOST_VALUES * TOTAL_VARIATION

    def sensitivity(self, dimension: int) -> float:
        """Return how far, in L2, one example added, removed or zeroed can move an integer sum of `dimension` values.

        Raises:
            PrivacyError: There are more values than `MOST_VALUES`, for which nothing is counted.
        """
        if dimension > MOST_VALUES:
            raise PrivacyError(f"dimension={dimension} trained values must be <= {MOST_VALUES}")
        return UNITS + math.sqrt(dimension) / 2

    def noise_std(self, dimension: int) -> float:
        """Standard deviation of the noise on each integer of the sum."""
        return math.hypot(self.noise_multiplier * self.sensitivity(dimension), SMOOTHING)
