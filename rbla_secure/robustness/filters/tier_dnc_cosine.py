"""Rejection by the larger of two scores: divide and conquer, and the cosine to the previous step."""

from dataclasses import dataclass
from typing import final

import numpy as np

from rbla_secure.robustness.filter import Filter, Previous
from rbla_secure.robustness.rules.matrix import check_positive
from rbla_secure.robustness.rules.spectral import COORDINATES
from rbla_secure.robustness.scores import Bands
from rbla_secure.robustness.selection import Scores, Selection, cosine_scores, spectral_scores
from rbla_secure.robustness.updates import Updates


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TierDncCosine(Selection):
    """Max(z of divide and conquer, z of the cosine to the previous step), the worst f rejected.

    The two see different attacks: small changes in common (ALIE) show in the top direction, independent noise and turned
    signs against the previous step. In round 1 divide and conquer decides alone, and what it does to clients that are
    followed it does here too. Not recommended: an attacker that knows the rule stays inside it
    (:data:`rbla_secure.robustness.registry.RECOMMENDED` says what was measured).

    Args:
        coordinates: As in :class:`DivideAndConquer`.
    """

    coordinates: int = COORDINATES

    def __post_init__(self) -> None:
        Filter.__post_init__(self)
        check_positive("coordinates", self.coordinates)

    @property
    def name(self) -> str:
        """The name of the rule in verdicts."""
        return "tier-dnc-cosine"

    def suspicion(self, updates: Updates, bands: Bands, *, previous: Previous, seed: int) -> Scores:
        """Implement :meth:`Selection.suspicion`."""
        common = spectral_scores(updates, bands, seed=seed, coordinates=self.coordinates)
        against = cosine_scores(updates, bands, previous)
        return common if against is None else np.maximum(common, against)


FILTER = TierDncCosine
