"""Filters that score whole updates, reject the worst f, and take the RBLA mean of the others.

Scores are compared inside a rank tier (:mod:`rbla_secure.robustness.tiers`). Exactly f clients are rejected in every round,
attackers or not: over-estimating f costs honest contributions, under-estimating it lets attackers through. Equal scores are
drawn by the round's seed, so that nobody is rejected for its name.

The f rejected may all be honest and hold one band, so a band needs f holders more than a quorum
(:func:`rbla_secure.robustness.quorum.quorum_before_selection`); behind that, who is rejected decides nothing about which bands open.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from rbla_secure.lora.update import BandTotal
from rbla_secure.robustness import scores
from rbla_secure.robustness.filter import Filter, Previous, accept_all
from rbla_secure.robustness.quorum import quorum_before_selection
from rbla_secure.robustness.rules.matrix import combine
from rbla_secure.robustness.scores import Bands
from rbla_secure.robustness.tiers import tier_scores
from rbla_secure.robustness.updates import BandUpdates, Updates
from rbla_secure.robustness.verdicts import Filtered, Verdict

Scores = npt.NDArray[np.float64]
Chosen = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selection(Filter):
    """A score for each client, and what follows from it."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the rule in verdicts."""

    @abstractmethod
    def suspicion(self, updates: Updates, bands: Bands, *, previous: Previous, seed: int) -> Scores | None:
        """Shape (n,), high is suspicious, comparable between tiers; None if there is nothing to compare with yet."""

    @classmethod
    def least_holders(cls, f: int, privacy_quorum: int) -> int:
        """Implement :meth:`Filter.least_holders`: 3f + 1, of which 2f + 1 are left when f are rejected."""
        return quorum_before_selection(f, privacy_quorum)

    @final
    def apply(self, updates: Updates, *, previous: Previous, seed: int) -> Filtered:
        """Implement :meth:`Filter.apply`. Opened bands keep max(2f + 1, `privacy_quorum`) accepted holders or more."""
        opened, closed = self.opened(updates)
        if not opened:
            reason = f"{self.name}: not judged, and nothing is averaged: no band has {self.quorum} holders"
            verdicts = {
                client: Verdict(accepted=False, score=None, reason=reason) for client in updates.clients
            }
            return Filtered(totals={}, verdicts=verdicts, closed=closed)
        found = self.suspicion(updates, opened, previous=previous, seed=seed)
        if found is None:
            accepted = np.ones(len(updates.clients), dtype=np.bool_)
            verdicts = accept_all(updates, f"{self.name}: not judged, there is no previous step")
        else:
            accepted = _without_worst(found, self.f, seed)
            verdicts = self._verdicts(updates, found, accepted)
        totals = {index: _mean_of(updates, band, accepted) for index, band in opened.items()}
        return Filtered(totals=totals, verdicts=verdicts, closed=closed)

    def _verdicts(self, updates: Updates, found: Scores, accepted: Chosen) -> dict[str, Verdict]:
        limit = float(found[accepted].max())
        return {
            client: Verdict(
                accepted=bool(accepted[i]),
                score=float(found[i]),
                reason=f"{self.name}: score {found[i]:.2f}, {'within' if accepted[i] else 'beyond'} the limit {limit:.2f} "
                f"(the {self.f} highest of {len(found)} are rejected)",
            )
            for i, client in enumerate(updates.clients)
        }


def tiers_of(updates: Updates, bands: Bands) -> npt.NDArray[np.int64]:
    """The tier of each client as far as it matters: how many of the bands that opened it holds, shape (n,).

    With all bands open these are the enrolled ranks. Where the rows of the highest rank stay closed, its clients count for
    no more than those of the next one and are judged among them: attackers that enrolled for a rank of their own would
    otherwise only be compared with each other.
    """
    found = np.ones(len(updates.clients), dtype=np.int64)
    for band in bands.values():
        found[band.holders] += 1
    return found


def spectral_scores(updates: Updates, bands: Bands, *, seed: int, coordinates: int) -> Scores:
    """Score every client along the direction of largest variance, shape (n,), comparable between tiers.

    Args:
        updates: All updates of the round.
        bands: The bands that opened.
        seed: Seed of the round, >= 0.
        coordinates: How many coordinates of each band are looked at, >= 1.
    """
    found = scores.spectral(updates, bands, seed=seed, coordinates=coordinates)
    return tier_scores(found, tiers_of(updates, bands))


def cosine_scores(updates: Updates, bands: Bands, previous: Previous) -> Scores | None:
    """Score every client by how far it points away from the previous step, shape (n,), comparable between tiers.

    Returns None where there is no previous step in any band that opened.
    """
    if previous is None or not any(previous[index].any() for index in bands if index in previous):
        return None
    compared = {index: band for index, band in bands.items() if index in previous and previous[index].any()}
    return tier_scores(
        -scores.cosines_to(updates, compared, previous),
        tiers_of(updates, bands),
        units=1 / np.sqrt(scores.lengths_held(updates, compared)),
    )


def _without_worst(found: Scores, f: int, seed: int) -> Chosen:
    drawn = np.random.default_rng(seed).permutation(len(found))
    order = np.lexsort((drawn, found))
    accepted = np.ones(len(found), dtype=np.bool_)
    accepted[order[len(found) - f :]] = False
    return accepted


def _mean_of(updates: Updates, band: BandUpdates, accepted: Chosen) -> BandTotal:
    weights = updates.weights[band.holders] * accepted[band.holders]
    return BandTotal(weighted_sum=combine(weights, band.values), weight=float(weights.sum()), cut_off=None)
