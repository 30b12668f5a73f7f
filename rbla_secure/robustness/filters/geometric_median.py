"""The geometric median of each band."""

from dataclasses import dataclass
from typing import ClassVar, final

from rbla_secure.lora.update import RealVector
from rbla_secure.robustness.band_rules import BandRule
from rbla_secure.robustness.filter import Filter
from rbla_secure.robustness.rules.geometric import ITERATIONS, SMOOTHING, geometric_median
from rbla_secure.robustness.rules.matrix import Vector, check_positive
from rbla_secure.robustness.updates import BandUpdates


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GeometricMedian(BandRule):
    """The weighted geometric median of each band. Stands against attackers with less than half of a band's weight.

    Args:
        nu: Smoothing, in units of an update.
        iterations: Weiszfeld steps.
    """

    same_share_everywhere: ClassVar[bool] = False

    nu: float = SMOOTHING
    iterations: int = ITERATIONS

    def __post_init__(self) -> None:
        Filter.__post_init__(self)
        check_positive("nu", self.nu)
        check_positive("iterations", self.iterations)

    @property
    def name(self) -> str:
        """The name of the rule in verdicts."""
        return "geometric median"

    def average(self, band: BandUpdates, weights: Vector) -> RealVector:
        """Implement :meth:`BandRule.average`."""
        return geometric_median(band.values, weights=weights, nu=self.nu, iterations=self.iterations)


FILTER = GeometricMedian
