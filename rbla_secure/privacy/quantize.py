"""Fixed point: real vectors become the integers that every secure sum adds, and sums become real again.

A coordinate in [-bound, bound] is scaled by (2^(bits-1) - 1) / bound and rounded to one of its two neighbours at
random, so that its expectation is exact; what exceeds the bound is cut off and counted. Without noise each band carries
statistics behind its values, in units of 1 / levels: where weights differ the client's weight, and always the share of
its coordinates that were cut off.

**Statistics are claims.** Behind masks nobody sees whose they are, so a modified client adds to their sum what it likes.
Where all weights are one there is therefore no weight to add: the denominator is the public count of surviving holders.
Where they differ, a sum that no honest weights add up to is refused (`federation/weight_claims.py`). The share cut off
decides nothing: it is a number for people, kept to [0, 1], and as true as the least honest client.

Stochastic rounding can lengthen a vector. Conditional rounding (Kairouz, Liu, Steinke 2021, arXiv 2102.06387,
Algorithm 1 and Proposition 22) draws again until the length of all values together is at most the bound of equation
`rounded_norm_bound`, which therefore is the sensitivity of one client's values. Statistics are not values: each of them
lies in [0, levels], and with them a client's integers are as long as `whole_norm_bound` at most. Where there is noise there
are none, and what noise is scaled to is the values' bound.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from protocols.primitives.prg import UniformStream
from protocols.ring import IntegerVector
from rbla_secure.lora.update import BandTotal, PackedUpdate, RealVector, l2_norm

# beta of Kairouz et al. 2021, section 5: a draw is accepted with probability at least 1 - beta.
_LOG_INVERSE_BETA = 0.5
# (1 - acceptance)^200 is below 2^-128 even at the smallest acceptance, 1 - exp(-1/2). After that rounding goes towards zero, which never
# lengthens: an error would depend on the values.
_MAX_DRAWS = 200
_WORD = 2.0**-32


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Quantizer:
    """The grid of a plan.

    Args:
        bits: Bits of one signed integer, from 2.
        bound: Largest magnitude of one coordinate, in the units of the update.
    """

    bits: int
    bound: float

    @property
    def levels(self) -> int:
        """The largest magnitude of one integer: 2^(bits-1) - 1."""
        return int(2 ** (self.bits - 1) - 1)

    @property
    def scale(self) -> float:
        """Integer units per unit of the update."""
        return self.levels / self.bound

    def round_weight(self, weight: float) -> float:
        """The nearest weight on the grid, so that weighted sums and weight sums agree; only zero becomes zero."""
        return self.weight_units(weight) / self.levels if weight else 0.0

    def weight_units(self, weight: float) -> int:
        """A positive weight in integer units, never zero."""
        return max(1, round(weight * self.levels))

    def whole_norm_bound(self, norm: float, dimension: int, *, statistics: int) -> float:
        """The L2 norm, in integer units, that a client's values and statistics together never exceed.

        With r the bound of the values and k statistics, each in [0, levels]: sqrt( r^2 + k levels^2 ).

        Args:
            norm: L2 norm of the values, in the units of the update.
            dimension: How many values, over all bands.
            statistics: k, over all bands of the client: :func:`statistics` for each.
        """
        return math.hypot(self.rounded_norm_bound(norm, dimension), math.sqrt(statistics) * self.levels)

    def rounded_norm_bound(self, norm: float, dimension: int) -> float:
        """The L2 norm, in integer units, that conditional rounding of a vector of this L2 norm never exceeds.

        With s the scale, C the norm, d the dimension and beta = exp(-1/2):
        min{ sC + sqrt(d), sqrt( s^2 C^2 + d/4 + sqrt(2 ln(1/beta)) (sC + sqrt(d)/2) ) }.
        """
        scaled, root = self.scale * norm, math.sqrt(dimension)
        spread = math.sqrt(2 * _LOG_INVERSE_BETA) * (scaled + root / 2)
        return min(scaled + root, math.sqrt(scaled**2 + dimension / 4 + spread))


def statistics(*, weighted: bool) -> int:
    """How many integers a band without noise carries behind its values: [weight,] share of coordinates cut off."""
    return 2 if weighted else 1


def quantize(
    update: PackedUpdate, quantizer: Quantizer, stream: UniformStream, *, weighted: bool = False
) -> dict[int, IntegerVector]:
    """The integers of a client's bands, statistics appended. Run by the client.

    Args:
        update: Weighted and cut into bands.
        quantizer: The plan's grid.
        stream: Randomness of the rounding: 32 bits a coordinate and draw.
        weighted: Whether the weight is among the statistics; without it every client's is one.

    Guarantees: the values of all bands together have an L2 norm of at most
    ``quantizer.rounded_norm_bound(update.norm_bound, dimension)``; every integer lies in [-levels, levels], and every
    statistic in [0, levels], so that all integers together have one of at most ``quantizer.whole_norm_bound``.
    """
    return {
        index: np.append(
            part, _statistics(update.bands[index], update.weight, quantizer)[0 if weighted else 1 :]
        )
        for index, part in quantize_values(update, quantizer, stream).items()
    }


def quantize_values(
    update: PackedUpdate, quantizer: Quantizer, stream: UniformStream
) -> dict[int, IntegerVector]:
    """The integers of a client's bands and nothing else: what leaves a client to be noised.

    Under differential privacy weights are public, and the share of cut-off coordinates, which depends on the data, is
    not released. Arguments and, of the values, guarantees as :func:`quantize`.
    """
    order = sorted(update.bands)
    values = np.concatenate([update.bands[index] for index in order])
    scaled = np.clip(values * quantizer.scale, -quantizer.levels, quantizer.levels)
    limit = quantizer.rounded_norm_bound(update.norm_bound, len(values))
    integers = _round(scaled, limit, stream)
    ends = np.cumsum([len(update.bands[index]) for index in order])
    return dict(zip(order, np.split(integers, ends[:-1]), strict=True))


def dequantize(
    sums: Mapping[int, IntegerVector], quantizer: Quantizer, *, holders: Mapping[int, int]
) -> dict[int, BandTotal]:
    """Totals per band from integer sums over clients of weight one. Run by the server.

    Nothing that a client sends is divided by: the weight of a band is its number of surviving holders, which is public.

    Args:
        sums: By band index: the sum of the holders' integers.
        quantizer: The plan's grid.
        holders: By band index: how many clients the sum covers.
    """
    return {
        index: BandTotal(
            weighted_sum=summed[:-1] / quantizer.scale,
            weight=float(holders[index]),
            cut_off=_share(summed, quantizer, holders[index]),
        )
        for index, summed in sums.items()
    }


def dequantize_weighted(
    sums: Mapping[int, IntegerVector], quantizer: Quantizer, *, holders: Mapping[int, int]
) -> dict[int, BandTotal]:
    """Totals per band from sums over clients of unequal weight. Run by the server.

    Arguments as :func:`dequantize`. Pre-condition: the sums of weights are among those that honest clients can claim
    (`federation/weight_claims.py`); here they are divided by.
    """
    return {
        index: BandTotal(
            weighted_sum=summed[:-2] / quantizer.scale,
            weight=float(summed[-2]) / quantizer.levels,
            cut_off=_share(summed, quantizer, holders[index]),
        )
        for index, summed in sums.items()
    }


def dequantize_public(
    sums: Mapping[int, IntegerVector | RealVector],
    quantizer: Quantizer,
    *,
    weights: Mapping[int, float],
) -> dict[int, BandTotal]:
    """Totals per band from sums without statistics; the denominators are public. Run by the server.

    Args:
        sums: By band index: the noisy sum.
        quantizer: The plan's grid.
        weights: By band index: the sum of the weights, known without looking at any data.
    """
    return {
        index: BandTotal(weighted_sum=summed / quantizer.scale, weight=weights[index], cut_off=None)
        for index, summed in sums.items()
    }


def _share(summed: IntegerVector, quantizer: Quantizer, holders: int) -> float:
    """The mean share of coordinates cut off, as claimed; outside [0, 1] if somebody made it up badly."""
    return float(summed[-1]) / quantizer.levels / holders


def _statistics(values: RealVector, weight: float, quantizer: Quantizer) -> list[int]:
    cut = np.abs(values) > quantizer.bound
    return [round(weight * quantizer.levels), round(cut.mean() * quantizer.levels)]


def _round(scaled: RealVector, limit: float, stream: UniformStream) -> IntegerVector:
    """Stochastic rounding, drawn again while the result is longer than `limit`, which is no less than the length of `scaled`."""
    floor = np.floor(scaled)
    fraction = scaled - floor
    for _ in range(_MAX_DRAWS):
        uniform = stream.words(len(scaled)).astype(np.float64) * _WORD
        rounded = floor + (uniform < fraction)
        if l2_norm(rounded) <= limit:
            return rounded.astype(np.int64)
    return np.trunc(scaled).astype(np.int64)
