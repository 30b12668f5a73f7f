"""Shortening of long updates."""

from dataclasses import dataclass
from typing import Self, final

from rbla_secure.robustness import scores
from rbla_secure.robustness.bounded import bounded_verdicts
from rbla_secure.robustness.filter import Filter, FilterOptions, Previous, needed, weighted_total
from rbla_secure.robustness.rules.clipping import shrink_factors
from rbla_secure.robustness.rules.matrix import check_positive
from rbla_secure.robustness.updates import Updates
from rbla_secure.robustness.verdicts import Filtered


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NormBound(Filter):
    """Updates longer than `bound` are shortened to it, then the RBLA mean. Bounds length, not direction.

    Args:
        bound: Largest L2 norm, in units of an update; below the clip norm, or it does nothing beyond clipping.
    """

    bound: float

    def __post_init__(self) -> None:
        Filter.__post_init__(self)
        check_positive("bound", self.bound)

    @classmethod
    def of(cls, f: int, privacy_quorum: int, options: FilterOptions) -> Self:
        """Implement :meth:`Filter.of` with the bound `robustness.bound`, or half of the clip norm where it is 0."""
        return cls(f=f, privacy_quorum=privacy_quorum, bound=_bound(options))

    @classmethod
    def update_limit(cls, options: FilterOptions) -> float:
        """Implement :meth:`Filter.update_limit`: return the bound."""
        return _bound(options)

    def apply(self, updates: Updates, *, previous: Previous, seed: int) -> Filtered:  # noqa: ARG002  the contract's
        """Implement :meth:`Filter.apply`."""
        opened, closed = self.opened(updates)
        norms = scores.norms(updates, opened)
        factors = shrink_factors(norms, self.bound)
        return Filtered(
            totals={index: weighted_total(updates, band, factors) for index, band in opened.items()},
            verdicts=bounded_verdicts(updates, norms, f"norm bound {self.bound:.4g}"),
            closed=closed,
        )


def _bound(options: FilterOptions) -> float:
    return options.settings.bound or needed("clip_norm", options.clip_norm) / 2


FILTER = NormBound
