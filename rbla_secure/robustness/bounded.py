"""Filters that bound how far each whole update pulls: shortened, drawn to a center, or weighed by a reference.

Lengths, distances and cosines are taken over all open bands that a client holds, so that a client gains nothing by
spreading what it does over bands.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from rbla_secure.errors import RobustnessError
from rbla_secure.lora.update import BandTotal, RealVector
from rbla_secure.robustness import scores
from rbla_secure.robustness.filters import Filter, Previous, as_total, weighted_total
from rbla_secure.robustness.rules.clipping import shrink_factors
from rbla_secure.robustness.rules.matrix import check_positive, combine
from rbla_secure.robustness.updates import BandUpdates, Updates
from rbla_secure.robustness.verdicts import Filtered, Verdict

Numbers = npt.NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NormBound(Filter):
    """Updates longer than `bound` are shortened to it, then the RBLA mean. Bounds length, not direction.

    Args:
        bound: In units of an update; below the clip norm, or it does nothing that clipping has not done.
    """

    bound: float

    def __post_init__(self) -> None:
        Filter.__post_init__(self)
        check_positive("bound", self.bound)

    def apply(self, updates: Updates, *, previous: Previous, seed: int) -> Filtered:  # noqa: ARG002  the contract's
        """As :meth:`Filter.apply`."""
        opened, closed = self.opened(updates)
        norms = scores.norms(updates, opened)
        factors = shrink_factors(norms, self.bound)
        return Filtered(
            totals={index: weighted_total(updates, band, factors) for index, band in opened.items()},
            verdicts=_bounded(updates, norms, f"norm bound {self.bound:.4g}"),
            closed=closed,
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CenteredClipping(Filter):
    """Differences to the previous step longer than `radius` are shortened to it, then the RBLA mean.

    The center is zero in the first round, and in bands that were closed in the round before. An attacker that knows the
    center can hide inside the radius.

    Args:
        radius: In units of an update.
        iterations: Steps, each about the result of the one before.
    """

    radius: float
    iterations: int = 1

    def __post_init__(self) -> None:
        Filter.__post_init__(self)
        check_positive("radius", self.radius)
        check_positive("iterations", self.iterations)

    def apply(self, updates: Updates, *, previous: Previous, seed: int) -> Filtered:  # noqa: ARG002  the contract's
        """As :meth:`Filter.apply`."""
        opened, closed = self.opened(updates)
        centers = {index: _center(band, (previous or {}).get(index)) for index, band in opened.items()}
        norms = scores.norms(updates, opened, centers)
        verdicts = _bounded(updates, norms, f"centered clipping, radius {self.radius:.4g}")
        for _ in range(self.iterations):
            factors = shrink_factors(norms, self.radius)
            centers = {i: _pulled(updates, band, centers[i], factors) for i, band in opened.items()}
            norms = scores.norms(updates, opened, centers)
        totals = {index: as_total(updates, band, centers[index]) for index, band in opened.items()}
        return Filtered(totals=totals, verdicts=verdicts, closed=closed)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlTrust(Filter):
    """Updates count with the cosine to a trusted one, none below zero, and all with its length.

    Stands against any f as far as the reference is right; a small trusted data set loses its direction within a few rounds.
    Who points against it is left out, and that may be every honest client: a band opens only if 2f + 1 of its holders are
    trusted. They share the average by trust, so f attackers along a wrong reference outweigh honest clients whose cosine is small.

    Args:
        reference: By band index, the update computed on trusted data in this round, from the same broadcast adapter.
    """

    reference: Mapping[int, RealVector]

    def __post_init__(self) -> None:
        Filter.__post_init__(self)
        if not all(np.isfinite(vector).all() for vector in self.reference.values()):
            raise RobustnessError("the reference is not finite (NaN or infinity)")
        if not any(vector.any() for vector in self.reference.values()):
            raise RobustnessError("the reference must not be zero: it has no direction")

    def apply(self, updates: Updates, *, previous: Previous, seed: int) -> Filtered:  # noqa: ARG002  the contract's
        """As :meth:`Filter.apply`."""
        opened, closed = self.opened(updates)
        cosines = scores.cosines_to(updates, opened, self.reference)
        trust = np.maximum(0.0, cosines)
        factors = trust * self._rescaling(updates, opened)
        totals: dict[int, BandTotal] = {}
        for index, band in opened.items():
            weights = updates.weights[band.holders]
            weight = float((weights * trust[band.holders]).sum())
            trusted = int((weights * trust[band.holders] > 0).sum())
            if trusted < self.quorum:
                closed[index] = f"{trusted} trusted holders, {self.quorum} needed against f={self.f}"
                continue
            pulled = combine(weights * factors[band.holders], band.values)
            totals[index] = BandTotal(weighted_sum=pulled, weight=weight, cut_off=None)
        return Filtered(totals=totals, verdicts=_trusted(updates, cosines), closed=closed)

    def _rescaling(self, updates: Updates, bands: Mapping[int, BandUpdates]) -> Numbers:
        """By client: the length of the reference over its own, in the bands it holds."""
        squares: Numbers = np.zeros(len(updates.clients))
        for index, band in bands.items():
            if index in self.reference:
                squares[band.holders] += np.square(self.reference[index]).sum()
        norms = scores.norms(updates, bands)
        return np.asarray(np.sqrt(squares) / np.where(norms > 0, norms, np.inf))


def _center(band: BandUpdates, previous: RealVector | None) -> RealVector:
    return np.zeros(band.values.shape[1]) if previous is None else previous


def _pulled(updates: Updates, band: BandUpdates, center: RealVector, factors: Numbers) -> RealVector:
    """Center + weighted mean of the holders' shortened differences to it."""
    weights = updates.weights[band.holders]
    shares = weights / weights.sum() * factors[band.holders]
    return np.asarray(center * (1.0 - shares.sum()) + combine(shares, band.values))


def _bounded(updates: Updates, norms: Numbers, limit: str) -> dict[str, Verdict]:
    return {
        client: Verdict(accepted=True, score=float(norm), reason=f"{limit}: length {norm:.4g}")
        for client, norm in zip(updates.clients, norms, strict=True)
    }


def _trusted(updates: Updates, cosines: Numbers) -> dict[str, Verdict]:
    return {
        client: Verdict(
            accepted=bool(cosine > 0),
            score=float(-cosine),
            reason=f"fltrust: cosine {cosine:.3f} to the reference, trusted above 0",
        )
        for client, cosine in zip(updates.clients, cosines, strict=True)
    }
