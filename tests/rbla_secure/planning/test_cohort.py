"""Cohorts are drawn by tier, without replacement, and the same in every repetition."""

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rbla_secure.config import TierConfig
from rbla_secure.planning.cohort import (
    cohort_size,
    roster,
    sample_cohort,
    scheduled_cohort,
    tier_clients,
)
from tests.support.properties import PROPERTY

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,5}", fullmatch=True)


@st.composite
def tier(draw: st.DrawFn) -> TierConfig:
    clients = draw(st.integers(1, 12))
    return TierConfig(rank=draw(st.integers(1, 8)), clients=clients, cohort=draw(st.integers(0, clients)))


TIERS = st.dictionaries(NAMES, tier(), min_size=1, max_size=4)


@PROPERTY
@given(tiers=TIERS, seed=st.integers(0, 2**63 - 1), number=st.integers(1, 1000))
def test_a_cohort_has_its_share_of_every_tier(tiers: dict[str, TierConfig], seed: int, number: int) -> None:
    """From each tier as many different clients are drawn as it says, 0 meaning all, in increasing order."""
    cohort = sample_cohort(tiers, seed=seed, round_number=number)

    assert list(cohort) == sorted(set(cohort))
    for name, part in tiers.items():
        everyone = {f"{name}-{client:02d}" for client in range(1, part.clients + 1)}
        assert len(everyone & set(cohort)) == (part.cohort or part.clients)
        assert cohort_size(part) == (part.cohort or part.clients)


@PROPERTY
@given(tiers=TIERS, seed=st.integers(0, 2**63 - 1), number=st.integers(1, 1000))
def test_a_cohort_repeats(tiers: dict[str, TierConfig], seed: int, number: int) -> None:
    """The same seed and round give the same cohort, whatever the order of the tiers."""
    backwards = dict(reversed(tiers.items()))

    first = sample_cohort(tiers, seed=seed, round_number=number)
    second = sample_cohort(backwards, seed=seed, round_number=number)

    assert first == second


def test_every_client_has_its_turn() -> None:
    """Over many rounds each client of a tier is drawn about equally often, and rounds differ."""
    tiers = {"phone": TierConfig(rank=1, clients=10, cohort=3)}

    cohorts = [sample_cohort(tiers, seed=5, round_number=number) for number in range(1, 1001)]

    counts = Counter(client for cohort in cohorts for client in cohort)
    assert len(counts) == 10
    # 300 draws each are expected; six standard deviations of a binomial are 87.
    assert all(abs(count - 300) < 87 for count in counts.values())
    assert len(set(cohorts)) == 120  # all choices of 3 out of 10 occur


def test_another_tier_does_not_change_a_draw() -> None:
    """Adding a tier leaves the draw of the others as it was."""
    phone, lab = TierConfig(rank=1, clients=10, cohort=3), TierConfig(rank=2, clients=4)

    alone = sample_cohort({"phone": phone}, seed=1, round_number=1)
    beside = sample_cohort({"phone": phone, "lab": lab}, seed=1, round_number=1)

    assert set(alone) < set(beside)


def test_the_roster_gives_every_client_its_rank() -> None:
    """All tiers' clients are listed in increasing order of their names."""
    tiers = {"phone": TierConfig(rank=2, clients=2), "lab": TierConfig(rank=8, clients=1, cohort=1)}

    ranks = roster(tiers)

    assert list(ranks.items()) == [("lab-01", 8), ("phone-01", 2), ("phone-02", 2)]


def test_names_sort_by_number_however_many_there_are() -> None:
    """Numbers are padded with zeros to the width of the largest."""
    clients = tier_clients("phone", TierConfig(rank=1, clients=1000))

    assert clients[0] == "phone-0001"
    assert clients == sorted(clients)


@PROPERTY
@given(tiers=TIERS)
def test_no_two_clients_share_a_name(tiers: dict[str, TierConfig]) -> None:
    """Tiers whose names begin alike do not share clients."""
    ranks = roster(tiers)

    assert len(ranks) == sum(part.clients for part in tiers.values())


@PROPERTY
@given(tiers=TIERS, seed=st.integers(0, 2**63 - 1), rounds=st.integers(1, 40))
def test_a_schedule_keeps_everybody_apart(tiers: dict[str, TierConfig], seed: int, rounds: int) -> None:
    """As many of each tier as drawn cohorts have, nobody's rounds closer than the tier allows, and nobody's many more."""
    cohorts = [scheduled_cohort(tiers, seed=seed, round_number=number) for number in range(1, rounds + 1)]

    assert all(list(cohort) == sorted(set(cohort)) for cohort in cohorts)
    for name, part in tiers.items():
        everyone = tier_clients(name, part)
        taken = {client: [n for n, cohort in enumerate(cohorts) if client in cohort] for client in everyone}
        assert sum(map(len, taken.values())) == rounds * cohort_size(part)
        counts = [len(numbers) for numbers in taken.values()]
        assert max(counts) - min(counts) <= 1
        gaps = [b - a for numbers in taken.values() for a, b in pairwise(numbers)]
        assert all(gap >= part.rounds_apart for gap in gaps)


def test_the_order_of_a_schedule_follows_from_the_seed() -> None:
    """Another seed gives other neighbours; the same seed the same, whatever other tiers there are."""
    phone, lab = TierConfig(rank=1, clients=12, cohort=4), TierConfig(rank=2, clients=5)
    alone = [scheduled_cohort({"phone": phone}, seed=seed, round_number=1) for seed in range(20)]

    assert len(set(alone)) > 10
    beside = scheduled_cohort({"phone": phone, "lab": lab}, seed=3, round_number=1)
    assert set(beside) - set(tier_clients("lab", lab)) == set(alone[3])
