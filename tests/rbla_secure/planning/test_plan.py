"""A plan that could not keep its promises is refused before it starts; a sound one fixes every round's session."""

import re
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import SessionError
from protocols.homomorphic.scheme import bfv
from protocols.homomorphic.screening.screening import Release
from protocols.masking.secure_sum import Masking
from protocols.plain import Plain
from protocols.session import Segment, Session
from rbla_secure.config import Config
from rbla_secure.errors import PlanError
from rbla_secure.lora.adapter import AdapterLayout, LinearShape
from rbla_secure.planning.checks import check_config
from rbla_secure.planning.modes import build_secure_sum
from rbla_secure.planning.modes.homomorphic import charge_of, screening_rule
from rbla_secure.planning.opening import band_quorum
from rbla_secure.planning.plan import Plan
from rbla_secure.planning.promises import Promises
from rbla_secure.planning.warnings import warnings
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
from tests.support.properties import PROPERTY


def one_tier(clients: int, *, cohort: int = 0, **changes: Any) -> Config:
    return make_config(tiers={"lab": {"rank": 2, "clients": clients, "cohort": cohort}}, **changes)


# Why the sum of a session must leave room in the ring.
PASSES = ", and one that went wrong could pass for right"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"noise_multiplier": 1.0, "weights": "examples"},
            (
                "weights=examples must be uniform with noise-multiplier above 0: denominators would tell how many "
                "examples a client has"
            ),
        ),
        (
            {"noise_multiplier": 1.0, "privacy": {"adjacency": "add-or-remove"}},
            (
                "privacy.adjacency=add-or-remove needs privacy.mechanism=central: whoever is absent takes its share of "
                "distributed noise along, which the variance of the sum shows"
            ),
        ),
        (
            {
                "noise_multiplier": 1.0,
                "privacy": {"adjacency": "add-or-remove", "mechanism": "central"},
                "tiers": {"lab": {"rank": 2, "clients": 6, "cohort": 5}},
            },
            (
                "privacy.adjacency=add-or-remove needs cohorts of all clients (tiers.*.cohort=0): without one client "
                "another would be drawn in its place"
            ),
        ),
        (
            {
                "noise_multiplier": 1.0,
                "privacy": {"adjacency": "add-or-remove", "mechanism": "central", "clipping": "adaptive"},
            },
            "privacy.adjacency=add-or-remove needs a fixed clip: the count has no fixed denominator",
        ),
        (
            {"noise_multiplier": 1.0, "privacy": {"colluders": 3}},
            (
                "privacy.colluders=3 and privacy.expected-dropout=0 leave no noise in rows 2-3, which 3 clients of a round "
                "upload: use fewer, upload=padded, or more clients"
            ),
        ),
        (
            {"noise_multiplier": 1.0, "privacy": {"clipping": "adaptive", "max_clip": 0.5}},
            "clip-norm=1 must lie in privacy.min-clip..privacy.max-clip = (0.0625, 0.5)",
        ),
        (
            {"privacy": {"max_epsilon": 8.0}},
            (
                "noise-multiplier=0.0 must be above 0 with privacy.max-epsilon or privacy.clipping=adaptive: without noise "
                "nothing bounds epsilon"
            ),
        ),
        (
            {"tiers": {"lab": {"rank": 2, "clients": 3, "cohort": 4}}},
            "tiers.lab.cohort=4 must be <= tiers.lab.clients=3",
        ),
        (
            {"average": "fedavg"},
            "average=fedavg must have equal ranks: the tiers have 2 different ones",
        ),
        (
            {"min_holders": 4},
            (
                "min-holders=4 must be <= 3, the clients per round of rank >= 3 (tiers large): "
                "rows 2-3 could never open"
            ),
        ),
        (
            {"min_holders": 7},
            (
                "min-holders=7 must be <= 6, the clients per round of rank >= 1 (tiers large, small): "
                "rows 1-1 could never open"
            ),
        ),
        (
            {"masking": {"threshold": 3, "profile": "semi-honest"}},
            "masking.threshold=3 must be >= 4 for 6 clients per round under masking.profile=semi-honest",
        ),
        (
            {"masking": {"threshold": 7}},
            "masking.threshold=7 must be <= 6, the clients per round",
        ),
        (
            {"quantization": {"bits": 31}},
            "quantization.bits=31 must be <= 28: the sum of 6 clients would take more than half of the 32-bit ring"
            + PASSES,
        ),
        (
            {"quantization": {"bits": 16, "ring_bits": 16}},
            "quantization.bits=16 must be <= 12: the sum of 6 clients would take more than half of the 16-bit ring"
            + PASSES
            + "; quantization.ring-bits=20 has room",
        ),
        (
            {"quantization": {"bits": 22, "ring_bits": 24}},
            "quantization.bits=22 must be <= 20: the sum of 6 clients would take more than half of the 24-bit ring"
            + PASSES
            + "; quantization.ring-bits=32 has room",
        ),
        (
            {"quantization": {"bits": 8, "ring_bits": 18}},
            "quantization.ring-bits=18 must be one of 16, 20, 24, 32",
        ),
    ],
)
@pytest.mark.parametrize("mode", ["plain", "masking"])
def test_refusals_name_argument_value_and_rule(changes: dict[str, Any], message: str, mode: str) -> None:
    """Each promise that could not be kept is refused by name, in every mode, with and without a model."""
    config = make_config(**changes, secure_sum=mode)

    with pytest.raises(PlanError) as without_model:
        check_config(config)
    with pytest.raises(PlanError) as with_model:
        Plan.build(config, layout=LAYOUT, base_digest=BASE)

    assert str(without_model.value) == str(with_model.value) == message


