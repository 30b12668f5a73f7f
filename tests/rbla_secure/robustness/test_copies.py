"""Attackers that copy, or nearly copy, a client of their own tier: nobody is rejected because another moved towards somebody.

The same federation twice, over many draws: once all clients send what they are, once the first of the smaller tier send what
their tier-mate sends, up to one step of the grid. An attacker that copies is seldom rejected itself, and f clients are rejected
in every round: what it has got rid of falls to the n - f others, f / (n - f) of a rejection to each. An honest client may be rejected
as often as without copies, or as often as that share: a tier of three is below it when nobody copies. What is left, a vote more
for the middle of the tier and the error of the draws, is the slack; before the spread had a floor, one client took half of all
rejections, 0.4 above its share.

The cosine to the previous step keeps this for every honest client. Divide and conquer looks for what clients have in common, and
whoever is copied has more in common: of that one client nothing is claimed under it, of all others it is.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbla_secure.config.choices import FilterName
from rbla_secure.robustness import selection, tiers
from rbla_secure.robustness.registry import build, filter_of
from rbla_secure.robustness.selection import Selection
from rbla_secure.robustness.updates import BandUpdates, Updates
from tests.support.filtered import names
from tests.support.properties import PROPERTY

CLAIMED = (FilterName.DIVIDE_AND_CONQUER, FilterName.COSINE_TO_PREVIOUS, FilterName.TIER_DNC_COSINE)
# Of an honest client's rejection rate: how far copies may lift it above its own and above its share.
SLACK = 0.14
DRAWS = 150
# One step of a grid of 16 bits over [-0.06, 0.06].
QUANTUM = 1.8e-6
OTHERS = 7
WIDTH = 200


@dataclass(frozen=True)
class Case:
    """A tier of rank 2 beside seven clients of rank 16, and who in it copies."""

    tier: int
    copiers: int
    nearness: float = 1.0

    @property
    def clients(self) -> int:
        return self.tier + OTHERS

    @property
    def share(self) -> float:
        """Of the rejections of a round, if none falls to a copier."""
        return self.copiers / (self.clients - self.copiers)


def drawn(case: Case, seed: int, *, copying: bool) -> tuple[Updates, dict[int, np.ndarray]]:
    """One round, and the step before it."""
    generator = np.random.default_rng(seed)
    common = 0.01 * generator.standard_normal(3 * WIDTH)
    x = 0.03 * generator.standard_normal((case.clients, 3 * WIDTH)) + common
    previous = {
        0: 0.01 * generator.standard_normal(WIDTH) + x[:, :WIDTH].mean(axis=0),
        1: x[case.tier :, WIDTH:].mean(axis=0),
    }
    if copying:
        for copier in range(case.copiers):
            x[copier] += case.nearness * (x[case.copiers] - x[copier])
            x[copier, copier] += QUANTUM
    bands = {
        0: BandUpdates(holders=np.arange(case.clients), values=x[:, :WIDTH]),
        1: BandUpdates(holders=np.arange(case.tier, case.clients), values=x[case.tier :, WIDTH:]),
    }
    ranks = np.array([2] * case.tier + [16] * OTHERS)
    weights = np.ones(case.clients)
    return Updates(clients=names(case.clients), ranks=ranks, weights=weights, bands=bands), previous


def rates(name: FilterName, case: Case, *, copying: bool, first: int = 0) -> np.ndarray:
    """How often each client is rejected, over the draws."""
    chosen = build(name, f=case.copiers, privacy_quorum=1)
    found = []
    for seed in range(first, first + DRAWS):
        updates, previous = drawn(case, seed, copying=copying)
        verdicts = chosen.apply(updates, previous=previous, seed=seed).verdicts
        found.append([not verdict.accepted for verdict in verdicts.values()])
    return np.mean(found, axis=0)


def rises(name: FilterName, case: Case) -> np.ndarray:
    """How far each honest client's rejection rate is above its own and its share where others copy the first of them."""
    copied, calm = (rates(name, case, copying=copying) for copying in (True, False))
    return np.asarray((copied - np.maximum(calm, case.share))[case.copiers :])


def rise(name: FilterName, case: Case) -> float:
    """That of the client that suffers most, of those of whom something is claimed."""
    return float(rises(name, case)[0 if name is FilterName.COSINE_TO_PREVIOUS else 1 :].max())


CASES = [Case(2, 1), Case(3, 1), Case(4, 1), Case(5, 1), Case(5, 2), Case(6, 1), Case(6, 2), Case(12, 3)]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", CLAIMED)
def test_a_copy_has_nobody_else_rejected(name: FilterName, case: Case) -> None:
    assert rise(name, case) <= SLACK


@pytest.mark.parametrize("nearness", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("tier", [3, 6])
@pytest.mark.parametrize("name", CLAIMED)
def test_neither_has_a_move_towards_somebody(name: FilterName, tier: int, nearness: float) -> None:
    """Half of the way, nine tenths of it and all but one hundredth: there is no distance at which it pays."""
    assert rise(name, Case(tier, 1, nearness)) <= SLACK


@pytest.mark.parametrize("name", [FilterName.DIVIDE_AND_CONQUER, FilterName.TIER_DNC_COSINE])
def test_what_clients_have_in_common_tells_against_the_one_that_is_copied(name: FilterName) -> None:
    """Why it is left out of the claim: two alike are a direction, and the follower that stays behind is not rejected for it."""
    assert rises(name, Case(6, 1, 0.9))[0] > SLACK


@PROPERTY
@given(first=st.integers(1_000, 2**31), tier=st.integers(3, 6), nearness=st.floats(0.0, 1.0))
def test_one_mover_decides_no_score_by_a_rounding(first: int, tier: int, nearness: float) -> None:
    """In any single draw: no client's z is beyond what clients differ by, whoever moves towards whom."""
    case = Case(tier, 1, nearness)
    updates, previous = drawn(case, first, copying=True)
    for name in CLAIMED:
        found = build(name, f=1, privacy_quorum=1).apply(updates, previous=previous, seed=first)
        assert max(abs(verdict.score or 0.0) for verdict in found.verdicts.values()) < 50


@pytest.mark.parametrize("name", [FilterName.COSINE_TO_PREVIOUS, FilterName.TIER_DNC_COSINE])
def test_without_the_floor_one_copy_has_a_client_rejected(
    name: FilterName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: where a tier's own spread is all there is, the third client of three takes the rejections of all."""
    monkeypatch.setattr(tiers, "POOLED_SHARE", 0.0)

    assert rise(name, Case(3, 1)) > SLACK


def test_distances_cannot_have_it() -> None:
    """Multi-Krum: a copy has a neighbor at no distance, whatever its spread. Nothing is claimed of it, and it shows."""
    assert rise(FilterName.MULTI_KRUM, Case(3, 1)) > SLACK


def test_what_is_claimed_is_every_selection_but_that() -> None:
    """A new rule that selects has to be put on one side."""
    kinds = {name for name in FilterName if issubclass(filter_of(name), Selection)}

    assert kinds == {*CLAIMED, FilterName.MULTI_KRUM}
    assert selection.tier_scores is tiers.tier_scores
