"""Filters that replace the mean of each band by a robust rule over its holders. They reject nobody (but Krum).

Each holder has one vote, whatever its weight, except in the geometric median, which weighs. The breakdown point of a
band is that of its rule among its holders, and the quorum makes sure that f attackers stay below it even if all hold it.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np

from rbla_secure.errors import RobustnessError
from rbla_secure.lora.update import RealVector
from rbla_secure.robustness.filters import Filter, Previous, accept_all, as_total
from rbla_secure.robustness.quorum import band_quorum
from rbla_secure.robustness.rules.coordinatewise import coordinate_median, trimmed_mean
from rbla_secure.robustness.rules.geometric import ITERATIONS, SMOOTHING, geometric_median
from rbla_secure.robustness.rules.krum import krum_scores
from rbla_secure.robustness.rules.matrix import Vector, check_positive
from rbla_secure.robustness.updates import BandUpdates, Updates
from rbla_secure.robustness.verdicts import Filtered, Verdict


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BandRule(Filter):
    """A rule applied band by band."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called in verdicts."""

    @abstractmethod
    def average(self, band: BandUpdates, weights: Vector) -> RealVector:
        """The rule's result on one band, given the holders' weights."""

    @final
    def apply(self, updates: Updates, *, previous: Previous, seed: int) -> Filtered:  # noqa: ARG002  the contract's
        """As :meth:`Filter.apply`."""
        opened, closed = self.opened(updates)
        totals = {
            index: as_total(updates, band, self.average(band, updates.weights[band.holders]))
            for index, band in opened.items()
        }
        reason = f"{self.name}: bounds what each client can do, judges nobody"
        return Filtered(totals=totals, verdicts=accept_all(updates, reason), closed=closed)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CoordinateMedian(BandRule):
    """The coordinate median of each band. Stands against f < half of a band's holders."""

    @property
    def name(self) -> str:
        """What it is called in verdicts."""
        return "coordinate median"

    def average(self, band: BandUpdates, weights: Vector) -> RealVector:  # noqa: ARG002  the contract's
        """As :meth:`BandRule.average`."""
        return coordinate_median(band.values)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrimmedMean(BandRule):
    """The trimmed mean of each band. Stands against f < half of a band's holders."""

    @property
    def name(self) -> str:
        """What it is called in verdicts."""
        return f"trimmed mean without the {self.f} lowest and highest"

    def average(self, band: BandUpdates, weights: Vector) -> RealVector:  # noqa: ARG002  the contract's
        """As :meth:`BandRule.average`."""
        return trimmed_mean(band.values, f=self.f)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GeometricMedian(BandRule):
    """The weighted geometric median of each band. Stands against attackers with less than half of a band's weight.

    Args:
        nu: Smoothing, in units of an update.
        iterations: Weiszfeld steps.
    """

    nu: float = SMOOTHING
    iterations: int = ITERATIONS

    def __post_init__(self) -> None:
        Filter.__post_init__(self)
        check_positive("nu", self.nu)
        check_positive("iterations", self.iterations)

    @property
    def name(self) -> str:
        """What it is called in verdicts."""
        return "geometric median"

    def average(self, band: BandUpdates, weights: Vector) -> RealVector:
        """As :meth:`BandRule.average`."""
        return geometric_median(band.values, weights=weights, nu=self.nu, iterations=self.iterations)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Krum(Filter):
    """In each band, the rows of the holder with the smallest Krum score. Needs 2f + 3 holders.

    Attackers whose updates agree are each other's nearest: their rows may be the ones that win, and are then all of the average.
    More holders would not change that, so no majority of honest ones is claimed: what Blanchard et al. show is that
    the winner lies near honest rows, in distance and not in direction.

    It publishes single clients' rows as the average. That is no secret only where every participant may see every
    update, which `privacy_quorum=1` says; Multi-Krum averages.

    Raises:
        RobustnessError: `privacy_quorum` is not 1.
    """

    def __post_init__(self) -> None:
        Filter.__post_init__(self)
        if self.privacy_quorum != 1:
            raise RobustnessError(
                f"krum publishes one client's rows as the average: privacy_quorum={self.privacy_quorum} must be 1"
            )

    @classmethod
    def least_holders(cls, f: int, privacy_quorum: int) -> int:
        """As :meth:`Filter.least_holders`: 2f + 3, the paper's condition for its scores."""
        return krum_quorum(f, privacy_quorum)

    def apply(self, updates: Updates, *, previous: Previous, seed: int) -> Filtered:  # noqa: ARG002  the contract's
        """As :meth:`Filter.apply`."""
        opened, closed = self.opened(updates)
        chosen: dict[int, int] = {}
        totals = {}
        for index, band in opened.items():
            winner = int(np.argmin(krum_scores(band.values, f=self.f)))
            chosen[index] = int(band.holders[winner])
            totals[index] = as_total(updates, band, np.asarray(band.values[winner], dtype=np.float64))
        return Filtered(totals=totals, verdicts=_winners(updates, chosen), closed=closed)


def krum_quorum(f: int, privacy_quorum: int) -> int:
    """The quorum of a band where distances to the n - f - 2 nearest decide: max(2f + 3, privacy_quorum)."""
    return max(2 * f + 3, band_quorum(f, privacy_quorum))


def _winners(updates: Updates, chosen: dict[int, int]) -> dict[str, Verdict]:
    found = {}
    for i, client in enumerate(updates.clients):
        bands = [str(index) for index, winner in sorted(chosen.items()) if winner == i]
        reason = (
            f"krum: smallest score in band {', '.join(bands)}" if bands else "krum: smallest score in no band"
        )
        found[client] = Verdict(accepted=bool(bands), score=None, reason=reason)
    return found
