"""The base class of mechanisms whose noise the server adds."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from protocols.primitives.prg import UniformStream
from rbla_secure.config.choices import Adjacency
from rbla_secure.errors import PrivacyError
from rbla_secure.privacy.noise.mechanism import (
    NOTHING,
    SMOOTHING_SLACK,
    CorrelatedNoise,
    GaussianMechanism,
    Integers,
    NoisePlace,
    Release,
    Values,
)
from rbla_secure.privacy.shares import MIN_SHARE


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerGaussian(GaussianMechanism):
    """Noise that the server, which is trusted with the sums, adds all of."""

    place: ClassVar[NoisePlace] = NoisePlace.SERVER

    @property
    def input_bound(self) -> int:
        """The largest magnitude of a client's values and its vote; noise is added after the sum."""
        return max(self.quantizer.levels, self.count_unit)

    def _check(self) -> None:
        if (std := math.sqrt(self.variance())) < MIN_SHARE:
            raise PrivacyError(
                f"noise of {std:.3g} integer units must be >= {MIN_SHARE:g}: raise quantization.bits"
            )

    def _check_relation(self, relation: Adjacency) -> None:
        """Accept both adjacencies: with fixed denominators and noise on every row, absence and zeros look alike."""

    def component_stds(self, band: int) -> tuple[float, ...]:  # noqa: ARG002
        """Return one component, the whole noise, the same in every band."""
        return (math.sqrt(self.variance()),)

    def open(
        self,
        sums: Integers,
        stream: UniformStream,
        *,
        round_number: int,  # noqa: ARG002
        clients: Collection[str],  # noqa: ARG002
        correlated: CorrelatedNoise | None,  # noqa: ARG002
    ) -> dict[int, Values]:
        """Implement :meth:`GaussianMechanism.open` with independent noise on every sum."""
        return dict(self.add_noise(sums, stream))

    def event(self, present: Mapping[int, int], *, known: int = 0) -> Release:  # noqa: ARG002
        """Return the release of one client's whole column of the matrix: the same in every opened band."""
        if not present:
            return NOTHING
        draws = len(self.column) * sum(self.bands[index].length for index in present)
        return self._release(self.variance(), slack=draws * SMOOTHING_SLACK, draws=draws)
