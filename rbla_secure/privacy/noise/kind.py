"""The interface of noise mechanisms that a configuration uses before the grid is known."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from rbla_secure.config import Config
from rbla_secure.errors import PlanError
from rbla_secure.privacy.noise.mechanism import GaussianMechanism, NoisePlace
from rbla_secure.privacy.quantize import Quantizer


class NoiseKind(ABC):
    """A noise mechanism as a configuration can name it. Stateless: everything follows from the configuration.

    Attributes:
        place: The party that adds the noise.
        chooses_grid: Whether the grid of integers follows from the room for noise, not from `quantization.bits`.
        hides_absence: Whether add-or-remove adjacency can be claimed: a client that is absent takes no noise along.
        takes_turns: Whether noise is correlated over rounds, so that the claims of several rounds belong together and clients
            take part in turns, at least `privacy.separation` rounds apart.
    """

    place: ClassVar[NoisePlace]
    chooses_grid: ClassVar[bool] = False
    hides_absence: ClassVar[bool] = False
    takes_turns: ClassVar[bool] = False

    def check(self, config: Config) -> None:
        """Refuse settings that the mechanism cannot keep or that it does not read; asked without noise too.

        Raises:
            PlanError: Names the argument, its value and the rule.
        """
        if config.privacy.separation:
            raise PlanError(
                f"privacy.separation={config.privacy.separation} must be 0 without privacy.mechanism=banded-matrix"
            )

    def assumptions(self, config: Config) -> list[str]:  # noqa: ARG002
        """Return, in words, the assumptions of its epsilon beyond those that all mechanisms share."""
        return []

    @abstractmethod
    def build(self, config: Config, common: Mapping[str, Any], *, ring_bits: int) -> GaussianMechanism:
        """Build the mechanism of a plan.

        Args:
            config: With a noise multiplier above 0, checked.
            common: The fields of :class:`GaussianMechanism` but its quantizer, by name.
            ring_bits: Bits in which a sum and its noise must fit.

        Raises:
            PrivacyError: There is no room for sums and their noise, or the grid is too coarse for it.
        """


def configured_grid(config: Config) -> Quantizer:
    """Return the grid that the configuration names."""
    return Quantizer(bits=config.quantization.bits, bound=config.quantization.bound)
