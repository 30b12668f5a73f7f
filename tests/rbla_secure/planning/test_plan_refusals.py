"""A configuration that could not keep its promises is refused by argument, value and rule; all others are accepted."""

import re
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.homomorphic.scheme import bfv
from rbla_secure.errors import PlanError
from rbla_secure.planning.checks import check_config
from rbla_secure.planning.opening import band_quorum
from rbla_secure.planning.plan import Plan
from tests.rbla_secure.planning.refused import one_tier
from tests.support.federations import (
    BASE,
    LAYOUT,
    make_config,
    make_plan,
    make_session,
)
from tests.support.identities import server_sum
from tests.support.properties import PROPERTY

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
