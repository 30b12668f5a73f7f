"""Rejection along the direction of largest variance (Shejwalkar and Houmansadr 2021)."""

from dataclasses import dataclass
from typing import final

from rbla_secure.robustness.filter import Filter, Previous
from rbla_secure.robustness.rules.matrix import check_positive
from rbla_secure.robustness.rules.spectral import COORDINATES
from rbla_secure.robustness.scores import Bands
from rbla_secure.robustness.selection import Scores, Selection, spectral_scores
from rbla_secure.robustness.updates import Updates


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DivideAndConquer(Selection):
    """Rejects those that pull most along the direction of largest variance. Blind to independent noise.

    What clients have in common is that direction, so an attacker that follows an honest client at a distance has *that* client
    rejected more often, without being rejected itself (measured: by half of all rounds). Nothing is claimed of whoever is followed;
    nobody else is rejected more often (`tests/rbla_secure/robustness/test_copies.py`).

    Args:
        coordinates: How many coordinates of each band are looked at, drawn anew in every round.
    """

    coordinates: int = COORDINATES

    def __post_init__(self) -> None:
        Filter.__post_init__(self)
        check_positive("coordinates", self.coordinates)

    @property
    def name(self) -> str:
        """The name of the rule in verdicts."""
        return "divide and conquer"

    def suspicion(self, updates: Updates, bands: Bands, *, previous: Previous, seed: int) -> Scores:  # noqa: ARG002
        """Implement :meth:`Selection.suspicion`."""
        return spectral_scores(updates, bands, seed=seed, coordinates=self.coordinates)


FILTER = DivideAndConquer
