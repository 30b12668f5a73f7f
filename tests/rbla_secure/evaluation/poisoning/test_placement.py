"""Attackers are enrolled where an attack needs them, and the federation keeps its size."""

import pytest

from rbla_secure.config import Config, TierConfig
from rbla_secure.errors import PlanError
from rbla_secure.evaluation.poisoning.placement import Placement, claimed_examples, placement
from rbla_secure.evaluation.poisoning.registry import AttackName
from rbla_secure.planning.cohort import roster

TIERS = {name: TierConfig(rank=rank, clients=10) for name, rank in zip("abcd", (2, 4, 8, 16), strict=True)}
CONFIG = Config(tiers=TIERS)


def honest_ranks(placed: Placement) -> list[int]:
    ranks = roster(placed.config.tiers)
    return sorted(rank for client, rank in ranks.items() if client not in placed.attackers)


@pytest.mark.parametrize("attack", [attack for attack in AttackName if attack is not AttackName.NONE])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.45])
def test_every_attack_has_its_share_of_a_federation_of_the_same_size(
    attack: AttackName, share: float
) -> None:
    """Forty clients, two, eight or eighteen of them attackers, all enrolled."""
    placed = placement(attack, CONFIG, share=share, seed=0)

    ranks = roster(placed.config.tiers)
    assert len(ranks) == 40
    assert len(placed.attackers) == round(40 * share)
    assert set(placed.attackers) <= set(ranks)
    assert list(placed.attackers) == sorted(set(placed.attackers))
    assert placed.captured_from == max(honest_ranks(placed))


def test_without_attack_nobody_attacks() -> None:
    """And the configuration is the same."""
    placed = placement(AttackName.NONE, CONFIG, share=0.2, seed=0)

    assert placed.attackers == ()
    assert placed.config == CONFIG


def test_most_attacks_take_their_share_of_every_tier() -> None:
    """Eight of forty are two of each ten; another seed draws others."""
    first = placement(AttackName.BACKDOOR, CONFIG, share=0.2, seed=0)
    other = placement(AttackName.BACKDOOR, CONFIG, share=0.2, seed=1)

    assert [sum(c.startswith(name) for c in first.attackers) for name in "abcd"] == [2] * 4
    assert first.config == CONFIG
    assert first.attackers != other.attackers


@pytest.mark.parametrize(("share", "sizes"), [(0.2, [10, 10, 12, 8]), (0.4, [8, 8, 8, 16])])
def test_rank_inflation_fills_the_top_tier(share: float, sizes: list[int]) -> None:
    """Its honest clients move one down, or clients of the others make room."""
    placed = placement(AttackName.RANK_INFLATION, CONFIG, share=share, seed=0)

    assert [placed.config.tiers[name].clients for name in "abcd"] == sizes
    assert {client.split("-")[0] for client in placed.attackers} == {"d"}
    assert placed.captured_from == 8


def test_sole_owners_enrol_above_everybody() -> None:
    """A tier of twice the largest rank."""
    placed = placement(AttackName.SOLE_OWNER, CONFIG, share=0.1, seed=0)

    ranks = roster(placed.config.tiers)
    assert {ranks[client] for client in placed.attackers} == {32}
    assert placed.captured_from == 16
    assert max(honest_ranks(placed)) == 16


def test_cohorts_keep_their_share_of_a_tier() -> None:
    """A tier that drew half of its clients draws half of the clients it has now."""
    tiers = {"low": TierConfig(rank=2, clients=10, cohort=5), "top": TierConfig(rank=8, clients=10, cohort=5)}

    placed = placement(AttackName.RANK_INFLATION, Config(tiers=tiers), share=0.2, seed=0)

    assert placed.config.tiers["low"] == TierConfig(rank=2, clients=16, cohort=8)
    assert placed.config.tiers["top"] == TierConfig(rank=8, clients=4, cohort=2)


def test_weight_inflation_claims_the_cap() -> None:
    """Others say what they have."""
    assert claimed_examples(AttackName.WEIGHT_INFLATION, CONFIG, 20) == CONFIG.examples_cap
    assert claimed_examples(AttackName.BACKDOOR, CONFIG, 20) == 20


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_attackers_are_a_minority(share: float) -> None:
    """Half of all are too many, none too few."""
    with pytest.raises(PlanError, match="share="):
        placement(AttackName.BACKDOOR, CONFIG, share=share, seed=0)


def test_rank_inflation_needs_a_rank_to_inflate_to() -> None:
    """With one tier all ranks are equal."""
    with pytest.raises(PlanError, match="one below it"):
        placement(
            AttackName.RANK_INFLATION,
            Config(tiers={"only": TierConfig(rank=4, clients=9)}),
            share=0.2,
            seed=0,
        )
