"""Sums over groups: behind masks as in the clear, what f spoilt groups can do, what they cost, who is suspicious."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from protocols.interface import SumResult
from protocols.session import ClientId
from rbla_secure.federation.client.contribution import contribution, weight_of
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.messages import StageRefusal, StageRequest, decode_answer
from rbla_secure.federation.round import RoundOutcome
from rbla_secure.federation.server.defence import Defence
from rbla_secure.federation.server.previous_step import PreviousStep
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.planning.plan import Plan
from tests.rbla_secure.federation.grouped import make_plan
from tests.support.defended import defended_round, make_hostile
from tests.support.federations import (
    InMemory,
    drift,
    make_adapter,
    make_participants,
    make_session,
)
from tests.support.identities import client_sum, server_sum

PROFILES = ("semi-honest", "one-answer", "consistency")
HUGE = 20_000
# One step of the widest grid used here.
GRID = 10.0 / 32_767


def play(plan: Plan, adapter: Adapter, *, gone: Mapping[ClientId, str] | None = None) -> RoundOutcome:
    return defended_round(plan, adapter, InMemory(make_participants(plan), silent_from=gone or {}))


def input_stage(plan: Plan) -> str:
    return server_sum(plan).input_stage


def facts(outcome: RoundOutcome) -> dict[str, Any]:
    """All that a round of groups decided, to the bit."""
    judged = outcome.judged
    assert judged is not None
    return {
        "adapter": outcome.adapter.to_bytes(),
        "totals": {i: (t.weighted_sum.tobytes(), t.weight) for i, t in judged.totals.items()},
        "verdicts": judged.verdicts,
        "groups": judged.groups,
        "flags": judged.flags,
        "voters": judged.voters,
        "closed": outcome.refused_bands,
        "survivors": outcome.survivors,
    }


# --- behind masks as in the clear ---


@pytest.mark.parametrize("weights", ["uniform", "examples"])
@pytest.mark.parametrize("rule", ["coordinate-median", "trimmed-mean"])
@pytest.mark.parametrize("profile", PROFILES)
def test_masked_groups_give_the_bytes_of_groups_in_the_clear(profile: str, rule: str, weights: str) -> None:
    """Totals, decisions and adapter; one client of a group of four is missing."""
    wanted = {"group_rule": rule}
    changes: dict[str, Any] = {"weights": weights, "examples_cap": 20}
    masked = make_plan(profile, robustness=wanted, **changes)
    clear = make_plan(profile, robustness=wanted, secure_sum="plain", **changes)
    adapter = make_adapter(masked)
    gone = fours(masked)[0]

    found = [play(plan, adapter, gone={gone: input_stage(plan)}) for plan in (masked, clear)]

    assert facts(found[0]) == facts(found[1])
    assert found[0].holders == {0: 18, 1: 9}


def fours(plan: Plan) -> tuple[ClientId, ...]:
    """The members of a group of four."""
    return next(
        group.members for group in plan.segmentation.groups(make_session(plan)) if len(group.members) == 4
    )


def threes(plan: Plan, rank: int) -> list[tuple[ClientId, ...]]:
    return [
        group.members
        for group in plan.segmentation.groups(make_session(plan))
        if len(group.members) == 3 and group.rank == rank
    ]


def test_groups_are_those_of_the_updates() -> None:
    """The median of the groups' means, computed from what each client trains, up to the grid."""
    plan = make_plan()
    adapter = make_adapter(plan)
    changes: dict[ClientId, Any] = {}

    def noting(name: ClientId) -> Any:
        def train(own: Adapter, seed: int) -> Rows:
            rows = drift(own, seed)
            change = rows.astype(np.float64) - own.rows
            changes[name] = change * min(1.0, plan.config.clip_norm / np.linalg.norm(change))
            return rows

        return train

    people = make_participants(plan, train={name: noting(name) for name in plan.ranks})
    outcome = defended_round(plan, adapter, InMemory(people))

    groups = plan.segmentation.groups(make_session(plan))
    means = {group.name: np.mean([changes[name] for name in group.members], axis=0) for group in groups}
    moved = outcome.adapter.rows.astype(np.float64) - adapter.rows
    first = np.median([mean[0] for mean in means.values()], axis=0)
    rest = np.median([mean[1:] for mean in means.values() if len(mean) == 3], axis=0)
    np.testing.assert_allclose(moved, np.vstack([first[None], rest]), atol=1e-5)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_segment_is_one_group_of_one_tier(profile: str) -> None:
    """Every client is in one segment, with all rows of its rank, and the quorum of privacy."""
    plan = make_plan(profile)
    session = make_session(plan)
    groups = plan.segmentation.groups(session)

    assert len(session.segments) == len(groups) == 6
    for segment, group in zip(session.segments, groups, strict=True):
        assert segment.members == segment.holders == group.members
        assert {plan.ranks[name] for name in group.members} == {group.rank}
        assert segment.quorum == 3
    assert sorted(name for group in groups for name in group.members) == sorted(plan.ranks)


