"""A plan that could not keep its promises is refused before it starts; a sound one fixes every round's session."""

from dataclasses import replace
from typing import Any

import pytest

from protocols.errors import SessionError
from protocols.homomorphic.screening.screening import ScreeningRelease
from protocols.masking.secure_sum import Masking
from protocols.plain import Plain
from protocols.session import Segment, Session
from rbla_secure.errors import PlanError
from rbla_secure.lora.adapter import AdapterLayout, LinearShape
from rbla_secure.planning.checks import check_config
from rbla_secure.planning.modes import build_secure_sum
from rbla_secure.planning.modes.homomorphic import charge_of, screening_rule
from rbla_secure.planning.opening import band_quorum
from rbla_secure.planning.plan import Plan
from rbla_secure.planning.promises import Promises
from rbla_secure.planning.warnings import warnings
from tests.rbla_secure.planning.refused import one_tier
from tests.support.federations import (
    BASE,
    LARGE,
    LAYOUT,
    MEMBERS,
    RUN,
    SMALL,
    make_config,
    make_plan,
    make_session,
)
from tests.support.identities import client_sum, server_sum


def test_an_encrypted_plan_has_services_with_its_own_quorum() -> None:
    """What decryptor and verifier are set up for follows from the plan."""
    plan = make_plan(secure_sum="homomorphic", min_holders=3, homomorphic={"verifier": True})

    charge = charge_of(plan)

    assert charge.services.names == ("decryptor", "verifier")
    assert (charge.profile.name, charge.least_quorum, charge.config_digests) == ("bfv-2x20", 3, {plan.digest})
    assert plan.needs_identities
    with pytest.raises(PlanError, match="certified identities"):
        build_secure_sum(plan)


def test_no_honest_update_is_longer_than_the_screening_allows() -> None:
    """The norm that screening allows is that of a clipped and rounded update, in input bounds, and little more."""
    plan = make_plan(secure_sum="homomorphic", homomorphic={"screening": "values", "min_cosine": -0.25})

    rule = screening_rule(plan)

    assert rule is not None
    assert (rule.min_cosine, rule.release, rule.ignored_tail) == (-0.25, ScreeningRelease.VALUES, 1)
    clipped = plan.config.clip_norm / plan.quantizer.bound
    assert clipped < rule.max_norm < 1.01 * clipped
    assert charge_of(plan).screening == rule


@pytest.mark.parametrize("mode", ["plain", "masking", "homomorphic"])
def test_nothing_is_screened_unless_it_is_asked_for(mode: str) -> None:
    """Screening is off by default, and in the modes that have none."""
    assert screening_rule(make_plan(secure_sum=mode)) is None


def test_holders_are_counted_per_round_and_not_per_roster() -> None:
    """Many enrolled clients do not help a band of which too few are drawn."""
    config = make_config(tiers={"lab": {"rank": 2, "clients": 100, "cohort": 2}})

    with pytest.raises(PlanError, match="min-holders=3 must be <= 2, the clients per round of rank"):
        check_config(config)


def test_a_higher_rank_counts_for_the_bands_below() -> None:
    """A single client of the lowest rank is no fault where stronger ones hold its band too."""
    config = make_config(tiers={"small": {"rank": 1, "clients": 1}, "large": {"rank": 2, "clients": 3}})

    check_config(config)

    assert Promises.build(config).threshold == 3


def test_a_session_follows_from_plan_and_cohort() -> None:
    """Segments are the bands, their members its holders, their length its values and one statistic."""
    plan = make_plan(secure_sum="masking")

    session = plan.session(run=RUN, round_number=4, attempt=2, cohort=MEMBERS)

    assert session == Session(
        run=RUN,
        round=4,
        attempt=2,
        members=MEMBERS,
        threshold=4,
        input_bound=32767,
        segments=(
            Segment(index=0, length=11 + 1, members=MEMBERS, quorum=3),
            Segment(index=1, length=2 * 11 + 1, members=LARGE, quorum=3),
        ),
        config_digest=plan.digest,
        ring_bits=32,
        ranks=(3, 3, 3, 1, 1, 1),
    )


