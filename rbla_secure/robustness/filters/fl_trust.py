"""Weights by the cosine to a trusted update (Cao et al. 2021, arXiv 2012.13995)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self, final

import numpy as np

from rbla_secure.errors import RobustnessError
from rbla_secure.lora.update import BandTotal, RealVector
from rbla_secure.robustness import scores
from rbla_secure.robustness.bounded import Numbers
from rbla_secure.robustness.filter import Filter, FilterOptions, Previous, needed
from rbla_secure.robustness.rules.matrix import combine
from rbla_secure.robustness.updates import BandUpdates, Updates
from rbla_secure.robustness.verdicts import Filtered, Verdict


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlTrust(Filter):
    """Updates are rescaled to the length of a trusted one and weighted by their cosine to it, or 0 if it is negative.

    Stands against any f as far as the reference is right; a small trusted data set loses its direction within a few rounds.
    Who points against it is left out, and that may be every honest client: a band opens only if 2f + 1 of its holders are
    trusted. They share the average by trust, so f attackers along a wrong reference outweigh honest clients whose cosine is small.

    Args:
        reference: By band index, the update computed on trusted data in this round, from the same broadcast adapter.
    """

    needs_reference: ClassVar[bool] = True
    # It takes the length of the reference, which is not clipped.
    bounds_length: ClassVar[bool] = False

    reference: Mapping[int, RealVector]

    def __post_init__(self) -> None:
        Filter.__post_init__(self)
        if not all(np.isfinite(vector).all() for vector in self.reference.values()):
            raise RobustnessError("the reference is not finite (NaN or infinity)")
        if not any(vector.any() for vector in self.reference.values()):
            raise RobustnessError("the reference must not be zero: it has no direction")

    @classmethod
    def of(cls, f: int, privacy_quorum: int, options: FilterOptions) -> Self:
        """Implement :meth:`Filter.of` with the reference of this round."""
        return cls(f=f, privacy_quorum=privacy_quorum, reference=needed("reference", options.reference))

    def apply(self, updates: Updates, *, previous: Previous, seed: int) -> Filtered:  # noqa: ARG002  the contract's
        """Implement :meth:`Filter.apply`."""
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
        """Return, by client, the length of the reference over that of its update, in the bands it holds."""
        squares: Numbers = np.zeros(len(updates.clients))
        for index, band in bands.items():
            if index in self.reference:
                squares[band.holders] += np.square(self.reference[index]).sum()
        norms = scores.norms(updates, bands)
        return np.asarray(np.sqrt(squares) / np.where(norms > 0, norms, np.inf))


def _trusted(updates: Updates, cosines: Numbers) -> dict[str, Verdict]:
    return {
        client: Verdict(
            accepted=bool(cosine > 0),
            score=float(-cosine),
            reason=f"fltrust: cosine {cosine:.3f} to the reference, trusted above 0",
        )
        for client, cosine in zip(updates.clients, cosines, strict=True)
    }


FILTER = FlTrust
