"""The interface of noise mechanisms, and what they share."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, final

from protocols.primitives.prg import UniformStream
from protocols.ring import IntegerVector
from rbla_secure.config.choices import Adjacency
from rbla_secure.errors import PrivacyError
from rbla_secure.lora.update import RealVector
from rbla_secure.privacy.clipping import rounded_norm
from rbla_secure.privacy.discrete_gaussian import MAX_SIGMA, TOTAL_VARIATION, discrete_gaussian
from rbla_secure.privacy.quantize import Quantizer
from rbla_secure.privacy.shares import BandShares

# s of the argument above: with s = 2 each coordinate costs 3 eta < 4e-34.
SMOOTHING = 2.0
_ETA = 2 * math.exp(-2 * math.pi**2 * SMOOTHING**2) * (1 + 1e-9)
# By how much the smoothing of one coordinate can change the logarithm of a probability.
SMOOTHING_SLACK = 3 * _ETA
# Inputs have room for shares of so many standard deviations, P < 2e-23 per draw beyond. Such a sum is wrong, and claims what any other
# does: it is taken modulo the ring, whatever the draws are, and that is post-processing.
TAIL = 10.0
# The column of the matrix that combines sums of rounds before noise is added, where none are combined.
INDEPENDENT = (1,)
# By index of a band or a segment.
Integers = dict[int, IntegerVector]
Values = IntegerVector | RealVector


class NoisePlace(StrEnum):
    """The party that adds the noise, and with it the party that must be trusted.

    CLIENTS: Every client that uploads a band adds a share of its own to its integers.
    SERVER: The server adds all of it to opened sums, with which it is trusted.
    """

    CLIENTS = "clients"
    SERVER = "server"


class CorrelatedNoise(ABC):
    """A server's state between the rounds of one process, where noise is correlated over rounds."""

    @abstractmethod
    def add(
        self,
        sums: Mapping[int, IntegerVector],
        stds: Mapping[int, float],
        stream: UniformStream,
        *,
        round_number: int,
        clients: Collection[str],
    ) -> dict[int, RealVector]:
        """Add the noise of a round.

        Args:
            sums: By index of a band that opened, in integer units.
            stds: By the same indices, the standard deviation of the noise that is drawn.
            stream: Randomness of that noise.
            round_number: Larger than in the last call.
            clients: Clients whose inputs may be in the sums.

        Raises:
            PrivacyError: The claim would not cover this round. Nothing was released.
        """


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The privacy that one opened sum (all its bands together) spends of a client.

    Args:
        noise_multiplier: z of the continuous Gaussian mechanism that the release post-processes; 0 spends everything.
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
    """A Gaussian mechanism on integers, with everything that its claim rests on.

    Attributes:
        place: The party that adds the noise.

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

    place: ClassVar[NoisePlace]

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
        """Column of the matrix that combines sums of rounds before noise (banded_matrix.py); 1 alone combines none."""
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

    def released_std(self, band: int, rounds: int) -> float:  # noqa: ARG002
        """Standard deviation of a server's noise in one released coordinate after so many rounds at most, in integer units."""
        return self.component_stds(band)[0]

    def share_std(self, band: int) -> float:
        """Standard deviation of all that one party adds to one coordinate of a band, in integer units."""
        return math.hypot(*self.component_stds(band))

    def encode(self, integers: Integers, stream: UniformStream) -> Integers:  # noqa: ARG002
        """Turn a client's rounded integers into those that it uploads. Run by the client.

        Args:
            integers: By index of a band or segment.
            stream: Randomness of this client in this session, from a key that it shares with nobody.
        """
        return integers

    def open(
        self,
        sums: Integers,
        stream: UniformStream,  # noqa: ARG002
        *,
        round_number: int,  # noqa: ARG002
        clients: Collection[str],  # noqa: ARG002
        correlated: CorrelatedNoise | None,  # noqa: ARG002
    ) -> dict[int, Values]:
        """Turn opened sums into the noisy ones that leave the round. Run by the server.

        Args:
            sums: By index of a band.
            stream: Randomness of the server in this session.
            round_number: Number of the round, from 1.
            clients: Clients whose inputs may be in the sums.
            correlated: What :meth:`correlated` gave for this process.
        """
        return dict(sums)

    def correlated(self) -> CorrelatedNoise | None:
        """Begin the state that a server keeps between rounds; None where the noise of each round is independent."""
        return None

    def add_noise(self, integers: Integers, stream: UniformStream) -> Integers:
        """Add one party's noise to every integer, band by band in order: all of it that is never removed."""
        return {
            index: values + discrete_gaussian(self.component_stds(index)[0], len(values), stream)
            for index, values in sorted(integers.items())
        }

    @abstractmethod
    def event(self, present: Mapping[int, int], *, known: int = 0) -> Release:
        """Return what a release spends, given how many uploaders each opened band covers.

        The least-noised of the bands decides: sum_j |x_j|^2 / V_j <= D^2 / min_j V_j.

        Args:
            present: By index of an opened band. Without an opened band nothing is spent.
            known: Number of uploaders of each band whose noise the observer may know.
        """

    def _release(self, variance: float, *, slack: float, draws: int) -> Release:
        """Return what noise of this variance spends, drawn in `draws` parts unknown to the observer."""
        sensitivity = self.sensitivity(Adjacency.ZERO_OUT)
        smooth = variance - SMOOTHING**2
        multiplier = math.sqrt(smooth) / sensitivity if smooth > 0 else 0.0
        return Release(
            noise_multiplier=multiplier,
            slack=slack,
            rho=sensitivity**2 / (2 * variance) if multiplier else math.inf,
            total_variation=draws * TOTAL_VARIATION,
        )
