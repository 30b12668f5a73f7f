"""The trimmed mean of each band."""

from dataclasses import dataclass
from typing import final

from rbla_secure.lora.update import RealVector
from rbla_secure.robustness.band_rules import BandRule
from rbla_secure.robustness.rules.coordinatewise import trimmed_mean
from rbla_secure.robustness.rules.matrix import Vector
from rbla_secure.robustness.updates import BandUpdates


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrimmedMean(BandRule):
    """The trimmed mean of each band. Stands against f < half of a band's holders."""

    @property
    def name(self) -> str:
        """The name of the rule in verdicts."""
        return f"trimmed mean without the {self.f} lowest and highest"

    def average(self, band: BandUpdates, weights: Vector) -> RealVector:  # noqa: ARG002  the contract's
        """Implement :meth:`BandRule.average`."""
        return trimmed_mean(band.values, f=self.f)

    @classmethod
    def stretch(cls, f: int) -> float:
        """Implement :meth:`Filter.stretch`: f of v >= 2f + 1 values are left out on either side."""
        return (2 * f + 1) / (f + 1)


FILTER = TrimmedMean
