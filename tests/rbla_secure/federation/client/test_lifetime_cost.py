"""What a round costs a client at most, against every list of survivors that could open something."""

from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import combinations
from typing import Any

import pytest

from protocols.session import ClientId
from rbla_secure.federation.client.lifetime_cost import BARE_STEPS, cost_of_round, fewest
from rbla_secure.planning.noise import views
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.ledger import Observer
from rbla_secure.privacy.noise import NOTHING, Release
from tests.support.federations import make_plan

NOISY: dict[str, Any] = {
    "secure_sum": "masking",
    "noise_multiplier": 4.0,
    "tiers": {"large": {"rank": 3, "clients": 4}, "small": {"rank": 1, "clients": 4}},
    "privacy": {"colluders": 1},
}
ME, SMALL_ME = "large-01", "small-01"


def noisy(**changes: Any) -> Plan:
    return make_plan(**{**NOISY, **changes})


def lists(plan: Plan, me: ClientId, least: int) -> Iterator[frozenset[ClientId]]:
    """Every list of survivors of at least so many that a client is on."""
    others = [client for client in plan.ranks if client != me]
    for count in range(least - 1, len(others) + 1):
        yield from (frozenset((me, *chosen)) for chosen in combinations(others, count))


def dearest(plan: Plan, me: ClientId, least: int) -> Release:
    """The least noise and the largest slack of all these lists and observers, by trying them all."""
    mechanism, quorum, found = plan.mechanism, plan.promises.row_quorum, [NOTHING]
    assert mechanism is not None
    for survivors in lists(plan, me, least):
        present = {}
        for band in plan.held_bands(me):
            holders = {client for client, rank in plan.ranks.items() if rank >= band.stop} & survivors
            uploaders = survivors if plan.config.upload == "padded" else holders
            if len(holders) >= quorum:
                present[band.index] = len(uploaders)
        if present:
            seen = views(plan.promises, mechanism, present=present, colluding=plan.promises.colluders)
            found += [seen[observer] for observer in plan.promises.claimed]
    least_noise = min(found, key=lambda release: release.noise_multiplier)
    return replace(least_noise, slack=max(release.slack for release in found))


WITH_ONE_LIST: dict[str, dict[str, Any]] = {
    "consistency": {"masking": {"profile": "consistency"}},
    "semi-honest": {"masking": {"profile": "semi-honest"}},
    "encryption": {"secure_sum": "homomorphic"},
    "recovered": {
        "masking": {"profile": "consistency"},
        "privacy": {"colluders": 1, "recovered_dropout": 0.25},
    },
    "too little recovered": {
        "masking": {"profile": "consistency"},
        "privacy": {"colluders": 1, "recovered_dropout": 0.125},
    },
    "all but one": {"masking": {"profile": "consistency", "threshold": 7}},
}


@pytest.mark.parametrize("me", [ME, SMALL_ME])
@pytest.mark.parametrize("name", WITH_ONE_LIST)
def test_no_list_of_the_threshold_or_more_costs_more(name: str, me: ClientId) -> None:
    """To the digit the worst of all lists. The planned figure, which is the control, is below that of some list."""
    plan = noisy(**WITH_ONE_LIST[name])

    cost = cost_of_round(plan, me, plan.mechanism)

    worst = dearest(plan, me, plan.promises.threshold)
    assert cost.counted.noise_multiplier == pytest.approx(worst.noise_multiplier, rel=1e-12)
    assert cost.counted.slack == pytest.approx(worst.slack, rel=1e-12)
    if name != "recovered":
        assert cost.expected.noise_multiplier > 1.05 * worst.noise_multiplier


@pytest.mark.parametrize("upload", ["banded", "padded"])
def test_where_lists_may_differ_the_quorum_alone_counts(upload: str) -> None:
    """Under one-answer what is opened may be over fewer than the threshold: over the quorum."""
    plan = noisy(upload=upload)

    cost = cost_of_round(plan, ME, plan.mechanism)

    worst = dearest(plan, ME, plan.promises.row_quorum)
    assert cost.counted.noise_multiplier == pytest.approx(worst.noise_multiplier, rel=1e-12)
    assert cost.counted.noise_multiplier < dearest(plan, ME, plan.promises.threshold).noise_multiplier
    assert set(fewest(plan, ME).values()) == {3}


