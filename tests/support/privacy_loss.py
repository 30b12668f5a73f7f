"""An accountant of its own for sampled Gaussian steps: privacy loss distributions, convolved by FFT. Shares no code with ours.

A step draws an example with probability q and adds noise of standard deviation z to a sum that it moves by 1. Of

    P = (1 - q) N(0, z^2) + q N(1, z^2)   and   Q = N(0, z^2)

the loss log(dP/dQ) is cut into intervals, the mass of each is put on its upper or its lower end, and the distribution of the
sum of many is found by convolution (Koskela, Jalko and Honkela 2020, arXiv 1906.03049). The ends enclose the exact epsilon.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import signal, special

Array = npt.NDArray[np.float64]

# Mass that is cut off on either side, and counted against privacy on the upper one.
TAIL = 1e-15


@dataclass(frozen=True)
class Losses:
    """The distribution of a loss: mass at (first + i) x width, and at infinity."""

    first: int
    mass: Array
    infinite: float = 0.0

    def plus(self, other: "Losses") -> "Losses":
        """Of the sum of two independent losses."""
        mass = np.maximum(signal.fftconvolve(self.mass, other.mass), 0.0)
        infinite = 1 - (1 - self.infinite) * (1 - other.infinite)
        low = int(np.searchsorted(np.cumsum(mass), TAIL / 2))
        high = len(mass) - int(np.searchsorted(np.cumsum(mass[::-1]), TAIL / 2))
        kept = mass[low:high].copy()
        kept[0] += mass[:low].sum()
        return Losses(self.first + other.first + low, kept, infinite + float(mass[high:].sum()))

    def times(self, count: int) -> "Losses":
        """Of the sum of so many."""
        half = self.times(count // 2) if count > 1 else self
        if count == 1:
            return self
        return half.plus(half).plus(self) if count % 2 else half.plus(half)

    def epsilon(self, delta: float, width: float) -> float:
        """The smallest epsilon at this delta."""
        losses = (self.first + np.arange(len(self.mass))) * width

        def spent(epsilon: float) -> float:
            above = losses > epsilon
            return self.infinite + float((self.mass[above] * -np.expm1(epsilon - losses[above])).sum())

        low, high = 0.0, float(losses[-1])
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if spent(middle) > delta else (low, middle)
        return high


def _of_step(z: float, q: float, width: float, *, removed: bool, upper: bool) -> Losses:
    """Of one step, for an example that is removed (P against Q) or added (Q against P)."""
    reach = -float(special.ndtri(TAIL)) * z

    def loss(x: float) -> float:
        inner = math.log(q) + (2 * x - 1) / (2 * z * z)
        return float(np.logaddexp(math.log1p(-q) if q < 1 else -math.inf, inner))

    def place(losses: Array) -> Array:
        """Where P against Q has such a loss."""
        with np.errstate(divide="ignore"):
            return z * z * (np.log(np.maximum(np.expm1(losses) + q, 0.0)) - math.log(q)) + 0.5

    lowest, highest = loss(-reach), loss(1 + reach)
    ends = (lowest, highest) if removed else (-highest, -lowest)
    first, last = math.floor(ends[0] / width) - 1, math.ceil(ends[1] / width) + 1
    edges = np.arange(first, last + 1) * width
    x = place(edges if removed else -edges)
    if removed:
        below = (1 - q) * special.ndtr(x / z) + q * special.ndtr((x - 1) / z)
        above = (1 - q) * special.ndtr(-x / z) + q * special.ndtr((1 - x) / z)
    else:
        below, above = special.ndtr(-x / z), special.ndtr(x / z)
    mass = np.maximum(np.where(below[1:] < 0.5, np.diff(below), -np.diff(above)), 0.0)
    if upper:
        mass[0] += below[0]
        return Losses(first + 1, mass, float(above[-1]))
    mass[-1] += above[-1]
    return Losses(first, mass)


def epsilon(
    z: float, q: float, steps: int, delta: float, *, width: float = 1e-4, upper: bool = True
) -> float:
    """A bound on the epsilon of so many steps, from above or from below; the larger of adding and removing."""
    return max(
        _of_step(z, q, width, removed=removed, upper=upper).times(steps).epsilon(delta, width)
        for removed in (True, False)
    )
