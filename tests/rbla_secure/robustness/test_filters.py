"""Filters over single updates of unequal rank: what opens, who is rejected, and what is averaged."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbla_secure.config import RobustnessConfig
from rbla_secure.config.choices import FilterName, PreStepName
from rbla_secure.errors import RobustnessError
from rbla_secure.robustness import scores
from rbla_secure.robustness.filter import Filter, FilterOptions
from rbla_secure.robustness.filters.centered_clipping import CenteredClipping
from rbla_secure.robustness.filters.divide_and_conquer import DivideAndConquer
from rbla_secure.robustness.filters.fl_trust import FlTrust
from rbla_secure.robustness.filters.geometric_median import GeometricMedian
from rbla_secure.robustness.filters.norm_bound import NormBound
from rbla_secure.robustness.filters.tier_dnc_cosine import TierDncCosine
from rbla_secure.robustness.pre_steps.bucketing import Bucketing
from rbla_secure.robustness.pre_steps.neighbor_mixing import NeighborMixing
from rbla_secure.robustness.registry import build
from rbla_secure.robustness.rules.clipping import centered_clipping, norm_bound
from rbla_secure.robustness.rules.coordinatewise import coordinate_median, trimmed_mean
from rbla_secure.robustness.rules.directional import fltrust
from rbla_secure.robustness.rules.geometric import geometric_median
from rbla_secure.robustness.rules.krum import krum, multi_krum
from rbla_secure.robustness.rules.mixing import nearest_neighbor_mixing
from rbla_secure.robustness.rules.spectral import divide_and_conquer
from rbla_secure.robustness.updates import BandUpdates, Updates
from rbla_secure.robustness.verdicts import Filtered
from tests.support.filtered import average, changed, draw
from tests.support.properties import PROPERTY

MIXED = [2] * 12 + [4] * 10 + [8] * 10
SEEDS = st.integers(0, 2**32 - 1)
# Those that reject f clients and average the others.
SELECTING = (
    FilterName.MULTI_KRUM,
    FilterName.DIVIDE_AND_CONQUER,
    FilterName.COSINE_TO_PREVIOUS,
    FilterName.TIER_DNC_COSINE,
)


def step_of(updates: Updates) -> dict[int, Any]:
    """The unweighted mean of every band: as good a previous step as any."""
    return {index: band.values.mean(axis=0) for index, band in updates.bands.items()}


def options(updates: Updates) -> FilterOptions:
    return FilterOptions(
        settings=RobustnessConfig(bound=2.0, radius=2.0), reference=step_of(draw(updates.ranks.tolist(), 99))
    )


def run(
    name: FilterName,
    updates: Updates,
    *,
    f: int = 3,
    previous: Mapping[int, Any] | None = None,
    pre_step: PreStepName = PreStepName.NONE,
    seed: int = 5,
) -> Filtered:
    quorum = 1 if name is FilterName.KRUM else 3
    chosen = build(name, f=f, privacy_quorum=quorum, pre_step=pre_step, options=options(updates))
    return chosen.apply(updates, previous=previous, seed=seed)


def rejected(found: Filtered) -> list[int]:
    return [i for i, verdict in enumerate(found.verdicts.values()) if not verdict.accepted]


@pytest.mark.parametrize("name", FilterName)
@pytest.mark.parametrize("pre_step", PreStepName)
def test_every_filter_answers_for_every_client_and_band(name: FilterName, pre_step: PreStepName) -> None:
    updates = draw(MIXED, 1)

    found = run(name, updates, f=1, previous=step_of(draw(MIXED, 2)), pre_step=pre_step)

    assert tuple(found.verdicts) == updates.clients
    assert set(found.totals) == {0, 1, 2}
    assert found.closed == {}
    for index, total in found.totals.items():
        assert total.weighted_sum.shape == (updates.bands[index].values.shape[1],)
        assert total.weight > 0
        assert total.cut_off is None
    assert all(verdict.reason for verdict in found.verdicts.values())


@PROPERTY
@given(seed=SEEDS)
def test_with_one_rank_a_filter_is_its_rule(seed: int) -> None:
    """One tier, one band, equal weights: nothing is left of bands and tiers."""
    updates = draw([4] * 11, seed)
    x = updates.bands[0].values
    step = step_of(draw([4] * 11, 77))
    reference = step_of(draw([4] * 11, 99))[0]
    expected = {
        FilterName.NONE: x.mean(axis=0),
        FilterName.COORDINATE_MEDIAN: coordinate_median(x),
        FilterName.TRIMMED_MEAN: trimmed_mean(x, f=3),
        FilterName.KRUM: krum(x, f=3),
        FilterName.MULTI_KRUM: multi_krum(x, f=3),
        FilterName.GEOMETRIC_MEDIAN: geometric_median(x),
        FilterName.CENTERED_CLIPPING: centered_clipping(x, center=step[0], radius=2.0),
        FilterName.NORM_BOUND: norm_bound(x, bound=2.0),
        FilterName.DIVIDE_AND_CONQUER: divide_and_conquer(x, f=3, generator=np.random.default_rng([5, 0])),
        FilterName.FL_TRUST: fltrust(x, reference=reference),
    }

    for name, rule in expected.items():
        found = run(name, updates, previous=step)
        assert average(found.totals[0]) == pytest.approx(rule, abs=1e-9), name
    mixed = run(FilterName.TRIMMED_MEAN, updates, pre_step=PreStepName.NEIGHBOR_MIXING)
    assert average(mixed.totals[0]) == pytest.approx(trimmed_mean(nearest_neighbor_mixing(x, f=3), f=3))


@pytest.mark.parametrize(
    "name",
    [
        FilterName.TRIMMED_MEAN,
        FilterName.MULTI_KRUM,
        FilterName.DIVIDE_AND_CONQUER,
        FilterName.COSINE_TO_PREVIOUS,
        FilterName.TIER_DNC_COSINE,
    ],
)
def test_against_nobody_a_filter_is_the_mean_over_holders(name: FilterName) -> None:
    updates = draw(MIXED, 3)

    found = run(name, updates, f=0, previous=step_of(draw(MIXED, 4)))

    for index, band in updates.bands.items():
        assert average(found.totals[index]) == pytest.approx(band.values.mean(axis=0), abs=1e-12)
    assert rejected(found) == []


def test_weights_count_in_the_mean_of_those_accepted() -> None:
    weights = np.linspace(0.1, 1.0, len(MIXED)).tolist()
    updates = draw(MIXED, 3, weights=weights)

    found = run(FilterName.DIVIDE_AND_CONQUER, updates)

    kept = np.array([verdict.accepted for verdict in found.verdicts.values()])
    for index, band in updates.bands.items():
        shares = updates.weights[band.holders] * kept[band.holders]
        assert found.totals[index].weight == pytest.approx(shares.sum())
        assert found.totals[index].weighted_sum == pytest.approx(shares @ band.values, abs=1e-12)


@pytest.mark.parametrize("name", FilterName)
def test_the_order_of_clients_inside_a_tier_does_not_matter(name: FilterName) -> None:
    """Clients of one tier exchange their updates: the totals stay, and verdicts go along."""
    updates = draw(MIXED, 8)
    order = np.concatenate([np.random.default_rng(1).permutation(12), np.arange(12, len(MIXED))])
    moved = Updates(
        clients=updates.clients,
        ranks=updates.ranks,
        weights=updates.weights,
        bands={
            index: BandUpdates(holders=band.holders, values=band.values[order] if index == 0 else band.values)
            for index, band in updates.bands.items()
        },
    )
    previous = step_of(draw(MIXED, 9))

    before, after = run(name, updates, previous=previous), run(name, moved, previous=previous)

    for index, total in before.totals.items():
        assert after.totals[index].weighted_sum == pytest.approx(total.weighted_sum, abs=1e-9)
    stay = [verdict.accepted for verdict in before.verdicts.values()]
    assert [stay[i] for i in order] == [verdict.accepted for verdict in after.verdicts.values()]


@pytest.mark.parametrize("name", FilterName)
def test_a_band_below_its_quorum_is_absent(name: FilterName) -> None:
    """Rank capture: two attackers alone at the highest rank own a band, which therefore stays closed."""
    updates = changed(draw([4] * 12 + [8] * 2, 1), [12, 13], shift=1e6)

    found = run(name, updates, f=2, previous=step_of(draw([4] * 12 + [8] * 2, 2)))

    assert set(found.totals) == {0}
    needed = 7 if name in {FilterName.KRUM, *SELECTING} else 5
    assert found.closed == {1: f"2 holders, {needed} needed against f=2"}


@pytest.mark.parametrize("name", FilterName)
def test_with_too_few_clients_nothing_opens_and_nothing_is_raised(name: FilterName) -> None:
    found = run(name, draw([2, 2, 4], 1), f=2, previous=None)

    assert found.totals == {}
    assert set(found.closed) == {0, 1}
    assert len(found.verdicts) == 3


def test_holders_of_no_weight_do_not_make_a_quorum() -> None:
    updates = draw([2] * 5, 1, weights=[1.0, 1.0, 0.0, 0.0, 0.0])

    assert run(FilterName.NONE, updates, f=1).closed == {0: "2 holders, 3 needed against f=1"}
    assert set(run(FilterName.NONE, draw([2] * 5, 1), f=1).totals) == {0}


ROBUST = [name for name in FilterName if name not in {FilterName.NONE, FilterName.COSINE_TO_PREVIOUS}]


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("huge", [1e30, -1e30])
@pytest.mark.parametrize("attacker", [0, 31])
def test_one_client_at_a_huge_value_moves_no_average_far(
    name: FilterName, huge: float, attacker: int
) -> None:
    updates = changed(draw(MIXED, 6), [attacker], factor=0.0, shift=huge)

    found = run(name, updates, previous=step_of(draw(MIXED, 7)))

    for total in found.totals.values():
        assert np.abs(average(total)).max() < 10.0


def test_without_a_filter_one_client_moves_the_average_anywhere() -> None:
    """The check above can fail."""
    found = run(FilterName.NONE, changed(draw(MIXED, 6), [0], shift=1e30))

    assert np.abs(average(found.totals[0])).max() > 1e20


def test_a_direction_alone_bounds_no_length() -> None:
    """Why clipping stands before the cosine to the previous step, and why it needs another score beside it."""
    previous = step_of(draw(MIXED, 7))
    along = {
        i: BandUpdates(holders=b.holders, values=b.values.copy()) for i, b in draw(MIXED, 6).bands.items()
    }
    for index, band in along.items():
        band.values[band.holders == 31] = 1e30 * previous[index]
    honest = draw(MIXED, 6)
    updates = Updates(clients=honest.clients, ranks=honest.ranks, weights=honest.weights, bands=along)

    fooled = run(FilterName.COSINE_TO_PREVIOUS, updates, previous=previous)
    other = run(FilterName.TIER_DNC_COSINE, updates, previous=previous)

    assert np.abs(average(fooled.totals[0])).max() > 1e20
    assert np.abs(average(other.totals[0])).max() < 10.0


@pytest.mark.parametrize("name", [FilterName.DIVIDE_AND_CONQUER, FilterName.TIER_DNC_COSINE])
def test_attackers_that_pull_together_are_rejected_in_every_tier(name: FilterName) -> None:
    attackers = [0, 1, 14, 15, 25, 26]
    updates = changed(draw(MIXED, 11), attackers, shift=3.0)

    found = run(name, updates, f=6)

    assert rejected(found) == attackers


@pytest.mark.parametrize("name", [FilterName.COSINE_TO_PREVIOUS, FilterName.TIER_DNC_COSINE])
def test_turned_signs_are_rejected_by_the_step_before(name: FilterName) -> None:
    attackers = [3, 13, 23]
    ranks = MIXED
    updates = changed(draw(ranks, 12, length=40, noise=0.5), attackers, factor=-1.0)

    found = run(name, updates, previous=step_of(draw(ranks, 13, length=40, noise=0.5)))

    assert rejected(found) == attackers


def test_in_the_first_round_nobody_is_judged_by_the_step_before() -> None:
    updates = changed(draw(MIXED, 12), [3], factor=-1.0)
    zero = {index: np.zeros(band.values.shape[1]) for index, band in updates.bands.items()}

    for previous in (None, {}, zero):
        found = run(FilterName.COSINE_TO_PREVIOUS, updates, previous=previous)
        assert rejected(found) == []
        assert all("no previous step" in verdict.reason for verdict in found.verdicts.values())
        alone = run(FilterName.DIVIDE_AND_CONQUER, updates, previous=previous)
        assert rejected(run(FilterName.TIER_DNC_COSINE, updates, previous=previous)) == rejected(alone)


def test_a_reason_names_rule_score_and_limit() -> None:
    found = run(FilterName.DIVIDE_AND_CONQUER, changed(draw(MIXED, 11), [4], shift=9.0), f=1)

    verdict = found.verdicts["client-004"]
    limit = max(v.score or 0.0 for v in found.verdicts.values() if v.accepted)
    assert verdict.reason == (
        f"divide and conquer: score {verdict.score:.2f}, beyond the limit {limit:.2f} "
        "(the 1 highest of 32 are rejected)"
    )


def test_a_band_whose_accepted_holders_are_too_few_stays_closed() -> None:
    """Whoever is rejected: eight must be left and three may go, so ten holders are one too few, and eleven are enough."""
    for count, closed in ((10, {1: "10 holders, 11 needed against f=3"}), (11, {})):
        updates = changed(draw([2] * 20 + [4] * count, 1), [20, 21, 22], shift=20.0)
        found = build(FilterName.DIVIDE_AND_CONQUER, f=3, privacy_quorum=8).apply(
            updates, previous=None, seed=1
        )

        assert rejected(found) == [20, 21, 22]
        assert found.closed == closed
        assert found.totals.keys() == {0, 1} - closed.keys()


def test_accepted_holders_of_no_weight_do_not_count() -> None:
    updates = draw([2] * 20 + [4] * 8, 1, weights=[1.0] * 24 + [1.0, 1.0, 0.0, 0.0])

    found = build(FilterName.DIVIDE_AND_CONQUER, f=2, privacy_quorum=5).apply(
        changed(updates, [20, 21], shift=20.0), previous=None, seed=1
    )

    assert rejected(found) == [20, 21]
    assert found.closed == {1: "6 holders, 7 needed against f=2"}


def test_the_cosine_is_that_of_all_bands_together_that_the_previous_step_has() -> None:
    """Against the cosine of vectors put side by side; a band of zeros, and a missing one, do not count."""
    updates = draw(MIXED, 4)
    step = step_of(draw(MIXED, 5))
    step[0] *= 3.0

    def expected(bands: list[int]) -> list[float]:
        found = []
        for i in range(len(MIXED)):
            held = [b for b in bands if i in updates.bands[b].holders]
            own = np.concatenate([updates.bands[b].values[updates.bands[b].holders == i][0] for b in held])
            other = np.concatenate([step[b] for b in held])
            found.append(own @ other / np.linalg.norm(own) / np.linalg.norm(other))
        return found

    assert scores.cosines_to(updates, updates.bands, step) == pytest.approx(expected([0, 1, 2]))
    without = {index: vector for index, vector in step.items() if index != 1}
    assert scores.cosines_to(updates, updates.bands, without) == pytest.approx(expected([0, 2]))
    zero = without | {1: np.zeros_like(step[1])}
    assert scores.cosines_to(updates, updates.bands, zero) == pytest.approx(expected([0, 2]))
    assert not scores.cosines_to(updates, updates.bands, {}).any()


def test_equal_scores_are_drawn_by_the_seed() -> None:
    updates = changed(draw([2] * 9, 1), range(9), factor=0.0)

    chosen = {tuple(rejected(run(FilterName.TIER_DNC_COSINE, updates, f=1, seed=seed))) for seed in range(40)}

    assert len(chosen) > 4


def test_the_answer_depends_on_nothing_but_its_arguments() -> None:
    for name in FilterName:
        first, second = (run(name, draw(MIXED, 4), previous=step_of(draw(MIXED, 5))) for _ in range(2))
        assert first.verdicts == second.verdicts
        assert all(
            (first.totals[i].weighted_sum == second.totals[i].weighted_sum).all() for i in first.totals
        )


def test_krum_takes_one_client_per_band_and_says_so() -> None:
    updates = draw(MIXED, 4)

    found = run(FilterName.KRUM, updates)

    for index, band in updates.bands.items():
        winner = [(average(found.totals[index]) == pytest.approx(row)) for row in band.values]
        client = updates.clients[band.holders[winner.index(True)]]
        assert str(index) in found.verdicts[client].reason
    with pytest.raises(RobustnessError, match="privacy_quorum=3 must be 1"):
        build(FilterName.KRUM, f=1, privacy_quorum=3)


def test_trust_follows_the_reference_and_closes_bands_that_nobody_deserves() -> None:
    updates = draw(MIXED, 4, noise=0.1)
    against = changed(updates, range(22, 32), factor=-1.0)

    found = run(FilterName.FL_TRUST, against)

    assert rejected(found) == list(range(22, 32))
    assert found.closed == {2: "0 trusted holders, 7 needed against f=3"}


def test_buckets_stay_inside_a_tier_and_pass_their_verdict_on() -> None:
    updates = changed(draw(MIXED, 11), [0], shift=30.0)

    found = run(FilterName.DIVIDE_AND_CONQUER, updates, f=1, pre_step=PreStepName.BUCKETING)

    assert len(rejected(found)) == 2
    assert 0 in rejected(found)
    assert all(i < 12 for i in rejected(found))
    assert "bucket-" in found.verdicts["client-000"].reason


def test_buckets_leave_the_mean_as_it_is_full_or_not() -> None:
    ranks = [2] * 11 + [4] * 9 + [8] * 9
    updates = draw(ranks, 11, weights=np.random.default_rng(1).uniform(size=len(ranks)).tolist())

    plain = run(FilterName.NONE, updates, f=1)
    bucketed = run(FilterName.NONE, updates, f=1, pre_step=PreStepName.BUCKETING)

    for index, total in plain.totals.items():
        assert average(bucketed.totals[index]) == pytest.approx(average(total), abs=1e-12)
        assert bucketed.totals[index].weight == pytest.approx(total.weight / 2)


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        (NormBound, {"bound": -1.0}, "bound"),
        (CenteredClipping, {"radius": 0.0}, "radius"),
        (CenteredClipping, {"radius": 1.0, "iterations": 0}, "iterations"),
        (FlTrust, {"reference": {0: np.zeros(3)}}, "no direction"),
        (FlTrust, {"reference": {0: np.array([np.nan])}}, "not finite"),
        (GeometricMedian, {"nu": 0.0}, "nu"),
        (GeometricMedian, {"iterations": 0}, "iterations"),
        (DivideAndConquer, {"coordinates": 0}, "coordinates"),
        (TierDncCosine, {"coordinates": 0}, "coordinates"),
    ],
)
def test_parameters_without_meaning_are_refused(
    kind: type[Filter], parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(RobustnessError, match=message):
        kind(f=1, privacy_quorum=3, **parameters)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        (FilterName.NORM_BOUND, "clip_norm"),
        (FilterName.CENTERED_CLIPPING, "clip_norm"),
        (FilterName.FL_TRUST, "reference"),
    ],
)
def test_a_filter_must_be_given_what_it_cannot_do_without(name: FilterName, option: str) -> None:
    with pytest.raises(RobustnessError, match=f"`{option}`"):
        build(name, f=1, privacy_quorum=3)


@pytest.mark.parametrize(
    ("settings", "bound", "radius"),
    [
        (RobustnessConfig(), 0.75, 1.5),
        (RobustnessConfig(bound=0.25, radius=0.5), 0.25, 0.5),
    ],
)
def test_parameters_are_those_of_the_configuration(
    settings: RobustnessConfig, bound: float, radius: float
) -> None:
    """Where they are 0 they follow from the clip norm; and the limit of a step knows the same bound."""
    options = FilterOptions(settings=settings, clip_norm=1.5)

    assert NormBound.of(1, 3, options).bound == NormBound.update_limit(options) == bound
    assert CenteredClipping.of(1, 3, options).radius == radius


@pytest.mark.parametrize(("f", "quorum"), [(-1, 3), (1, 0)])
def test_impossible_numbers_are_refused(f: int, quorum: int) -> None:
    with pytest.raises(RobustnessError):
        build(FilterName.NONE, f=f, privacy_quorum=quorum)


def test_a_pre_step_promises_what_its_filter_promises() -> None:
    inner = build(FilterName.TRIMMED_MEAN, f=1, privacy_quorum=3)

    with pytest.raises(RobustnessError, match="f=2"):
        NeighborMixing(f=2, privacy_quorum=3, inner=inner)
    with pytest.raises(RobustnessError, match="size"):
        Bucketing(f=1, privacy_quorum=3, inner=inner, size=0)
