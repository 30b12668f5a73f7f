"""Filters against attacks of a fifth of the clients, spread over all tiers; synthetic updates, fixed seeds.

Sources: sign flip and noise (Blanchard et al. 2017), inner-product manipulation (Xie et al. 2019), "a little is enough"
(Baruch et al. 2019), a common direction of the attackers' own (a backdoor's signature).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rbla_secure.config.choices import FilterName
from rbla_secure.robustness.registry import build
from rbla_secure.robustness.updates import BandUpdates, Updates
from tests.support.filtered import average, draw

RANKS = [2] * 10 + [4] * 10 + [8] * 10 + [16] * 10
ATTACKERS = [0, 1, 10, 11, 20, 21, 30, 31]
F = len(ATTACKERS)
ROUNDS = 10

Array = Any
Attack = Callable[[Array, Array, np.random.Generator], Array]

# From the attackers' own honest values and those of the others in a band: what they send instead.
ATTACKS: dict[str, Attack] = {
    "sign flip": lambda own, _, __: -own,
    "inner product": lambda own, honest, _: np.tile(-2.0 * honest.mean(axis=0), (len(own), 1)),
    "a little is enough": lambda own, honest, _: np.tile(
        honest.mean(axis=0) - 1.5 * honest.std(axis=0), (len(own), 1)
    ),
    "noise": lambda own, honest, g: np.sqrt(np.square(honest).mean()) * g.normal(size=own.shape),
    "common direction": lambda own, _, __: own + 0.8 * np.random.default_rng(7).normal(size=own.shape[1]),
}


def honest_round(seed: int) -> Updates:
    return draw(RANKS, seed, signal=0.3, length=40)


def attacked(attack: Attack, seed: int) -> Updates:
    updates = honest_round(seed)
    generator = np.random.default_rng(1000 + seed)
    bands = {}
    for index, band in updates.bands.items():
        bad = np.isin(band.holders, ATTACKERS)
        values = band.values.copy()
        values[bad] = attack(values[bad], values[~bad], generator)
        bands[index] = BandUpdates(holders=band.holders, values=values)
    return Updates(clients=updates.clients, ranks=updates.ranks, weights=updates.weights, bands=bands)


def found_by(name: FilterName, attack: Attack) -> float:
    """The share of attackers that are rejected, over rounds that each have an honest one before them."""
    chosen = build(name, f=F, privacy_quorum=3)
    hits = 0
    for seed in range(ROUNDS):
        before = {i: band.values.mean(axis=0) for i, band in honest_round(500 + seed).bands.items()}
        verdicts = list(chosen.apply(attacked(attack, seed), previous=before, seed=seed).verdicts.values())
        hits += sum(not verdicts[i].accepted for i in ATTACKERS)
    return hits / (ROUNDS * F)


@pytest.mark.parametrize("attack", ATTACKS)
def test_both_scores_together_find_most_attackers_that_do_not_adapt(attack: str) -> None:
    """Chance is a fifth."""
    assert found_by(FilterName.TIER_DNC_COSINE, ATTACKS[attack]) > 0.7


def test_each_half_of_it_is_blind_to_what_the_other_sees() -> None:
    assert found_by(FilterName.COSINE_TO_PREVIOUS, ATTACKS["a little is enough"]) < 0.5
    assert found_by(FilterName.DIVIDE_AND_CONQUER, ATTACKS["noise"]) < 0.5


def test_distances_miss_attackers_that_agree() -> None:
    """Why Multi-Krum is recommended to nobody: colluders are each other's nearest neighbors."""
    assert found_by(FilterName.MULTI_KRUM, ATTACKS["inner product"]) < 0.1


@pytest.mark.parametrize(
    "name", [FilterName.TIER_DNC_COSINE, FilterName.COORDINATE_MEDIAN, FilterName.TRIMMED_MEAN]
)
def test_the_average_comes_nearer_to_that_of_the_honest(name: FilterName) -> None:
    """Against attackers that turn the average round by far. Small turns inside the noise bias a coordinate rule more."""
    updates = attacked(lambda own, honest, _: np.tile(-20.0 * honest.mean(axis=0), (len(own), 1)), 1)
    before = {i: band.values.mean(axis=0) for i, band in honest_round(501).bands.items()}

    plain = build(FilterName.NONE, f=F, privacy_quorum=3).apply(updates, previous=before, seed=1)
    filtered = build(name, f=F, privacy_quorum=3).apply(updates, previous=before, seed=1)

    # Band 3 has 10 holders, fewer than 2 * 8 + 1; band 2 has 20, fewer than the 3 * 8 + 1 of a filter that rejects.
    rejects = not all(verdict.accepted for verdict in filtered.verdicts.values())
    assert set(filtered.totals) == ({0, 1} if rejects else {0, 1, 2})
    for index, total in filtered.totals.items():
        band = updates.bands[index]
        honest = band.values[~np.isin(band.holders, ATTACKERS)].mean(axis=0)
        error = np.linalg.norm(average(total) - honest)
        assert error < np.linalg.norm(average(plain.totals[index]) - honest)
