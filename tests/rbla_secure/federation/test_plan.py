"""A plan that could not keep its promises is refused before it starts; a sound one fixes every round's session."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.masking.secure_sum import Masking
from protocols.plain import Plain
from protocols.session import Segment, Session
from rbla_secure.config import Config
from rbla_secure.errors import PlanError
from rbla_secure.federation.plan import Plan, check_config, threshold, warnings
from rbla_secure.lora.adapter import AdapterLayout, LinearShape
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
from tests.support.properties import PROPERTY


def one_tier(clients: int, *, cohort: int = 0, **changes: Any) -> Config:
    return make_config(tiers={"lab": {"rank": 2, "clients": clients, "cohort": cohort}}, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"noise_multiplier": 1.0},
            "noise-multiplier=1.0 must be 0: noise is not yet supported",
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
            {"masking": {"threshold": 3}},
            "masking.threshold=3 must be more than half of 6, the clients per round",
        ),
        (
            {"masking": {"threshold": 7}},
            "masking.threshold=7 must be <= 6, the clients per round",
        ),
        (
            {"quantization": {"bits": 31}},
            "quantization.bits=31 must be <= 29: the sum of 6 clients would leave the 32-bit ring",
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


def test_holders_are_counted_per_round_and_not_per_roster() -> None:
    """Many enrolled clients do not help a band of which too few are drawn."""
    config = make_config(tiers={"lab": {"rank": 2, "clients": 100, "cohort": 2}})

    with pytest.raises(PlanError, match="min-holders=3 must be <= 2, the clients per round of rank"):
        check_config(config)


def test_a_higher_rank_counts_for_the_bands_below() -> None:
    """A single client of the lowest rank is no fault where stronger ones hold its band too."""
    config = make_config(tiers={"small": {"rank": 1, "clients": 1}, "large": {"rank": 2, "clients": 3}})

    check_config(config)

    assert threshold(config) == 3


@pytest.mark.parametrize("clients", [3, 5, 6, 7, 9, 10, 100])
def test_the_bits_that_a_refusal_names_are_accepted(clients: int) -> None:
    """The largest number of bits is the one that the message gives: with it the sum fits, with one more it wraps."""
    with pytest.raises(PlanError) as refusal:
        check_config(one_tier(clients, quantization={"bits": 32}))
    (limit,) = re.findall(r"must be <= (\d+):", str(refusal.value))

    check_config(one_tier(clients, quantization={"bits": int(limit)}))
    with pytest.raises(PlanError, match="bits"):
        check_config(one_tier(clients, quantization={"bits": int(limit) + 1}))

    assert clients * (2 ** (int(limit) - 1) - 1) < 2**31 <= clients * (2 ** int(limit) - 1)


@pytest.mark.parametrize("clients", [4, 8, 16, 64])
def test_the_bits_that_a_refusal_names_are_the_most(clients: int) -> None:
    """The message gives the largest accepted number of bits for a power of two of clients as well."""
    most = max(bits for bits in range(2, 33) if clients * (2 ** (bits - 1) - 1) < 2**31)
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
        "masking": st.fixed_dictionaries({"threshold": st.integers(0, 12) | st.just(0)}),
        "quantization": st.fixed_dictionaries({"bits": st.integers(2, 32)}),
    }
)


def can_be_kept(changes: dict[str, Any]) -> bool:
    """Whether every cohort, band, threshold and sum of a configuration is possible."""
    tiers = list(changes["tiers"].values())
    drawn = [(tier["rank"], tier["cohort"] or tier["clients"]) for tier in tiers]
    members = sum(size for _, size in drawn)
    needed = changes["masking"]["threshold"] or members // 2 + 1
    thinnest = min(sum(size for other, size in drawn if other >= rank) for rank, _ in drawn)
    return (
        all(tier["cohort"] <= tier["clients"] for tier in tiers)
        and thinnest >= changes["min_holders"]
        and members / 2 < needed <= members
        and members * (2 ** (changes["quantization"]["bits"] - 1) - 1) < 2**31
    )


@PROPERTY
@given(changes=CONFIGS)
def test_exactly_what_cannot_be_kept_is_refused(changes: dict[str, Any]) -> None:
    """A plan is refused when one of its promises is impossible, and otherwise every round has its session."""
    config = make_config(**changes)

    if not can_be_kept(changes):
        with pytest.raises(PlanError):
            check_config(config)
    else:
        session = make_session(Plan.build(config, layout=LAYOUT, base_digest=BASE))
        assert all(len(segment.members) >= segment.quorum for segment in session.segments)
        assert len(session.members) / 2 < session.threshold <= len(session.members)


def test_a_session_follows_from_plan_and_cohort() -> None:
    """Segments are the bands, their members its holders, their length its values and two statistics."""
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
            Segment(index=0, length=11 + 2, members=MEMBERS, quorum=3),
            Segment(index=1, length=2 * 11 + 2, members=LARGE, quorum=3),
        ),
        config_digest=plan.digest,
    )


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

    assert isinstance(plain.secure_sum, Plain)
    assert isinstance(masking.secure_sum, Masking)


@pytest.mark.parametrize(
    ("clients", "configured", "expected"), [(3, 0, 2), (4, 0, 3), (5, 0, 3), (6, 0, 4), (6, 5, 5), (6, 6, 6)]
)
def test_the_threshold_is_more_than_half(clients: int, configured: int, expected: int) -> None:
    """Unless configured, it is the smallest number above half of the cohort."""
    config = one_tier(clients, masking={"threshold": configured})

    check_config(config)

    assert threshold(config) == expected


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
    ],
)
def test_what_weakens_a_run_is_said(changes: dict[str, Any], expected: list[str]) -> None:
    """Each setting that is allowed but unsafe has a warning that says INSECURE and names it."""
    found = warnings(make_config(**changes))

    assert [text[: len(start)] for text, start in zip(found, expected, strict=True)] == expected
