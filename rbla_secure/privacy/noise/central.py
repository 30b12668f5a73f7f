"""Noise of a trusted server, independent in every round."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from rbla_secure.config import Config
from rbla_secure.privacy.noise.kind import NoiseKind, configured_grid
from rbla_secure.privacy.noise.mechanism import NoisePlace
from rbla_secure.privacy.noise.server_noise import ServerGaussian


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CentralGaussian(ServerGaussian):
    """Noise of the server, drawn anew in every round."""


@final
class CentralKind(NoiseKind):
    """The server adds all of the noise, independently in every round."""

    place: ClassVar[NoisePlace] = CentralGaussian.place
    # With fixed denominators and every row noised, absence and a contribution of zero look alike.
    hides_absence: ClassVar[bool] = True

    def build(self, config: Config, common: Mapping[str, Any], *, ring_bits: int) -> CentralGaussian:  # noqa: ARG002
        """Implement :meth:`NoiseKind.build` on the configured grid."""
        return CentralGaussian(quantizer=configured_grid(config), **common)


KIND = CentralKind()