def test_a_padded_session_has_everyone_in_every_band() -> None:
    """All upload all bands, but a band's quorum counts those that hold it."""
    plan = make_plan(upload="padded", quantization={"bits": 16, "bound": 0.1, "ring_bits": 20})

    session = plan.session(run=RUN, round_number=1, attempt=1, cohort=MEMBERS)

    assert [segment.members for segment in session.segments] == [MEMBERS, MEMBERS]
    assert [segment.holders for segment in session.segments] == [MEMBERS, LARGE]
    assert session.ring_bits == 20
    assert {plan.broadcast_rank(client) for client in MEMBERS} == {3}
    assert {make_plan().broadcast_rank(client) for client in SMALL} == {3}
    dropped = make_plan(lora={"rest": "dropped"})
    assert {client: dropped.broadcast_rank(client) for client in MEMBERS} == dict(dropped.ranks)


@pytest.mark.parametrize(
    ("mode", "profile", "signed"),
    [
        ("plain", "one-answer", False),
        ("masking", "semi-honest", False),
        ("masking", "one-answer", True),
        ("masking", "consistency", True),
    ],
)
def test_messages_are_signed_where_the_server_may_lie(mode: str, profile: str, signed: bool) -> None:  # noqa: FBT001
    """Plain sums and a server that follows the protocol need no identities."""
    plan = make_plan(secure_sum=mode, masking={"profile": profile})

    assert plan.needs_identities == signed
    if signed:
        with pytest.raises(SessionError, match=f"profile {profile} needs certified identities"):
            build_secure_sum(plan).server(make_session(plan))


@pytest.mark.parametrize("profile", ["semi-honest", "one-answer", "consistency"])
def test_the_profile_is_the_one_that_is_configured(profile: str) -> None:
    """The secure sum of both sides has the configured profile."""
    plan = make_plan(secure_sum="masking", masking={"profile": profile})

    found = [server_sum(plan), client_sum(plan, "small-01")]

    assert all(isinstance(each, Masking) and each.profile.name == profile for each in found)


@pytest.mark.parametrize(
    ("mode", "profile", "members", "holders", "quorum"),
    [
        # Under one-answer: the smallest whole number above 2 + (m - 2) (n - t) / (n - c).
        ("masking", "one-answer", 6, 6, 4),
        ("masking", "one-answer", 6, 3, 3),
        ("masking", "one-answer", 10, 10, 6),
        ("masking", "one-answer", 10, 4, 3),
        ("masking", "one-answer", 100, 100, 50),
        ("masking", "semi-honest", 10, 10, 3),
        ("masking", "consistency", 10, 10, 3),
        ("plain", "one-answer", 10, 10, 3),
    ],
)
def test_some_profiles_want_more_survivors_than_min_holders(
    mode: str, profile: str, members: int, holders: int, quorum: int
) -> None:
    """Only clients that answer once, over one list, open a band by a quorum of their own."""
    config = one_tier(members, secure_sum=mode, masking={"profile": profile})

    assert band_quorum(Promises.build(config), holders) == quorum


def test_bands_have_the_holders_of_a_round() -> None:
    """Each band counts the cohorts of all tiers of its rank or more."""
    tiers = {"a": {"rank": 4, "clients": 9, "cohort": 5}, "b": {"rank": 2, "clients": 3}}

    found = Promises.build(make_config(tiers=tiers)).bands

    assert [(str(each.band), each.holders) for each in found] == [("rows 1-2", 8), ("rows 3-4", 5)]


def test_a_smaller_cohort_has_fewer_holders() -> None:
    """Only those who were drawn are members."""
    tiers = {
        "large": {"rank": 3, "clients": 5, "cohort": 3},
        "small": {"rank": 1, "clients": 9, "cohort": 2},
    }
    plan = make_plan(tiers=tiers)

    session = make_session(plan)

    assert [len(segment.members) for segment in session.segments] == [5, 3]
    assert session.threshold == 3


def test_a_plan_knows_ranks_and_bands() -> None:
    """The roster gives ranks, ranks give bands, and a client holds those up to its rank."""
    plan = make_plan()

    held = {client: [band.index for band in plan.held_bands(client)] for client in plan.ranks}

    assert plan.ranks == dict.fromkeys(LARGE, 3) | dict.fromkeys(SMALL, 1)
    assert [(band.start, band.stop) for band in plan.bands] == [(0, 1), (1, 3)]
    assert plan.max_rank == 3
    assert held == {**{client: [0, 1] for client in LARGE}, **{client: [0] for client in SMALL}}


def test_the_mode_decides_the_secure_sum() -> None:
    """Each mode names its protocol."""
    plain, masking = make_plan(secure_sum="plain"), make_plan(secure_sum="masking")

    assert isinstance(build_secure_sum(plain), Plain)
    assert isinstance(build_secure_sum(masking), Masking)