def test_groups_are_drawn_anew_in_every_round_and_only_then() -> None:
    """By seed, round and cohort: neither run nor attempt, which a server could try, changes them."""
    plan = make_plan()
    first = plan.segmentation.groups(make_session(plan))

    assert first == plan.segmentation.groups(make_session(plan, attempt=7, run=bytes(16)))
    assert first == make_plan(secure_sum="plain").segmentation.groups(make_session(plan))
    assert first != plan.segmentation.groups(make_session(plan, round_number=2))
    assert first != make_plan(seed=1).segmentation.groups(make_session(make_plan(seed=1)))


@pytest.mark.parametrize("change", ["swap", "quorum", "merge"])
def test_a_client_refuses_another_grouping(change: str) -> None:
    """Two members swapped, a lower quorum, or two groups as one: the session is not the plan's."""
    plan = make_plan()
    session = make_session(plan)
    one, two, *others = session.segments
    if change == "swap":
        first = tuple(sorted([*one.members[1:], two.members[0]]))
        second = tuple(sorted([*two.members[1:], one.members[0]]))
        bent = (replace(one, members=first, holders=first), replace(two, members=second, holders=second))
    elif change == "quorum":
        bent = (replace(one, quorum=2), two)
    else:
        both = tuple(sorted(one.members + two.members))
        bent = (replace(one, members=both, holders=both), two)
    asked = replace(session, segments=(*bent, *others)) if change != "merge" else None
    if asked is None:
        rest = tuple(replace(segment, index=segment.index - 1) for segment in others)
        asked = replace(session, segments=(bent[0], *rest))
    request = StageRequest(session=asked.to_bytes(), payload=b"", adapter=b"").to_bytes()

    for name in (one.members[0], two.members[0], others[0].members[0]):
        answer = decode_answer(make_participants(plan)[name].handle(request))

        assert isinstance(answer, StageRefusal)
        assert "not the plan's" in answer.reason


@pytest.mark.parametrize("profile", PROFILES)
def test_a_group_below_its_quorum_stays_closed_and_the_others_open(profile: str) -> None:
    """Its survivors count nowhere; with it goes a vote of every band that it holds."""
    plan = make_plan(profile, robustness={"f": 0})
    gone = threes(plan, 3)[0][0]

    outcome = play(plan, make_adapter(plan), gone={gone: input_stage(plan)})

    assert outcome.holders == {0: 16, 1: 6}
    assert outcome.judged is not None
    assert len(outcome.judged.flags) == 5
    assert len(outcome.judged.groups) == 6


@pytest.mark.parametrize("profile", PROFILES)
def test_a_band_with_too_few_groups_stays_closed(profile: str) -> None:
    """Rows 2-3 have three groups and need three against one attacker: with two they are unchanged to the bit."""
    plan = make_plan(profile)
    adapter = make_adapter(plan)
    gone = threes(plan, 3)[0][0]

    outcome = play(plan, adapter, gone={gone: input_stage(plan)})

    assert outcome.refused_bands == {1: "2 groups, 3 needed against f=1"}
    assert outcome.adapter.rows[1:].tobytes() == adapter.rows[1:].tobytes()
    assert (outcome.adapter.rows[0] != adapter.rows[0]).any()


# --- what hostile groups can do ---


