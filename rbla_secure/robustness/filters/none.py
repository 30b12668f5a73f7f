"""No filter: everybody counts."""

from dataclasses import dataclass
from typing import ClassVar, final

from rbla_secure.robustness.filter import Filter, Previous, accept_all, weighted_total
from rbla_secure.robustness.updates import Updates
from rbla_secure.robustness.verdicts import Filtered


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NoFilter(Filter):
    """The RBLA mean of every band. Stands against nothing but rank capture: that takes the quorum alone."""

    keeps_quorum: ClassVar[bool] = True

    def apply(self, updates: Updates, *, previous: Previous, seed: int) -> Filtered:  # noqa: ARG002  the contract's
        """Implement :meth:`Filter.apply`."""
        opened, closed = self.opened(updates)
        return Filtered(
            totals={index: weighted_total(updates, band) for index, band in opened.items()},
            verdicts=accept_all(updates, "no filter: everybody counts"),
            closed=closed,
        )


FILTER = NoFilter