@pytest.mark.parametrize(
    ("profile", "clients", "configured", "expected"),
    [
        ("semi-honest", 3, 0, 2),
        ("semi-honest", 4, 0, 3),
        ("semi-honest", 5, 0, 3),
        ("semi-honest", 6, 0, 4),
        ("semi-honest", 6, 5, 5),
        ("semi-honest", 6, 6, 6),
        ("one-answer", 3, 0, 2),
        ("one-answer", 6, 0, 4),
        ("one-answer", 10, 0, 6),
        ("one-answer", 20, 0, 12),
        ("one-answer", 20, 15, 15),
        ("consistency", 3, 0, 3),
        ("consistency", 6, 0, 5),
        ("consistency", 10, 0, 7),
        ("consistency", 10, 8, 8),
    ],
)
@pytest.mark.parametrize("mode", ["plain", "masking"])
def test_the_threshold_is_more_than_half(
    mode: str, profile: str, clients: int, configured: int, expected: int
) -> None:
    """Unless configured, it is the smallest number above half of the cohort, with the profile's margin."""
    config = one_tier(clients, secure_sum=mode, masking={"threshold": configured, "profile": profile})

    check_config(config)

    assert Promises.build(config).threshold == expected


def layouts() -> list[AdapterLayout]:
    first, second = LAYOUT.layers
    return [
        LAYOUT,
        AdapterLayout(layers=(second, first), scaling=2.0),
        AdapterLayout(layers=(replace(first, name="renamed"), second), scaling=2.0),
        AdapterLayout(layers=(replace(first, in_features=2, out_features=3), second), scaling=2.0),
        AdapterLayout(layers=(first,), scaling=2.0),
        AdapterLayout(
            layers=(first, second, LinearShape(name="more", in_features=1, out_features=1)), scaling=2.0
        ),
    ]


def test_the_digest_tells_layouts_bases_and_configurations_apart() -> None:
    """Whoever has another base, other layers or another configuration has another plan."""
    config = make_config()
    plans = [Plan.build(config, layout=layout, base_digest=BASE) for layout in layouts()]
    plans.append(Plan.build(config, layout=LAYOUT, base_digest=bytes(32)))
    plans.append(make_plan(seed=1))
    plans.append(make_plan(lora={"scaling": 1.0}))

    digests = {plan.digest for plan in plans}

    assert len(digests) == len(plans) == 9
    assert make_plan().digest in digests


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"secure_sum": "masking"}, []),
        ({"secure_sum": "plain"}, ["INSECURE: secure-sum=plain"]),
        ({"secure_sum": "masking", "min_holders": 2}, ["INSECURE: min-holders=2"]),
        (
            {"secure_sum": "plain", "min_holders": 1},
            ["INSECURE: secure-sum=plain", "INSECURE: min-holders=1"],
        ),
        ({"secure_sum": "homomorphic"}, []),
        (
            {"secure_sum": "homomorphic", "homomorphic": {"screening": "verdicts"}},
            ["homomorphic.screening finds faulty clients, not malicious ones"],
        ),
    ],
)
def test_what_weakens_a_run_is_said(changes: dict[str, Any], expected: list[str]) -> None:
    """Each setting that is allowed but unsafe, or weaker than it looks, has a warning that names it."""
    found = warnings(Promises.build(make_config(**changes)))

    assert [text[: len(start)] for text, start in zip(found, expected, strict=True)] == expected


def test_sessions_that_are_kept_are_those_that_a_fresh_plan_gives() -> None:
    """By run, round, attempt and clip norm; no more than a few are kept, whatever a server asks for."""
    plan = make_plan(
        noise_multiplier=0.3,
        privacy={"clipping": "adaptive", "simulation": True},
        tiers={"all": {"rank": 1, "clients": 9, "cohort": 4}},
    )
    asked = [
        {"run": bytes([run] * 16), "round_number": number, "attempt": attempt, "clip_norm": norm}
        for run in (1, 2)
        for number in (1, 2, 9)
        for attempt in (1, 2)
        for norm in plan.clip_norms[:2]
    ]

    for terms in [*asked, *reversed(asked)]:
        fresh = Plan.build(plan.config, layout=plan.layout, base_digest=plan.base_digest)
        assert plan.session(**terms) == fresh.session(**terms)

    assert len(plan._sessions) <= 8
    assert len(plan._cohorts) <= 8