def test_classes_that_are_left_out_count_as_absent() -> None:
    """With rows dropped beyond ranks, members of a rank that are too few are in no sum: two of each at most."""
    folded = noisy(masking={"profile": "consistency", "threshold": 8})
    dropped = noisy(masking={"profile": "consistency", "threshold": 8}, lora={"rest": "dropped"})

    assert fewest(folded, ME) == {0: 8, 1: 4}
    assert fewest(dropped, ME) == {0: 4, 1: 3}


def test_bands_that_a_client_does_not_hold_do_not_count() -> None:
    """A client of rank 1 is hidden by all who upload its row, whoever of the large ones is missing."""
    plan = noisy(masking={"profile": "consistency", "threshold": 7})

    costs = [cost_of_round(plan, me, plan.mechanism).counted.noise_multiplier for me in (ME, SMALL_ME)]

    assert fewest(plan, SMALL_ME) == {0: 7}
    assert costs[0] < costs[1]


def test_as_many_who_pool_as_may_be_summed_leave_no_noise() -> None:
    """With as many colluders as the quorum everything may be spent, and is counted as spent."""
    plan = noisy(privacy={"colluders": 3})

    cost = cost_of_round(plan, ME, plan.mechanism)

    assert cost.counted.noise_multiplier == 0.0
    assert cost.expected.noise_multiplier > 1.0


def test_in_the_clear_one_share_hides_a_client() -> None:
    """Whoever drops out: the server reads the upload itself."""
    plan = noisy(secure_sum="plain")
    assert plan.mechanism is not None
    alone = views(plan.promises, plan.mechanism, present={0: 8, 1: 4}, colluding=1)[Observer.SERVER]

    cost = cost_of_round(plan, ME, plan.mechanism)

    assert cost.counted.noise_multiplier == cost.expected.noise_multiplier == alone.noise_multiplier
    assert alone.noise_multiplier < 2.0


def test_noise_of_the_server_is_the_same_whoever_drops_out() -> None:
    """Central noise: nothing is claimed against the server, and readers see all of it."""
    plan = noisy(privacy={"mechanism": "central"})

    cost = cost_of_round(plan, ME, plan.mechanism)

    assert cost.counted.noise_multiplier == cost.expected.noise_multiplier == pytest.approx(4.0, rel=1e-6)


def test_in_groups_the_noise_is_that_of_a_group() -> None:
    """Over its quorum at the least, and over all its members as expected."""
    plan = noisy(
        tiers={"large": {"rank": 3, "clients": 8}, "small": {"rank": 1, "clients": 8}},
        robustness={"group_size": 4},
        privacy={"colluders": 0},
    )
    assert plan.mechanism is not None

    cost = cost_of_round(plan, ME, plan.mechanism)

    of_three = views(plan.promises, plan.mechanism, present={0: 3, 1: 3}, colluding=0)[Observer.PARTICIPANT]
    of_four = views(plan.promises, plan.mechanism, present={0: 4, 1: 4}, colluding=0)[Observer.PARTICIPANT]
    assert fewest(plan, ME) == {0: 3, 1: 3}
    assert cost.counted.noise_multiplier == of_three.noise_multiplier
    assert cost.expected.noise_multiplier == of_four.noise_multiplier


def test_noise_that_is_not_there_or_follows_from_the_seed_spends_everything() -> None:
    """At either level alone."""
    sample_level = {"sample_level": {"noise_multiplier": 1.0}, "training": {"steps": 7}}
    bare, inside = make_plan(), make_plan(**sample_level)
    simulated = noisy(privacy={"colluders": 1, "simulation": True}, **sample_level)

    costs = [cost_of_round(plan, ME, plan.mechanism) for plan in (bare, inside, simulated)]

    assert [cost.counted.noise_multiplier for cost in costs] == [0.0] * 3
    assert [cost.samples.noise_multiplier for cost in costs] == [0.0, 1.0, 0.0]
    assert (costs[1].samples.sample_rate, costs[1].samples.steps) == (0.05, 7)
    assert costs[0].samples == BARE_STEPS


def test_every_figure_of_a_release_is_counted() -> None:
    """Whatever else a release may have: of noise the least counts, of all else the most. A new figure needs a look here."""
    known = {"noise_multiplier", "slack", "rho", "total_variation", "sample_rate"}

    assert {each.name for each in fields(Release)} <= known
