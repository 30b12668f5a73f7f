"""Discrete Gaussian integers from a stream of uniform words: Canonne, Kamath, Steinke 2020 (arXiv 2004.00010), vectorised.

N_Z(0, sigma^2) puts mass proportional to exp(-x^2 / (2 sigma^2)) on every integer x. As in Algorithm 3 of the paper, a
proposal y of discrete Laplace law with scale t is accepted with probability exp(-(|y| - sigma^2/t)^2 / (2 sigma^2)),
which is right for every t. Here t is the power of two next to sigma, so that a proposal y = +-(u + t v) takes the low
bits of a word for u, and one acceptance covers both the proposal's own exp(-u/t) and the Gaussian factor.

**Two comparisons, both exact.** v is the number of k >= 1 with U < exp(-k), and a proposal is accepted if U' < exp(-x), for
the rational x = u/t + (u + t v - sigma^2/t)^2 / (2 sigma^2), with U and U' uniform in [0, 1). The first 64 bits of U and U' decide
but for a few words; then the bound is computed to `_DIGITS` decimal digits, and further bits are drawn where the first ones
are exactly those of the bound: up to `_MOST_BITS`. So neither the draws nor the words that they take depend on the
machine's exponential.

*Which words.* Those of U that equal floor(2^64 exp(-k)) for some k, zero included. For U' floating point narrows them down. With
relative errors of 2^-53 in every operation, that of x is below 2^-53 (6 x + 2 sqrt(x)), which makes the error of exp(-x)
less than 3 * 2^-53. The exponential itself is taken to be within 16 units in its last place, 2^-48 (numpy's and those of
the C libraries stay within one; a test compares), and a word becomes a float to 2^-54. Together that is below 1.2 * 2^-48. So
where word and bound, of 2^64, are more than `_NEAR` = 2^17 apart, which is 2^-47 and more than that error, the floats have
the right order. Closer are 2^18 words of 2^64.

**Total variation.** Let the same uniform numbers, without end, feed this sampler and the exact one. A comparison comes out
otherwise only if U is between the bound and its computed value, which are within 10^-310, or if all `_MOST_BITS` bits are those
of the bound: with probability below 2^-959. A proposal makes one for each k up to 665; beyond, at k = 666, U would be below
2^-960; and one for the acceptance: in all below 667 * 2^-959. The exact sampler takes as many proposals as the
inverse of the accepted share a, on average, and each is reached independently of what is drawn in it, so that one draw differs
with a probability below 667 * 2^-959 / a (Wald). With r = sigma/t and theta = sum over x of exp(-x^2 / (2 sigma^2)),

    a = (1 - 1/e) / (2 t) exp(-r^2 / 2) theta.

For sigma >= 1/sqrt(2), r is in [1/sqrt(2), sqrt(2)] up to a rounding error, theta >= sqrt(2 pi) sigma (Poisson summation),
and a > 0.4; for smaller sigma t = 1, theta >= 1, and a > 0.316 exp(-1/4) > 0.2. So any number n of draws, one
after the other, has a joint law within n `TOTAL_VARIATION` of n independent N_Z(0, sigma^2), and `TOTAL_VARIATION` >
5 * 667 * 2^-959. (The law that is claimed is that of uniform words. Words of AES in counter mode are pseudo-random: nobody
tells them from uniform ones in feasible time, if AES is what it is taken for.)

Timing depends on the values drawn; whoever can time the sampler learns something of the noise.
"""

import math
from decimal import Context, Decimal
from fractions import Fraction
from typing import Final, final

import numpy as np
import numpy.typing as npt

from protocols.primitives.prg import UniformStream
from protocols.ring import IntegerVector
from rbla_secure.errors import PrivacyError

# The sign takes the 32nd bit of the word that holds u.
MAX_SIGMA: Final = 2.0**30
# Far below every noise that is used; from here on no square leaves the range of floats.
MIN_SIGMA: Final = 2.0**-20
# Between the law of one draw and N_Z(0, sigma^2): the bound of the docstring.
TOTAL_VARIATION: Final = 2.0**-947

_SIGN_BIT = 31
_WORD_BITS: Final = 64
# Fifteen words. The bound is an ordinary float: it can be multiplied by draws and by exp(epsilon).
_MOST_BITS: Final = 15 * _WORD_BITS
# 289 of them are 2^960.
_DIGITS: Final = 320
_EXACT: Final = Context(prec=_DIGITS)
# Of 2^64: closer than this, an acceptance is decided exactly.
_NEAR: Final = 2.0**17
# Proposals at a time: their arrays stay in the cache.
_CHUNK = 2**15
# A little less than the smallest share of proposals that is accepted for sigma >= 1/sqrt(2), which is at t = sigma / sqrt(2).
_ACCEPTED = 0.38


def _bound(exponent: Fraction) -> Decimal:
    """exp(-exponent), to a relative error below 10^-310."""
    quotient = _EXACT.divide(Decimal(-exponent.numerator), Decimal(exponent.denominator))
    return _EXACT.exp(quotient)


