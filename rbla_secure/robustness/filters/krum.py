"""The update of each band that lies closest to the others, by Krum's score (Blanchard et al. 2017)."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from rbla_secure.errors import RobustnessError
from rbla_secure.robustness.band_rules import krum_quorum
from rbla_secure.robustness.filter import Filter, Previous, as_total
from rbla_secure.robustness.rules.krum import krum_scores
from rbla_secure.robustness.updates import Updates
from rbla_secure.robustness.verdicts import Filtered, Verdict


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

    same_share_everywhere: ClassVar[bool] = False
    publishes_one_update: ClassVar[bool] = True

    def __post_init__(self) -> None:
        Filter.__post_init__(self)
        if self.privacy_quorum != 1:
            raise RobustnessError(
                f"krum publishes one client's rows as the average: privacy_quorum={self.privacy_quorum} must be 1"
            )

    @classmethod
    def least_holders(cls, f: int, privacy_quorum: int) -> int:
        """Implement :meth:`Filter.least_holders`: 2f + 3, the paper's condition for its scores."""
        return krum_quorum(f, privacy_quorum)

    def apply(self, updates: Updates, *, previous: Previous, seed: int) -> Filtered:  # noqa: ARG002  the contract's
        """Implement :meth:`Filter.apply`."""
        opened, closed = self.opened(updates)
        chosen: dict[int, int] = {}
        totals = {}
        for index, band in opened.items():
            winner = int(np.argmin(krum_scores(band.values, f=self.f)))
            chosen[index] = int(band.holders[winner])
            totals[index] = as_total(updates, band, np.asarray(band.values[winner], dtype=np.float64))
        return Filtered(totals=totals, verdicts=_winners(updates, chosen), closed=closed)


def _winners(updates: Updates, chosen: dict[int, int]) -> dict[str, Verdict]:
    found = {}
    for i, client in enumerate(updates.clients):
        bands = [str(index) for index, winner in sorted(chosen.items()) if winner == i]
        reason = (
            f"krum: smallest score in band {', '.join(bands)}" if bands else "krum: smallest score in no band"
        )
        found[client] = Verdict(accepted=bool(bands), score=None, reason=reason)
    return found


FILTER = Krum