WITHOUT_QUORUMS = {
    **{
        mode: (
            {"secure_sum": mode},
            (
                f"privacy.adjacency=add-or-remove needs secure-sum=plain: secure-sum={mode} opens nothing below a threshold and "
                "a quorum, so that one client that is not there can take away the sum of all; use secure-sum=plain, whose "
                "server is trusted with the updates then, or privacy.adjacency=zero-out"
            ),
        )
        for mode in ("masking", "homomorphic")
    },
    **{
        name: (
            {"secure_sum": "plain", **wish},
            (
                f"{name} must be 0 with privacy.adjacency=add-or-remove: it asks how many clients are there, and whether one "
                "of them is must not show; privacy.adjacency=zero-out allows it"
            ),
        )
        for name, wish in {
            "masking.threshold=6": {"masking": {"threshold": 6}},
            "robustness.f=1": {"robustness": {"f": 1}},
        }.items()
    },
    # Refused before with central noise, without which there is no add-or-remove.
    "groups": (
        {"secure_sum": "masking", "robustness": {"group_size": 3}},
        "robustness.group-size=3 must have privacy.mechanism=distributed: a median of groups has no central noise",
    ),
}


@pytest.mark.parametrize("name", WITHOUT_QUORUMS)
def test_whatever_counts_who_is_there_is_refused_under_add_or_remove(name: str) -> None:
    """One client's absence would close a band or end a round, and so take away everybody's sum; under zero-out it is public."""
    changes, message = WITHOUT_QUORUMS[name]
    fields: dict[str, Any] = {"tiers": {"lab": {"rank": 2, "clients": 9}}, "noise_multiplier": 1.0, **changes}

    with pytest.raises(PlanError) as refused:
        check_config(make_config(**fields, privacy={"adjacency": "add-or-remove", "mechanism": "central"}))

    assert str(refused.value) == message
    mechanism = "distributed" if name == "homomorphic" else "central"
    check_config(make_config(**{**fields, "robustness": {}}, privacy={"mechanism": mechanism}))


def test_a_ring_without_room_for_the_noise_is_refused() -> None:
    """Where no grid leaves noise shares of four units, the plan says so before anything is trained."""
    config = make_config(
        noise_multiplier=1000.0, quantization={"bound": 1.0, "ring_bits": 16}, secure_sum="masking"
    )

    with pytest.raises(
        PlanError, match=r"noise-multiplier=1000: no grid of 2 to 32 bits has room for 6 clients"
    ):
        Plan.build(config, layout=LAYOUT, base_digest=BASE)


@pytest.mark.parametrize(
    ("clients", "masking", "message"),
    [
        (
            10,
            {"profile": "one-answer", "threshold": 5},
            "masking.threshold=5 must be >= 6 for 10 clients per round under masking.profile=one-answer",
        ),
        # Two of twenty may collude: 2t > n + c asks for one survivor more than half.
        (
            20,
            {"profile": "one-answer", "threshold": 11},
            "masking.threshold=11 must be >= 12 for 20 clients per round under masking.profile=one-answer",
        ),
        (
            20,
            {"profile": "consistency", "threshold": 13},
            "masking.threshold=13 must be >= 14 for 20 clients per round under masking.profile=consistency",
        ),
        (
            101,
            {"profile": "one-answer"},
            (
                "masking.profile=one-answer must be semi-honest or consistency: 101 clients per round are "
                "more than 100, up to which everyone shares with everyone"
            ),
        ),
    ],
)
def test_a_masked_plan_refuses_what_its_profile_does_not_allow(
    clients: int, masking: dict[str, Any], message: str
) -> None:
    """Thresholds and cohorts for which the claim of a profile would not hold are refused by name, with masks alone."""
    config = one_tier(clients, masking=masking, secure_sum="masking")

    with pytest.raises(PlanError) as refusal:
        check_config(config)

    assert str(refusal.value) == message
    check_config(one_tier(clients, masking=masking | {"threshold": 0}, secure_sum="plain"))


