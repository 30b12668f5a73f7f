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
from rbla_secure.robustness.band_rules import krum_quorum
from rbla_secure.robustness.filters import Filter, Previous, accept_all
from rbla_secure.robustness.quorum import quorum_before_selection
from rbla_secure.robustness.rules.matrix import check_positive, combine
from rbla_secure.robustness.rules.spectral import COORDINATES
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
        """What it is called in verdicts."""

    @abstractmethod
    def suspicion(self, updates: Updates, bands: Bands, *, previous: Previous, seed: int) -> Scores | None:
        """Shape (n,), high is suspicious, comparable between tiers; None if there is nothing to compare with yet."""

    @classmethod
    def least_holders(cls, f: int, privacy_quorum: int) -> int:
        """As :meth:`Filter.least_holders`: 3f + 1, of which 2f + 1 are left when f are rejected."""
        return quorum_before_selection(f, privacy_quorum)

    @final
    def apply(self, updates: Updates, *, previous: Previous, seed: int) -> Filtered:
        """As :meth:`Filter.apply`. Every band that opens keeps max(2f + 1, `privacy_quorum`) accepted holders or more."""
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


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MultiKrum(Selection):
    """Rejects those farthest from their nearest peers. Weak against colluders.

    Copies of one update are each other's nearest, so attackers that copy an honest client have others of its tier rejected:
    nothing is claimed of that here.
    """

    @property
    def name(self) -> str:
        """What it is called in verdicts."""
        return "multi-krum"

    @classmethod
    def least_holders(cls, f: int, privacy_quorum: int) -> int:
        """As :meth:`Selection.least_holders`, and the 2f + 3 of its scores."""
        return max(quorum_before_selection(f, privacy_quorum), krum_quorum(f, privacy_quorum))

    def suspicion(self, updates: Updates, bands: Bands, *, previous: Previous, seed: int) -> Scores:  # noqa: ARG002
        """As :meth:`Selection.suspicion`."""
        return tier_scores(
            scores.distances(updates, bands, f=self.f),
            tiers_of(updates, bands),
            units=np.sqrt(scores.lengths_held(updates, bands)),
        )


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
        """What it is called in verdicts."""
        return "divide and conquer"

    def suspicion(self, updates: Updates, bands: Bands, *, previous: Previous, seed: int) -> Scores:  # noqa: ARG002
        """As :meth:`Selection.suspicion`."""
        return _spectral(updates, bands, seed=seed, coordinates=self.coordinates)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CosineToPrevious(Selection):
    """Rejects those that point least along the previous step. Judges nobody in round 1; slow drift leads it astray.

    What another client sends enters a score through the middle and the spread of its tier alone, and these have a floor: no client
    gets another rejected by moving towards it. f clients are rejected in every round, and what falls to no copier falls to the
    others: an honest client is rejected as often as without copies, or its share f / (n - f), and at most 0.14 more (measured, the
    largest over 14 federations with tiers of 2 to 12).

    A direction has no length: without a clip before it, one long update along the previous step moves the average anywhere.
    """

    @property
    def name(self) -> str:
        """What it is called in verdicts."""
        return "cosine to the previous step"

    def suspicion(self, updates: Updates, bands: Bands, *, previous: Previous, seed: int) -> Scores | None:  # noqa: ARG002
        """As :meth:`Selection.suspicion`."""
        return _cosine(updates, bands, previous)


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
        """What it is called in verdicts."""
        return "tier-dnc-cosine"

    def suspicion(self, updates: Updates, bands: Bands, *, previous: Previous, seed: int) -> Scores:
        """As :meth:`Selection.suspicion`."""
        common = _spectral(updates, bands, seed=seed, coordinates=self.coordinates)
        against = _cosine(updates, bands, previous)
        return common if against is None else np.maximum(common, against)


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


def _spectral(updates: Updates, bands: Bands, *, seed: int, coordinates: int) -> Scores:
    found = scores.spectral(updates, bands, seed=seed, coordinates=coordinates)
    return tier_scores(found, tiers_of(updates, bands))


def _cosine(updates: Updates, bands: Bands, previous: Previous) -> Scores | None:
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