def poisoned(plan: Plan, adapter: Adapter, hostile: int, *, claim: int | None = None) -> RoundOutcome:
    """A round in which one member of each of so many groups of rank 3 sends huge values, and claims behind them."""
    people = make_participants(plan)

    ends = np.cumsum([plan.band_length(band) for band in plan.bands])

    def change(values: Any) -> Any:
        crafted = np.full_like(values, HUGE)
        for end in ends:
            tail = slice(end - plan.statistics, end)
            crafted[tail] = values[tail]
            if claim is not None:
                crafted[tail.start] = claim
        return crafted

    for members in threes(plan, 3)[:hostile]:
        make_hostile(people, members[0], change)
    return defended_round(plan, adapter, InMemory(people))


def wide_plan(profile: str = "semi-honest", **changes: Any) -> Plan:
    """A grid and a clip with room for values a hundred times as large as honest ones: what is huge is still an update."""
    return make_plan(profile, **{"quantization": {"bits": 16, "bound": 10.0}, "clip_norm": 40.0, **changes})


def honest_range(plan: Plan, adapter: Adapter) -> float:
    """The largest coordinate of an honest group's mean: drift moves nothing by more than 0.05."""
    assert plan.config.clip_norm >= 0.05 * math.sqrt(adapter.rows.size)
    return 0.05


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("rule", ["coordinate-median", "trimmed-mean"])
def test_f_spoilt_groups_leave_the_result_among_the_honest(rule: str, profile: str) -> None:
    """With one of three groups spoilt, no coordinate leaves the range of the honest groups."""
    plan = wide_plan(profile, robustness={"group_rule": rule})
    adapter = make_adapter(plan)

    outcome = poisoned(plan, adapter, 1)

    moved = outcome.adapter.rows.astype(np.float64) - adapter.rows
    assert outcome.holders == {0: 19, 1: 9}
    assert np.abs(moved).max() <= honest_range(plan, adapter) + GRID


@pytest.mark.parametrize("rule", ["coordinate-median", "trimmed-mean"])
def test_one_spoilt_group_more_moves_the_result(rule: str) -> None:
    """Two of three groups of rows 2-3: the inequality is sharp. In row 1, with six groups, two are still too few."""
    plan = wide_plan(robustness={"group_rule": rule})
    adapter = make_adapter(plan)

    outcome = poisoned(plan, adapter, 2)

    moved = outcome.adapter.rows.astype(np.float64) - adapter.rows
    spoilt = (HUGE / plan.quantizer.scale) / 3
    assert moved[1:].min() > 10 * honest_range(plan, adapter)
    assert np.abs(moved[1:]).max() <= spoilt + honest_range(plan, adapter)
    if rule == "coordinate-median":
        assert np.abs(moved[0]).max() <= honest_range(plan, adapter) + GRID
    else:
        # Trimming one on either side leaves one of the two in.
        assert moved[0].min() > honest_range(plan, adapter)


def half_a_unit(plan: Plan) -> Any:
    """Local training of everybody to the same change, half a unit of the grid in every coordinate: it cannot be sent as it is."""

    def train(adapter: Adapter, _seed: int) -> Rows:
        return (adapter.rows.astype(np.float64) + 0.5 / plan.quantizer.scale).astype(np.float32)

    return train


@pytest.mark.parametrize("weights", [{}, {"weights": "examples"}], ids=["uniform", "by examples"])
@pytest.mark.parametrize("rule", ["coordinate-median", "trimmed-mean"])
def test_rounding_moves_the_range_by_less_than_a_unit_of_the_grid(rule: str, weights: dict[str, Any]) -> None:
    """Of what members sent no average leaves the range; of what they had before rounding, by less than the stated bound."""
    plan = make_plan(
        robustness={"group_rule": rule}, quantization={"bits": 8, "bound": 0.1}, clip_norm=40.0, **weights
    )
    adapter, session = make_adapter(plan), make_session(plan)
    examples = {name: 10 + 330 * (number % 4) for number, name in enumerate(plan.ranks)}
    train = half_a_unit(plan)
    people = {
        name: Participant(
            name, plan=plan, secure_sum=client_sum(plan, name), train=train, examples=examples[name]
        )
        for name in plan.ranks
    }
    spoilt = threes(plan, 3)[0]
    make_hostile(people, spoilt[0], lambda values: _largest(plan, values))
    honest = [group for group in plan.segmentation.groups(session) if group.members != spoilt]

    judged = defended_round(plan, adapter, InMemory(people)).judged

    assert judged is not None
    had = train(adapter, 0).astype(np.float64) - adapter.rows
    unit = 1 / (plan.quantizer.scale * plan.least_weight)
    furthest = 0.0
    for band in plan.bands:
        found = judged.totals[band.index].weighted_sum / judged.totals[band.index].weight
        sent = np.stack(
            [
                _average_sent(plan, group.members, had, examples, index=band.index)
                for group in honest
                if group.rank >= band.stop
            ]
        )
        assert (sent.min(axis=0) - 1e-12 <= found).all()
        assert (found <= sent.max(axis=0) + 1e-12).all()
        off = np.abs(found - had[band.start : band.stop].ravel()).max()
        assert off < unit
        furthest = max(furthest, off * plan.quantizer.scale)
    # The bound is no formality: whole thirds of a unit away from the one average that all honest groups had.
    assert furthest > 0.15