@pytest.mark.parametrize(
    ("profile", "clients"), [("semi-honest", 101), ("consistency", 101), ("one-answer", 100)]
)
def test_cohorts_that_a_profile_allows_are_accepted(profile: str, clients: int) -> None:
    """A hundred clients share with everyone; more of them share on a sparse graph, where the profile has one."""
    check_config(one_tier(clients, masking={"profile": profile}, secure_sum="masking"))


@pytest.mark.parametrize(
    ("clients", "bits", "profile", "message"),
    [
        (13, 16, "bfv-2x20", "quantization.bits=16 must be <= 15 for 13 clients per round"),
        (13, 16, "bfv-2x20", "whose fields have 20 bits; bfv-2x29 would do"),
        (25, 15, "bfv-2x20", "quantization.bits=15 must be <= 14 for 25 clients per round"),
        (13, 8, "bfv-3x12", "quantization.bits=8 must be <= 7 for 13 clients"),
        (13, 8, "bfv-3x12", "12 bits; bfv-2x20, bfv-2x29 would do"),
        (
            1152,
            8,
            "bfv-2x29",
            "homomorphic.profile=bfv-2x29 must have at most 1151 clients per round, not 1152",
        ),
    ],
)
def test_an_encrypted_plan_refuses_what_its_slots_cannot_hold(
    clients: int, bits: int, profile: str, message: str
) -> None:
    """One client more than the fields or the noise leave room for is refused, with the numbers and the way out."""
    keys: dict[str, Any] = {
        "secure_sum": "homomorphic",
        "quantization": {"bits": bits, "bound": 0.1},
        "homomorphic": {"profile": profile},
    }

    with pytest.raises(PlanError) as refusal:
        make_plan(tiers={"lab": {"rank": 1, "clients": clients}}, **keys)

    assert message in str(refusal.value)
    make_plan(tiers={"lab": {"rank": 1, "clients": clients - 1}}, **keys)


