"""Noise of the clients, a share each (Kairouz, Liu and Steinke 2021, arXiv 2102.06387)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, final

from protocols.primitives.prg import UniformStream
from protocols.ring import capacity
from rbla_secure.config import Config
from rbla_secure.config.choices import Adjacency
from rbla_secure.errors import PrivacyError
from rbla_secure.privacy.noise.kind import NoiseKind
from rbla_secure.privacy.noise.mechanism import (
    NOTHING,
    SMOOTHING_SLACK,
    TAIL,
    GaussianMechanism,
    Integers,
    NoisePlace,
    Release,
)
from rbla_secure.privacy.quantize import Quantizer
from rbla_secure.privacy.shares import MIN_SHARE, BandShares, convolution_slack

MAX_BITS, MIN_BITS = 32, 2


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DistributedDiscreteGaussian(GaussianMechanism):
    """Every uploader of a band adds its share; nobody sees less noise than the sum of the shares it does not know.

    Args:
        ring_bits: Bits of the ring of the secure sum.
    """

    place: ClassVar[NoisePlace] = NoisePlace.CLIENTS

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
        """Return the standard deviations of one client's share: sqrt(variance / divisor)."""
        variance = self.variance()
        return tuple(math.sqrt(variance / divisor) for divisor in self.bands[band].divisors)

    def encode(self, integers: Integers, stream: UniformStream) -> Integers:
        """Implement :meth:`GaussianMechanism.encode`: add a share of the noise to every integer."""
        return self.add_noise(integers, stream)

    def event(self, present: Mapping[int, int], *, known: int = 0) -> Release:
        """Return the release of the remaining shares unknown to the observer, for the band of least variance."""
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


@final
class DistributedKind(NoiseKind):
    """Every client that uploads a band adds a share."""

    place: ClassVar[NoisePlace] = DistributedDiscreteGaussian.place
    chooses_grid: ClassVar[bool] = True

    def build(
        self, config: Config, common: Mapping[str, Any], *, ring_bits: int
    ) -> DistributedDiscreteGaussian:
        """Implement :meth:`NoiseKind.build` on the finest grid with room for the noise."""
        return DistributedDiscreteGaussian.fitting(
            bound=config.quantization.bound, ring_bits=ring_bits, **common
        )


KIND = DistributedKind()
