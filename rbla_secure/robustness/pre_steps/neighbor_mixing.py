"""Mixing with nearest neighbours (Allouah et al. 2023, arXiv 2302.01772)."""

from dataclasses import dataclass
from typing import ClassVar, final

from rbla_secure.robustness.filter import Filter, FilterOptions, Previous
from rbla_secure.robustness.pre_step import PreStep, PreStepFilter
from rbla_secure.robustness.quorum import quorum_before_selection
from rbla_secure.robustness.rules.mixing import nearest_neighbor_mixing
from rbla_secure.robustness.updates import BandUpdates, Updates
from rbla_secure.robustness.verdicts import Filtered


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NeighborMixing(PreStepFilter):
    """In each band every holder's rows become the mean of the n - f nearest holders' (NNM), then `inner`.

    Verdicts of a selection behind it are on mixed rows, in which every client has a part in its neighbors'.

    Each mixture leaves f holders out, so it needs as many as a selection does: of 2f + 1 the mean of the f + 1 nearest could be
    attackers all but one, in every row that the filter behind sees. Of 3f + 1 every mixture has 2f + 1 parts, f + 1 of them
    honest, and what a filter keeps of such rows has no larger share of attackers than they have.
    """

    @property
    def quorum(self) -> int:
        """The fewest holders of positive weight with which a band opens."""
        return PRE_STEP.least_holders(self.inner.quorum, f=self.f, privacy_quorum=self.privacy_quorum)

    def apply(self, updates: Updates, *, previous: Previous, seed: int) -> Filtered:
        """Implement :meth:`Filter.apply`."""
        opened, closed = self.opened(updates)
        mixed = {
            index: BandUpdates(holders=band.holders, values=nearest_neighbor_mixing(band.values, f=self.f))
            for index, band in opened.items()
        }
        changed = Updates(clients=updates.clients, ranks=updates.ranks, weights=updates.weights, bands=mixed)
        found = self.inner.apply(changed, previous=previous, seed=seed)
        return Filtered(totals=found.totals, verdicts=found.verdicts, closed={**closed, **found.closed})


@final
class Mixing(PreStep):
    """Every holder's rows become the mean of its nearest holders'."""

    mixes: ClassVar[bool] = True

    def before(self, inner: Filter, options: FilterOptions) -> Filter:  # noqa: ARG002
        """Implement :meth:`PreStep.before`."""
        return NeighborMixing(f=inner.f, privacy_quorum=inner.privacy_quorum, inner=inner)

    def least_holders(self, inner: int, *, f: int, privacy_quorum: int) -> int:
        """Implement :meth:`PreStep.least_holders`: each mixture leaves f holders out."""
        return max(inner, quorum_before_selection(f, privacy_quorum))


PRE_STEP = Mixing()
