"""Filters that replace the mean of each band by a robust rule over its holders. They reject nobody (but Krum).

Each holder has one vote, whatever its weight, except in the geometric median, which weighs. The breakdown point of a
band is that of its rule among its holders, and the quorum makes sure that f attackers stay below it even if all hold it.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import final

from rbla_secure.lora.update import RealVector
from rbla_secure.robustness.filter import Filter, Previous, accept_all, as_total
from rbla_secure.robustness.quorum import band_quorum
from rbla_secure.robustness.rules.matrix import Vector
from rbla_secure.robustness.updates import BandUpdates, Updates
from rbla_secure.robustness.verdicts import Filtered


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BandRule(Filter):
    """A rule applied band by band."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the rule in verdicts."""

    @abstractmethod
    def average(self, band: BandUpdates, weights: Vector) -> RealVector:
        """The rule's result on one band, given the holders' weights."""

    @final
    def apply(self, updates: Updates, *, previous: Previous, seed: int) -> Filtered:  # noqa: ARG002  the contract's
        """Implement :meth:`Filter.apply`."""
        opened, closed = self.opened(updates)
        totals = {
            index: as_total(updates, band, self.average(band, updates.weights[band.holders]))
            for index, band in opened.items()
        }
        reason = f"{self.name}: bounds what each client can do, judges nobody"
        return Filtered(totals=totals, verdicts=accept_all(updates, reason), closed=closed)


def krum_quorum(f: int, privacy_quorum: int) -> int:
    """The quorum of a band where distances to the n - f - 2 nearest decide: max(2f + 3, privacy_quorum)."""
    return max(2 * f + 3, band_quorum(f, privacy_quorum))
