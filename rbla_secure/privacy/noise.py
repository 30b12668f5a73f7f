"""The two Gaussian mechanisms of client level, as records in which clip, rounding, weight, noise and capacity agree.

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
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self, final

from protocols.ring import capacity
from rbla_secure.config.choices import Adjacency
from rbla_secure.errors import PrivacyError
from rbla_secure.privacy.banded_matrix import INDEPENDENT, column_norm, step_growth
from rbla_secure.privacy.clipping import rounded_norm
from rbla_secure.privacy.discrete_gaussian import MAX_SIGMA, TOTAL_VARIATION
from rbla_secure.privacy.quantize import Quantizer
from rbla_secure.privacy.shares import MIN_SHARE, BandShares, convolution_slack

# s of the argument above: with s = 2 each coordinate costs 3 eta < 4e-34.
SMOOTHING = 2.0
_ETA = 2 * math.exp(-2 * math.pi**2 * SMOOTHING**2) * (1 + 1e-9)
# By how much the smoothing of one coordinate can change the logarithm of a probability.
SMOOTHING_SLACK = 3 * _ETA
# Inputs have room for shares of so many standard deviations, P < 2e-23 per draw beyond. Such a sum is wrong, and claims what any other
# does: it is taken modulo the ring, whatever the draws are, and that is post-processing.
TAIL = 10.0
MAX_BITS, MIN_BITS = 32, 2


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What one opened sum (all its bands together) spends of a client's privacy.

    Args:
        noise_multiplier: Of the continuous Gaussian mechanism that the release post-processes; 0 spends everything.
        slack: Bound on the logarithm of the ratio of probabilities between the release and that post-processing, if all
            draws had the law that is claimed for them.
        rho: The same release as zero-concentrated differential privacy, xi + rho alpha (Kairouz et al., Theorem 1);
            infinite without noise.
        total_variation: Bound on the distance between the release and the one of such ideal draws, whatever the data are.
        sample_rate: Probability with which a client is in the sum, by a secret draw of its own; 1 where it is known who is.
    """

    noise_multiplier: float
    slack: float
    rho: float
    total_variation: float = 0.0
    sample_rate: float = 1.0


