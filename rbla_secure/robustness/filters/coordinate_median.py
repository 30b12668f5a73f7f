"""The coordinate-wise median of each band."""

from dataclasses import dataclass
from typing import final

from rbla_secure.lora.update import RealVector
from rbla_secure.robustness.band_rules import BandRule
from rbla_secure.robustness.rules.coordinatewise import coordinate_median
from rbla_secure.robustness.rules.matrix import Vector
from rbla_secure.robustness.updates import BandUpdates


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CoordinateMedian(BandRule):
    """The coordinate median of each band. Stands against f < half of a band's holders."""

    @property
    def name(self) -> str:
        """The name of the rule in verdicts."""
        return "coordinate median"

    def average(self, band: BandUpdates, weights: Vector) -> RealVector:  # noqa: ARG002  the contract's
        """Implement :meth:`BandRule.average`."""
        return coordinate_median(band.values)

    @classmethod
    def stretch(cls, f: int) -> float:  # noqa: ARG003  the contract's
        """Implement :meth:`Filter.stretch`: k = (v - 1) // 2 of v values are left out on each side, v / (v - k) < 2."""
        return 2.0


FILTER = CoordinateMedian