def _leading(bound: Decimal, bits: int) -> int:
    """The first bits of a number in [0, 1], as an integer; 2^bits for 1."""
    return int(_EXACT.multiply(bound, Decimal(1 << bits)))


def _edges() -> npt.NDArray[np.uint64]:
    """Return, by falling k, the first 64 bits of exp(-k) unless they are all 0; one 0 first for all larger k."""
    inverse = _bound(Fraction(1))
    return np.array(
        [0, *(_leading(_EXACT.power(inverse, k), _WORD_BITS) for k in range(44, 0, -1))], dtype=np.uint64
    )


_EDGES = _edges()
_THRESHOLDS = _EDGES[1:]


def discrete_gaussian(sigma: float, count: int, stream: UniformStream) -> IntegerVector:
    """Return `count` independent draws of N_Z(0, sigma^2), within `count * TOTAL_VARIATION`. Run by whoever adds noise.

    Args:
        sigma: In integer units, at least 2^-20 and at most 2^30.
        count: Number of draws; 0 gives none.
        stream: Where all randomness comes from. The same stream gives the same draws, on every machine.

    Raises:
        PrivacyError: `sigma` is out of range.
    """
    if not MIN_SIGMA <= sigma <= MAX_SIGMA:
        raise PrivacyError(f"sigma={sigma} must lie in [2**-20, 2**30]")
    drawn = np.empty(count, dtype=np.int64)
    at = 0
    while at < count:
        wanted = min(_CHUNK, math.ceil((count - at) / _ACCEPTED) + 32)
        accepted = _accepted(sigma, wanted, stream)[: count - at]
        drawn[at : at + len(accepted)] = accepted
        at += len(accepted)
    return drawn


def _accepted(sigma: float, proposals: int, stream: UniformStream) -> IntegerVector:
    """Return the accepted ones of `proposals` proposals."""
    bits = max(0, round(math.log2(sigma)))
    scale = 1 << bits
    low = stream.words(proposals)
    fraction = (low & np.uint32(scale - 1)).astype(np.int64)
    magnitude = fraction + (_geometric(_long_words(stream, proposals), stream) << bits)
    words = _long_words(stream, proposals)
    bound = _floating_bound(sigma, scale, fraction, magnitude)
    above = np.subtract(words, bound, out=bound)
    accept = above < 0
    if np.abs(above, out=above).min() <= _NEAR:
        for at in np.flatnonzero(above <= _NEAR):
            exact = _exponent(sigma, scale, int(fraction[at]), int(magnitude[at]))
            accept[at] = _Uniform(int(words[at]), stream).below(exact)
    negative = (low >> np.uint32(_SIGN_BIT)).astype(np.bool_)
    accept &= ~(negative & (magnitude == 0))  # zero has one sign, or it would come twice
    signed = np.where(negative, -magnitude, magnitude)
    return signed[accept]


def _floating_bound(
    sigma: float, scale: int, fraction: IntegerVector, magnitude: IntegerVector
) -> npt.NDArray[np.float64]:
    """2^64 exp(-x), by rounded operations. In one array: it stays in the cache."""
    exponent = magnitude - sigma * sigma / scale
    exponent *= exponent
    exponent /= -2 * sigma * sigma
    exponent -= fraction / scale
    bound: npt.NDArray[np.float64] = np.exp(exponent, out=exponent)
    bound *= 2.0**_WORD_BITS
    return bound


def _geometric(words: npt.NDArray[np.uint64], stream: UniformStream) -> IntegerVector:
    """P[v] = exp(-v) (1 - 1/e), from the first words of U; more are drawn where those do not decide."""
    reached = np.searchsorted(_THRESHOLDS, words, side="right")
    drawn = len(_THRESHOLDS) - reached.astype(np.int64)
    undecided = _EDGES[reached] == words
    if undecided.any():
        for at in np.flatnonzero(undecided):
            uniform = _Uniform(int(words[at]), stream)
            while uniform.below(Fraction(int(drawn[at]) + 1)):
                drawn[at] += 1
    return drawn


def _exponent(sigma: float, scale: int, fraction: int, magnitude: int) -> Fraction:
    """Return the exact exponent x of the acceptance."""
    variance = Fraction(sigma) ** 2
    return Fraction(fraction, scale) + (magnitude - variance / scale) ** 2 / (2 * variance)


@final
class _Uniform:
    """A number in [0, 1) whose bits are drawn as they are needed: the first word of it, and where the others come from."""

    def __init__(self, word: int, stream: UniformStream) -> None:
        self._leading = word
        self._bits = _WORD_BITS
        self._stream = stream

    def below(self, exponent: Fraction) -> bool:
        """Whether it is below exp(-exponent): decided by its first bits that are not those of the bound."""
        bound = _bound(exponent)
        while (edge := _leading(bound, self._bits)) == self._leading and self._bits < _MOST_BITS:
            self._leading = self._leading << _WORD_BITS | int(_long_words(self._stream, 1)[0])
            self._bits += _WORD_BITS
        return self._leading < edge


def _long_words(stream: UniformStream, count: int) -> npt.NDArray[np.uint64]:
    return stream.words(2 * count).view("<u8")
