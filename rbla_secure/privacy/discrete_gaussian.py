"""Discrete Gaussian integers from a stream of uniform words: Canonne, Kamath, Steinke 2020 (arXiv 2004.00010), vectorised.

N_Z(0, sigma^2) puts mass proportional to exp(-x^2 / (2 sigma^2)) on every integer x. As in Algorithm 3 of the paper, a
proposal y of discrete Laplace law with scale t is accepted with probability exp(-(|y| - sigma^2/t)^2 / (2 sigma^2)),
which is right for every t. Here t is the power of two next to sigma, so that a proposal y = +-(u + t v) takes the low
bits of a word for u, and one acceptance covers both the proposal's own exp(-u/t) and the Gaussian factor.

What is not exact, and is accounted for (`SAMPLER_ERROR` in noise.py): acceptance compares a 64-bit word with an
exponential in float64, a relative error below 2^-45 per draw; v stops at 44, which cuts off a mass below 2^-63. Timing
depends on the values drawn; whoever can time the sampler learns something of the noise.
"""

import math

import numpy as np
import numpy.typing as npt

from protocols.primitives.prg import UniformStream
from protocols.ring import IntegerVector
from rbla_secure.errors import PrivacyError

# The sign takes the 32nd bit of the word that holds u.
MAX_SIGMA = 2.0**30
_WORD = 2.0**-64
_SIGN_BIT = 31
# v = the number of thresholds above a 64-bit word: P[v >= k] = exp(-k), to 2^-64.
_THRESHOLDS = np.array([math.floor(math.exp(-k) * 2.0**64) for k in range(44, 0, -1)], dtype=np.uint64)
# Proposals at a time: their arrays stay in the cache.
_CHUNK = 2**15
# A little less than the smallest share of proposals that is accepted, which is at t = sigma / sqrt(2).
_ACCEPTED = 0.38


def discrete_gaussian(sigma: float, count: int, stream: UniformStream) -> IntegerVector:
    """So many independent draws of N_Z(0, sigma^2). Run by whoever adds noise.

    Args:
        sigma: In integer units, above 0 and at most 2^30.
        count: How many; 0 gives none.
        stream: Where all randomness comes from. The same stream gives the same draws.

    Raises:
        PrivacyError: `sigma` is out of range.
    """
    if not 0 < sigma <= MAX_SIGMA:
        raise PrivacyError(f"sigma={sigma} must lie in (0, 2**30]")
    drawn = np.empty(count, dtype=np.int64)
    at = 0
    while at < count:
        wanted = min(_CHUNK, math.ceil((count - at) / _ACCEPTED) + 32)
        accepted = _accepted(sigma, wanted, stream)[: count - at]
        drawn[at : at + len(accepted)] = accepted
        at += len(accepted)
    return drawn


def _accepted(sigma: float, proposals: int, stream: UniformStream) -> IntegerVector:
    """The accepted ones of so many proposals."""
    bits = max(0, round(math.log2(sigma)))
    scale = 1 << bits
    low = stream.words(proposals)
    fraction = (low & np.uint32(scale - 1)).astype(np.int64)
    whole = _geometric(_long_words(stream, proposals))
    magnitude = fraction + (whole << bits)
    exponent = fraction / scale + (magnitude - sigma * sigma / scale) ** 2 / (2 * sigma * sigma)
    accept = _long_words(stream, proposals) * _WORD < np.exp(-exponent)
    negative = (low >> np.uint32(_SIGN_BIT)).astype(np.bool_)
    accept &= ~(negative & (magnitude == 0))  # zero has one sign, or it would come twice
    signed = np.where(negative, -magnitude, magnitude)
    return signed[accept]


def _geometric(words: npt.NDArray[np.uint64]) -> IntegerVector:
    """P[v] = exp(-v) (1 - 1/e)."""
    return len(_THRESHOLDS) - np.searchsorted(_THRESHOLDS, words, side="right").astype(np.int64)


def _long_words(stream: UniformStream, count: int) -> npt.NDArray[np.uint64]:
    return stream.words(2 * count).view("<u8")
