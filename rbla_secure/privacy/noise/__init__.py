"""The Gaussian mechanisms of client level, one file each, as records in which clip, rounding, weight, noise and capacity agree.

One client's integers have an L2 norm of at most D = `sensitivity()`, whatever its rank: zero padding keeps the norm,
and weights are at most 1. Noise of total variance sigma^2 = (z D)^2 is added to *every* coordinate of the sum of every
band, before anything is divided. With public denominators the division afterwards is post-processing.

    central Gaussian              the server adds N_Z(0, sigma^2) to the opened sum           (it is trusted),
                                  or to a combination of several rounds' sums (banded_matrix.py)
    distributed discrete Gaussian each uploader of band j adds N_Z(0, sigma^2 / m_j)          (the default)

m_j counts the shares that must be there for the claim: the band's uploaders less the expected drop-outs and colluders.
A band with more shares has smaller ones, so that rows of few holders are not noised less: each share is scaled to the
public number of uploaders of its band. A share may have components that are taken out again where fewer drop out than it
makes good; what such a share is, what of it stays, and tau below: `shares.py`.

**From integers to a Gaussian.** Let s = `SMOOTHING`, eta = 2 exp(-2 pi^2 s^2) (1 + 1e-9). Draw Y from the continuous
N(mu, V - s^2), then X on the integers with probability proportional to exp(-(X - Y)^2 / (2 s^2)). By Poisson summation
the normalising sum is sqrt(2 pi) s (1 +- eta) for every Y, and that of N_Z(mu, V) is sqrt(2 pi V) (1 +- eta), as V >= s^2. So
for *every* integer x, however far out, P[X = x] is the density of N(mu, V) at x up to a factor 1 / (1 +- eta), and within a factor
e^(3 eta) of N_Z(mu, V) (the convolution argument of Peikert 2010, section 3, with explicit constants). The sum of all
components that stay and that the observer does not know is within e^tau of N_Z(0, V), V the sum of their variances, again on
every integer (`shares.py`). Hence each release of ideal draws is, up to a factor e^(+-slack) of its probabilities,
post-processing of a continuous Gaussian mechanism of variance V - s^2: its epsilon is the exact Gaussian one plus 2 slack.

**From ideal draws to drawn ones.** For a sampler of finite precision no such factor holds: in the far tail, and where it reaches
no integer at all, the ratio is unbounded. What holds is a total variation distance per draw (`discrete_gaussian.py`), which
goes into delta and not into epsilon (`accounting.py`). It counts for each draw that the observer does not know: components that
stay, on every coordinate, the count of adaptive clipping included. Components that are removed are known to the observer and
independent of the rest, so their law does not matter. Rounding to integers comes before the noise; only its bound matters.

To add a mechanism, write a file that defines a subclass of :class:`GaussianMechanism` and `KIND`, a :class:`NoiseKind`, and add its name
to `Mechanism` in rbla_secure/config/choices.py.
"""

from functools import cache

from rbla_secure.config.choices import Mechanism
from rbla_secure.implementations import implementation
from rbla_secure.privacy.noise.kind import NoiseKind
from rbla_secure.privacy.noise.mechanism import (
    NOTHING,
    SMOOTHING,
    SMOOTHING_SLACK,
    TAIL,
    CorrelatedNoise,
    GaussianMechanism,
    NoisePlace,
    Release,
)

__all__ = [
    "NOTHING",
    "SMOOTHING",
    "SMOOTHING_SLACK",
    "TAIL",
    "CorrelatedNoise",
    "GaussianMechanism",
    "NoiseKind",
    "NoisePlace",
    "Release",
    "noise_kind",
]


@cache
def noise_kind(name: Mechanism) -> NoiseKind:
    """Return the kind of the mechanism of this name, before the mechanism is built."""
    return implementation(__name__, name, "KIND", NoiseKind)  # type: ignore[type-abstract]  # any kind
