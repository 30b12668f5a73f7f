"""Clipping about the previous step (Karimireddy, He and Jaggi 2021, arXiv 2012.10333)."""

from dataclasses import dataclass
from typing import ClassVar, Self, final

import numpy as np

from rbla_secure.lora.update import RealVector
from rbla_secure.robustness import scores
from rbla_secure.robustness.bounded import Numbers, bounded_verdicts
from rbla_secure.robustness.filter import Filter, FilterOptions, Previous, as_total, needed
from rbla_secure.robustness.rules.clipping import shrink_factors
from rbla_secure.robustness.rules.matrix import check_positive, combine
from rbla_secure.robustness.updates import BandUpdates, Updates
from rbla_secure.robustness.verdicts import Filtered


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CenteredClipping(Filter):
    """Differences to the previous step longer than `radius` are shortened to it, then the RBLA mean.

    The center is zero in the first round, and in bands that were closed in the round before. An attacker that knows the
    center can hide inside the radius.

    Args:
        radius: Largest L2 norm of a difference, in units of an update.
        iterations: Steps, each about the result of the one before.
    """

    same_share_everywhere: ClassVar[bool] = False

    radius: float
    iterations: int = 1

    def __post_init__(self) -> None:
        Filter.__post_init__(self)
        check_positive("radius", self.radius)
        check_positive("iterations", self.iterations)

    @classmethod
    def of(cls, f: int, privacy_quorum: int, options: FilterOptions) -> Self:
        """Implement :meth:`Filter.of` with `robustness.radius`, or the clip norm where it is 0."""
        return cls(
            f=f,
            privacy_quorum=privacy_quorum,
            radius=options.settings.radius or needed("clip_norm", options.clip_norm),
        )

    def apply(self, updates: Updates, *, previous: Previous, seed: int) -> Filtered:  # noqa: ARG002  the contract's
        """Implement :meth:`Filter.apply`."""
        opened, closed = self.opened(updates)
        centers = {index: _center(band, (previous or {}).get(index)) for index, band in opened.items()}
        norms = scores.norms(updates, opened, centers)
        verdicts = bounded_verdicts(updates, norms, f"centered clipping, radius {self.radius:.4g}")
        for _ in range(self.iterations):
            factors = shrink_factors(norms, self.radius)
            centers = {i: _pulled(updates, band, centers[i], factors) for i, band in opened.items()}
            norms = scores.norms(updates, opened, centers)
        totals = {index: as_total(updates, band, centers[index]) for index, band in opened.items()}
        return Filtered(totals=totals, verdicts=verdicts, closed=closed)


def _center(band: BandUpdates, previous: RealVector | None) -> RealVector:
    return np.zeros(band.values.shape[1]) if previous is None else previous


def _pulled(updates: Updates, band: BandUpdates, center: RealVector, factors: Numbers) -> RealVector:
    """Center + weighted mean of the holders' shortened differences to it."""
    weights = updates.weights[band.holders]
    shares = weights / weights.sum() * factors[band.holders]
    return np.asarray(center * (1.0 - shares.sum()) + combine(shares, band.values))


FILTER = CenteredClipping