NOTHING = Release(noise_multiplier=math.inf, slack=0.0, rho=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianMechanism(ABC):
    """What both mechanisms have in common.

    Args:
        quantizer: The grid of every client.
        clip_norm: C, the L2 bound of one whole update, in the units of the update.
        dimension: Values of the longest update: those of a client of the largest rank.
        noise_multiplier: z, the target: total standard deviation over sensitivity.
        bands: Every band of the plan, by index.
        members: Clients of a cohort.
        count_noise: sigma_b, the standard deviation of the noisy count of unclipped clients that adaptive clipping
            reads; 0 where nothing is counted. The count is one more coordinate of band 0.
        bands_alone: Whether each band is clipped and rounded alone, to its part of the clip norm, instead of all together.

    Raises:
        PrivacyError: The parts contradict each other.
    """

    # Whether the server adds all of it to opened sums, and is trusted with them; if not, every uploader a share to its integers.
    by_server: ClassVar[bool]

    quantizer: Quantizer
    clip_norm: float
    dimension: int
    noise_multiplier: float
    bands: tuple[BandShares, ...]
    members: int
    count_noise: float = 0.0
    bands_alone: bool = False

    def __post_init__(self) -> None:
        for name, value in (("clip_norm", self.clip_norm), ("noise_multiplier", self.noise_multiplier)):
            if not 0 < value < math.inf:
                raise PrivacyError(f"{name}={value} must be above 0 and finite")
        if self.count_noise and self.bands_alone:
            raise PrivacyError(
                "count_noise must be 0 with bands_alone: whoever clips bands alone counts nothing"
            )
        if self.count_noise and not self.noise_multiplier < self.count_noise:
            raise PrivacyError(
                f"noise-multiplier={self.noise_multiplier:g} must be below {self.count_noise:g}, the noise of the count of "
                "adaptive clipping: raise privacy.count-noise or the cohort"
            )
        self._check()
        self._check_range()

    def _check_range(self) -> None:
        """Refuse noise that cannot be drawn: it would show when the sums are open and clients have answered."""
        largest = max(std for band in range(len(self.bands)) for std in self.component_stds(band))
        if not largest <= MAX_SIGMA:
            raise PrivacyError(
                f"noise of {largest:.3g} integer units at clip norm {self.clip_norm:g} must be <= {MAX_SIGMA:.3g}, the most that "
                "is drawn: lower quantization.bits, noise-multiplier or clip-norm (privacy.max-clip where it is adaptive)"
            )

    @abstractmethod
    def _check(self) -> None:
        """Refuse noise that does not fit the integers."""

    @property
    def column(self) -> tuple[int, ...]:
        """Of the matrix that combines the sums of rounds before noise is added (banded_matrix.py); 1 alone combines none."""
        return INDEPENDENT

    @property
    @abstractmethod
    def input_bound(self) -> int:
        """The largest magnitude of one client's integer, its own noise included but for 10 standard deviations and more."""

    @property
    def _update_bound(self) -> float:
        lengths = [band.length for band in self.bands] if self.bands_alone else [self.dimension]
        return rounded_norm(self.quantizer, self.clip_norm, lengths)

    @property
    def count_unit(self) -> int:
        """The integer that a client adds to the count if its update was not clipped, or subtracts if it was.

        Chosen so that noise of the same standard deviation as everywhere else is `count_noise` on the count.
        """
        if not self.count_noise:
            return 0
        # Half of 1 / sqrt(1/z^2 - 1/sigma_b^2) over sigma_b, in which no square of a small z vanishes.
        ratio = self.noise_multiplier / self.count_noise
        return max(1, math.floor(self._update_bound * ratio / (2 * math.sqrt((1 - ratio) * (1 + ratio)))))

    def sensitivity(self, relation: Adjacency) -> float:
        """The L2 distance that one client's integers can move the sum, in integer units.

        Zero-out and add-or-remove give the same: the client's whole contribution. Its vote counts twice: a change that was
        clipped votes against what a change of zeros votes for. Raises PrivacyError where the mechanism cannot claim the
        relation.
        """
        self._check_relation(relation)
        return math.hypot(self._update_bound, 2 * self.count_unit)

    @abstractmethod
    def _check_relation(self, relation: Adjacency) -> None:
        """Refuse an adjacency that the mechanism does not satisfy."""

    def variance(self) -> float:
        """The target variance of one coordinate of an opened sum, in squared integer units: (z D)^2."""
        return (self.noise_multiplier * self.sensitivity(Adjacency.ZERO_OUT)) ** 2

    @abstractmethod
    def component_stds(self, band: int) -> tuple[float, ...]:
        """Standard deviations of the noise that one party adds to one coordinate of a band, in integer units.

        The first is of the component that is never removed, from a key that the party shares with nobody.
        """

    def released_std(self, band: int, rounds: int) -> float:
        """Standard deviation of a server's noise in one released coordinate after so many rounds at most, in integer units."""
        return self.component_stds(band)[0] * step_growth(self.column, rounds) / self.column[0]

    def share_std(self, band: int) -> float:
        """Standard deviation of all that one party adds to one coordinate of a band, in integer units."""
        return math.hypot(*self.component_stds(band))

    @abstractmethod
    def event(self, present: Mapping[int, int], *, known: int = 0) -> Release:
        """What a release spends whose bands were opened over so many uploaders.

        The least-noised of the bands decides: sum_j |x_j|^2 / V_j <= D^2 / min_j V_j.

        Args:
            present: By index of an opened band. Without an opened band nothing is spent.
            known: How many of the uploaders of each band the observer may know the noise of.
        """

    def _release(self, variance: float, *, slack: float, draws: int) -> Release:
        """What noise of a variance spends that was drawn in so many parts which the observer does not know."""
        sensitivity = self.sensitivity(Adjacency.ZERO_OUT)
        smooth = variance - SMOOTHING**2
        multiplier = math.sqrt(smooth) / sensitivity if smooth > 0 else 0.0
        return Release(
            noise_multiplier=multiplier,
            slack=slack,
            rho=sensitivity**2 / (2 * variance) if multiplier else math.inf,
            total_variation=draws * TOTAL_VARIATION,
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CentralGaussian(GaussianMechanism):
    """The server, which is trusted with the sums, adds all of the noise.

    Args:
        column: Of the matrix that combines the sums of rounds before noise is added (banded_matrix.py); 1 alone is
            independent noise in every round.
    """

    by_server: ClassVar[bool] = True

    column: tuple[int, ...] = INDEPENDENT

    @property
    def input_bound(self) -> int:
        """Values and the vote; noise comes after the sum."""
        return max(self.quantizer.levels, self.count_unit)

    def _check(self) -> None:
        if (std := math.sqrt(self.variance())) < MIN_SHARE:
            raise PrivacyError(
                f"noise of {std:.3g} integer units must be >= {MIN_SHARE:g}: raise quantization.bits"
            )

    def _check_relation(self, relation: Adjacency) -> None:
        """Both hold: with fixed denominators and every row noised, absence and a contribution of zero look alike."""

    def component_stds(self, band: int) -> tuple[float, ...]:  # noqa: ARG002
        """The whole of it at once, in every band, in units of the combined sums."""
        return (column_norm(self.column) * math.sqrt(self.variance()),)

    def event(self, present: Mapping[int, int], *, known: int = 0) -> Release:  # noqa: ARG002
        """The same in every band that was opened, whoever is in it: one client's whole column of the matrix."""
        if not present:
            return NOTHING
        draws = len(self.column) * sum(self.bands[index].length for index in present)
        return self._release(self.variance(), slack=draws * SMOOTHING_SLACK, draws=draws)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DistributedDiscreteGaussian(GaussianMechanism):
    """Every uploader of a band adds its share; nobody sees less noise than the sum of the shares it does not know.

    Args:
        ring_bits: Of the secure sum.
    """

    by_server: ClassVar[bool] = False

    ring_bits: int = 32

    def _check(self) -> None:
        if self.members * self.input_bound > capacity(1, bits=self.ring_bits):
            raise PrivacyError(
                f"{self.members} inputs of up to {self.input_bound} with their noise take more than half of the "
                f"{self.ring_bits}-bit ring"
            )
        if (least := min(min(self.component_stds(band)) for band in range(len(self.bands)))) < MIN_SHARE:
            parted = any(band.recovered for band in self.bands)
            raise PrivacyError(
                f"a {'component of a ' if parted else ''}noise share of {least:.3g} integer units must be >= {MIN_SHARE:g}: "
                "a larger quantization.ring-bits, noise-multiplier or clip-norm"
                f"{' or a smaller privacy.recovered-dropout' if parted else ''} is needed"
            )

    @classmethod
    def fitting(
        cls,
        *,
        bound: float,
        clip_norm: float,
        dimension: int,
        noise_multiplier: float,
        bands: tuple[BandShares, ...],
        members: int,
        ring_bits: int,
        count_noise: float = 0.0,
        bands_alone: bool = False,
    ) -> Self:
        """The mechanism on the finest grid whose sums stay within half of the ring.

        A client's integer is at most levels + 10 share standard deviations, and n of those stay below a quarter of the
        modulus; n * levels + 10 sigma is less than that.

        Raises:
            PrivacyError: No grid leaves shares of at least four units.
        """
        for bits in range(MAX_BITS, MIN_BITS - 1, -1):
            try:
                return cls(
                    quantizer=Quantizer(bits=bits, bound=bound),
                    clip_norm=clip_norm,
                    dimension=dimension,
                    noise_multiplier=noise_multiplier,
                    bands=bands,
                    members=members,
                    ring_bits=ring_bits,
                    count_noise=count_noise,
                    bands_alone=bands_alone,
                )
            except PrivacyError as error:
                reason = error
        raise PrivacyError(
            f"no grid of {MIN_BITS} to {MAX_BITS} bits has room for {members} clients and their noise: {reason}"
        )

    @property
    def input_bound(self) -> int:
        """The largest magnitude of one client's integer, noise included."""
        largest = max(self.share_std(band) for band in range(len(self.bands)))
        return max(self.quantizer.levels, self.count_unit) + math.ceil(TAIL * largest)

    def _check_relation(self, relation: Adjacency) -> None:
        if relation is not Adjacency.ZERO_OUT:
            raise PrivacyError(
                "adjacency add-or-remove cannot be claimed of distributed noise: a client that is absent takes its "
                "share of the noise along, and the variance of many coordinates shows it"
            )

    def component_stds(self, band: int) -> tuple[float, ...]:
        """Those of one client's share: sqrt(variance / divisor)."""
        variance = self.variance()
        return tuple(math.sqrt(variance / divisor) for divisor in self.bands[band].divisors)

    def event(self, present: Mapping[int, int], *, known: int = 0) -> Release:
        """What stays of the shares that the observer does not know, in the band where it is least."""
        if not present:
            return NOTHING
        target, variances, slack, draws = self.variance(), [], 0.0, 0
        for index, count in present.items():
            band, unknown = self.bands[index], max(0, count - known)
            kept = [target / divisor for divisor in band.kept(max(0, band.uploaders - count))]
            components = unknown * len(kept)
            variances.append(unknown * math.fsum(kept))
            slack += band.length * (convolution_slack(components, math.sqrt(min(kept))) + SMOOTHING_SLACK)
            draws += band.length * components
        return self._release(min(variances), slack=slack, draws=draws)