def test_without_the_library_an_encrypted_plan_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where TenSEAL is missing, the plan is refused before anything is trained, with the command that mends it."""
    for name in ("tenseal", "tenseal.sealapi"):
        monkeypatch.setitem(sys.modules, name, None)
    bfv.library.cache_clear()

    with pytest.raises(PlanError, match=r"pip install 'rbla-secure\[he\]'"):
        make_plan(secure_sum="homomorphic")

    monkeypatch.undo()
    bfv.library.cache_clear()
    make_plan(secure_sum="homomorphic")


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
    assert (rule.min_cosine, rule.release, rule.ignored_tail) == (-0.25, Release.VALUES, 1)
    clipped = plan.config.clip_norm / plan.quantizer.bound
    assert clipped < rule.max_norm < 1.01 * clipped
    assert charge_of(plan).screening == rule


@pytest.mark.parametrize("mode", ["plain", "masking", "homomorphic"])
def test_nothing_is_screened_unless_it_is_asked_for(mode: str) -> None:
    """Screening is off by default, and in the modes that have none."""
    assert screening_rule(make_plan(secure_sum=mode)) is None


def test_a_least_cosine_without_screening_is_refused() -> None:
    """What nobody would look at is no rule."""
    with pytest.raises(PlanError, match=r"homomorphic\.min-cosine=0 must have homomorphic\.screening"):
        make_plan(secure_sum="homomorphic", homomorphic={"min_cosine": 0.0})


@pytest.mark.parametrize("ring_bits", [16, 20, 24, 32])
@pytest.mark.parametrize("clients", [3, 6, 10, 100])
def test_the_bits_that_fit_a_ring_are_the_most(ring_bits: int, clients: int) -> None:
    """In every ring the message gives the largest number of bits whose sum stays within half of it."""
    most = max(bits for bits in range(2, 33) if clients * (2 ** (bits - 1) - 1) < 2 ** (ring_bits - 2))
    check_config(one_tier(clients, quantization={"bits": most, "ring_bits": ring_bits}))

    with pytest.raises(PlanError, match=rf"must be <= {most}: .* half of the {ring_bits}-bit ring"):
        check_config(one_tier(clients, quantization={"bits": most + 1, "ring_bits": ring_bits}))


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


@pytest.mark.parametrize("clients", [3, 5, 6, 7, 9, 10, 100])
def test_the_bits_that_a_refusal_names_are_accepted(clients: int) -> None:
    """The largest number of bits is the one that the message gives: with it the sum fits, with one more it does not."""
    with pytest.raises(PlanError) as refusal:
        check_config(one_tier(clients, quantization={"bits": 32}))
    (limit,) = re.findall(r"must be <= (\d+):", str(refusal.value))

    check_config(one_tier(clients, quantization={"bits": int(limit)}))
    with pytest.raises(PlanError, match="bits"):
        check_config(one_tier(clients, quantization={"bits": int(limit) + 1}))

    assert clients * (2 ** (int(limit) - 1) - 1) < 2**30 <= clients * (2 ** int(limit) - 1)


@pytest.mark.parametrize("clients", [4, 8, 16, 64])
def test_the_bits_that_a_refusal_names_are_the_most(clients: int) -> None:
    """The message gives the largest accepted number of bits for a power of two of clients as well."""
    most = max(bits for bits in range(2, 33) if clients * (2 ** (bits - 1) - 1) < 2**30)
    check_config(one_tier(clients, quantization={"bits": most}))

    with pytest.raises(PlanError, match=f"must be <= {most}:"):
        check_config(one_tier(clients, quantization={"bits": most + 1}))


@pytest.mark.parametrize(("clients", "bits"), [(1, 16), (65_536, 8)])
def test_a_cohort_that_no_session_can_hold_is_refused(clients: int, bits: int) -> None:
    """A session has 2 to 65,535 members: a plan for one client or for too many is refused before it starts."""
    config = one_tier(clients, min_holders=1, quantization={"bits": bits})

    with pytest.raises(PlanError):
        check_config(config)


CONFIGS = st.fixed_dictionaries(
    {
        "tiers": st.dictionaries(
            st.sampled_from("abcd"),
            st.fixed_dictionaries(
                {
                    "rank": st.integers(1, 4),
                    "clients": st.integers(2, 6),
                    "cohort": st.sampled_from([0, 0, 0, 2, 3, 4, 7]),
                }
            ),
            min_size=1,
        ),
        "min_holders": st.integers(1, 6),
        "secure_sum": st.sampled_from(["plain", "masking"]),
        "upload": st.sampled_from(["banded", "padded"]),
        "masking": st.fixed_dictionaries(
            {
                "threshold": st.integers(0, 12) | st.just(0),
                "profile": st.sampled_from(["semi-honest", "one-answer", "consistency"]),
            }
        ),
        "quantization": st.fixed_dictionaries(
            {"bits": st.integers(2, 32), "ring_bits": st.sampled_from([16, 18, 20, 24, 32, 32, 32])}
        ),
    }
)


def least_threshold(profile: str, members: int) -> int:
    """The smallest number with 2t > n, 2t > n + floor(n / 10) or 3t > 2n."""
    needed = {
        "semi-honest": lambda t: 2 * t > members,
        "one-answer": lambda t: 2 * t > members + members // 10,
        "consistency": lambda t: 3 * t > 2 * members,
    }
    return next(t for t in range(1, members + 1) if needed[profile](t))


def can_be_kept(changes: dict[str, Any]) -> bool:
    """Whether every cohort, band, threshold and sum of a configuration is possible."""
    tiers = list(changes["tiers"].values())
    drawn = [(tier["rank"], tier["cohort"] or tier["clients"]) for tier in tiers]
    members = sum(size for _, size in drawn)
    profile, masked = changes["masking"]["profile"], changes["secure_sum"] == "masking"
    needed = changes["masking"]["threshold"] or least_threshold(profile, members)
    ring_bits = changes["quantization"]["ring_bits"]
    thinnest = min(sum(size for other, size in drawn if other >= rank) for rank, _ in drawn)
    return (
        all(tier["cohort"] <= tier["clients"] for tier in tiers)
        and thinnest >= changes["min_holders"]
        and least_threshold(profile if masked else "semi-honest", members) <= needed <= members
        and ring_bits in (16, 20, 24, 32)
        and members * (2 ** (changes["quantization"]["bits"] - 1) - 1) < 2 ** (ring_bits - 2)
    )


@PROPERTY
@given(changes=CONFIGS)
def test_exactly_what_cannot_be_kept_is_refused(changes: dict[str, Any]) -> None:
    """A plan is refused when one of its promises is impossible; otherwise every round has a session that can open."""
    config = make_config(**changes)

    if not can_be_kept(changes):
        with pytest.raises(PlanError):
            check_config(config)
    else:
        plan = Plan.build(config, layout=LAYOUT, base_digest=BASE)
        session = make_session(plan)
        assert all(len(segment.holders) >= segment.quorum for segment in session.segments)
        assert len(session.members) / 2 < session.threshold <= len(session.members)
        assert server_sum(plan).server(session).requests()
        for segment, each in zip(session.segments, plan.promises.bands, strict=True):
            assert segment.length == each.band.height * LAYOUT.row_length + plan.statistics
            asked = band_quorum(plan.promises, each.holders)
            assert len(segment.holders) == each.holders >= asked >= segment.quorum


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
