"""Rejection by distance to the nearest peers (Blanchard et al. 2017)."""

from dataclasses import dataclass
from typing import final

import numpy as np

from rbla_secure.robustness import scores
from rbla_secure.robustness.band_rules import krum_quorum
from rbla_secure.robustness.filter import Previous
from rbla_secure.robustness.quorum import quorum_before_selection
from rbla_secure.robustness.scores import Bands
from rbla_secure.robustness.selection import Scores, Selection, tiers_of
from rbla_secure.robustness.tiers import tier_scores
from rbla_secure.robustness.updates import Updates


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MultiKrum(Selection):
    """Rejects those farthest from their nearest peers. Weak against colluders.

    Copies of one update are each other's nearest, so attackers that copy an honest client have others of its tier rejected:
    nothing is claimed of that here.
    """

    @property
    def name(self) -> str:
        """The name of the rule in verdicts."""
        return "multi-krum"

    @classmethod
    def least_holders(cls, f: int, privacy_quorum: int) -> int:
        """Implement :meth:`Selection.least_holders`, and ask for the 2f + 3 holders that its scores need."""
        return max(quorum_before_selection(f, privacy_quorum), krum_quorum(f, privacy_quorum))

    def suspicion(self, updates: Updates, bands: Bands, *, previous: Previous, seed: int) -> Scores:  # noqa: ARG002
        """Implement :meth:`Selection.suspicion`."""
        return tier_scores(
            scores.distances(updates, bands, f=self.f),
            tiers_of(updates, bands),
            units=np.sqrt(scores.lengths_held(updates, bands)),
        )


FILTER = MultiKrum