def _largest(plan: Plan, values: Any) -> Any:
    """What pulls furthest, with honest statistics."""
    crafted, ends = values.copy(), np.cumsum([plan.band_length(band) for band in plan.bands])
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        crafted[start : end - plan.statistics] = plan.quantizer.levels
    return crafted


def _average_sent(
    plan: Plan, members: tuple[str, ...], had: Any, examples: Mapping[str, int], *, index: int
) -> Any:
    """The average of one band over a group, of the integers that its members send."""
    session, total, weight = make_session(plan), 0.0, 0.0
    ends = np.cumsum([plan.band_length(band) for band in plan.bands])
    for name in members:
        own = weight_of(plan, examples[name])
        change = had[: plan.ranks[name]]
        (integers,) = contribution(plan, session, name, change, weight=own, noise_key=bytes(16)).values()
        end = ends[index]
        total = (
            total
            + integers[end - plan.band_length(plan.bands[index]) : end - plan.statistics]
            / plan.quantizer.scale
        )
        weight += own
    return total / weight


@pytest.mark.parametrize("average", [{"average": "zero-pad"}, {"gamma": 1.0}])
@pytest.mark.parametrize("claim", [32_767, 20_000, 0, -32_767])
def test_a_claim_behind_the_values_moves_nothing(average: dict[str, Any], claim: int) -> None:
    """Where bands are scaled by their share of the weight, that share is of the clients that there are."""
    plan = wide_plan(**average)
    adapter = make_adapter(plan)

    outcome = poisoned(plan, adapter, 1, claim=claim)

    assert outcome.judged is not None
    assert {i: total.weight for i, total in outcome.judged.totals.items()} == outcome.holders
    assert np.abs(outcome.adapter.rows - adapter.rows).max() <= honest_range(plan, adapter) + GRID


def test_a_group_whose_weight_cannot_be_has_no_vote() -> None:
    """Three members weigh between three times the least weight and three; a group that claims anything else is refused."""
    plan = make_plan(weights="examples", tiers={"all": {"rank": 1, "clients": 15}}, robustness={"f": 0})
    session = make_session(plan)
    length, claims = session.segments[0].length, (1, 3, 4, 100, 0)
    sums = {
        i: np.append(np.full(length - plan.statistics, 9), [claim * 32_767, 0]).astype(np.int64)
        for i, claim in enumerate(claims)
    }
    defence = Defence.of(plan, PreviousStep(plan))
    assert defence is not None

    judged = defence.judge(
        session, SumResult(survivors=session.members, sums=sums, refused={}), make_adapter(plan)
    )

    assert judged.totals[0].weight == 1 + 3
    refused = [verdict.reason for verdict in judged.verdicts.values() if not verdict.accepted]
    assert len(refused) == 3
    assert all("3 holders claim a weight of" in reason for reason in refused)


def test_a_long_group_is_rejected_where_enough_are_left() -> None:
    """Five groups of rank 3 stand one attacker with one to spare: the longest is named, with its length."""
    plan = wide_plan(tiers={"large": {"rank": 3, "clients": 15}}, robustness={"f": 1})

    outcome = poisoned(plan, make_adapter(plan), 1)

    assert outcome.judged is not None
    rejected = [name for name, verdict in outcome.judged.verdicts.items() if not verdict.accepted]
    (hostile,) = rejected
    assert threes(plan, 3)[0] == outcome.judged.groups[hostile]
    assert "times the median of its tier, beyond the limit" in outcome.judged.verdicts[hostile].reason
    assert outcome.holders == {0: 12}
