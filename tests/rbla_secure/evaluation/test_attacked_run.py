"""Attacked runs of the federation's own rounds: what the quorum closes, in the mode it is run in, and what is reported."""

from typing import Any

import pytest

from rbla_secure.config import Config, load_config
from rbla_secure.config.choices import FilterName
from rbla_secure.errors import PlanError
from rbla_secure.evaluation.attacked_run import Grounds, Outcome, attacked_run
from rbla_secure.evaluation.known_defence import KnownRule
from rbla_secure.evaluation.poisoning.registry import AttackName
from rbla_secure.evaluation.poisoning.unclipped import unclipped_contribution
from rbla_secure.federation.server import average_check
from rbla_secure.tasks.training import use_one_thread

# A fifth of thirty clients attacks; all bands but those of attackers alone have more holders than twice six.
SETTINGS = (
    "secure-sum=plain",
    "dropout-rate=0.0",
    "rounds=8",
    "clip-norm=0.6",
    "task.alpha=0.5",
    "training.steps=10",
    "training.optimizer=sgd",
    "training.learning-rate=0.05",
    "tiers.phone.clients=4",
    "tiers.laptop.clients=4",
    "tiers.workstation.clients=6",
    "tiers.datacenter.clients=16",
)
SHARE = 0.2


def config(*settings: str) -> Config:
    return load_config(None, [*SETTINGS, *settings])


@pytest.fixture(scope="module")
def grounds() -> Grounds:
    """One data set and base for all of them."""
    use_one_thread()
    return Grounds(config())


def attacked(grounds: Grounds, attack: AttackName, *settings: str) -> Outcome:
    return attacked_run(config(*settings), attack, share=SHARE, grounds=grounds)


@pytest.mark.slow
def test_rank_inflation_owns_its_rows_without_the_quorum(grounds: Grounds) -> None:
    """At 20 % of the clients, under the plain mean and under a filter whose quorum their number meets."""
    assert attacked(grounds, AttackName.RANK_INFLATION).success >= 0.9

    filtered = attacked(
        grounds, AttackName.RANK_INFLATION, "robustness.filter=tier-dnc-cosine", "robustness.f=1"
    )
    assert filtered.success >= 0.9
    assert filtered.attacks_seen == 6 * 8
    assert filtered.bands_closed == 0


@pytest.mark.slow
def test_rank_inflation_is_stopped_by_the_quorum(grounds: Grounds) -> None:
    """With 2f + 1 holders asked for, the captured rows stay closed and the trigger does not work."""
    for settings in (("robustness.f=6",), ("robustness.f=6", "robustness.filter=trimmed-mean")):
        outcome = attacked(grounds, AttackName.RANK_INFLATION, *settings)

        assert outcome.success <= 0.1
        assert outcome.bands_closed == 0.25
        assert outcome.accuracy > 0.55


def test_the_same_attack_comes_to_the_same_in_masked_sums() -> None:
    """What is evaluated in the clear holds under masks: the same accuracy to the digit."""
    use_one_thread()
    short = ("rounds=2", "robustness.f=2")
    clear = attacked_run(config(*short), AttackName.SIGN_FLIP, share=SHARE)

    masked = attacked_run(config(*short, "secure-sum=masking"), AttackName.SIGN_FLIP, share=SHARE)

    assert (masked.accuracy, masked.success) == (clear.accuracy, clear.success)


def test_groups_are_the_same_in_the_clear() -> None:
    """Sums over groups under masks and in the clear: the same decisions, the same result."""
    use_one_thread()
    short = ("rounds=2", "robustness.f=1", "robustness.group-size=3")
    clear = attacked_run(config(*short), AttackName.BACKDOOR, share=SHARE)

    masked = attacked_run(config(*short, "secure-sum=masking"), AttackName.BACKDOOR, share=SHARE)

    assert (masked.accuracy, masked.success) == (clear.accuracy, clear.success)


def test_rejections_are_told_apart(grounds: Grounds) -> None:
    """Of 30 clients 5 are rejected in every round; how many of them attack is reported, and ranks of the others."""
    outcome = attacked(
        grounds, AttackName.SIGN_FLIP, "rounds=4", "robustness.filter=tier-dnc-cosine", "robustness.f=5"
    )

    assert outcome.attackers_rejected is not None
    assert outcome.honest_rejected is not None
    assert 6 * outcome.attackers_rejected + 24 * outcome.honest_rejected == pytest.approx(5)
    assert outcome.attackers_rejected > 0.6
    assert set(outcome.rejected_by_rank) == {"2", "4", "8", "16"}


@pytest.mark.slow
def test_the_adaptive_attack_runs_the_rule_it_attacks(
    grounds: Grounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks the filter of the plan, and is rejected less often than a backdoor that does not."""
    asked: list[FilterName] = []
    accepts = KnownRule.accepts

    def noted(rule: KnownRule, changes: Any) -> Any:
        assert rule.defence is not None
        asked.append(rule.defence.plan.config.robustness.filter)
        return accepts(rule, changes)

    monkeypatch.setattr(KnownRule, "accepts", noted)
    settings = ("rounds=5", "robustness.filter=tier-dnc-cosine", "robustness.f=5")

    adaptive = attacked(grounds, AttackName.ADAPTIVE, *settings)
    simple = attacked(grounds, AttackName.BACKDOOR, *settings)

    assert set(asked) == {FilterName.TIER_DNC_COSINE}
    assert adaptive.attackers_rejected is not None
    assert simple.attackers_rejected is not None
    assert adaptive.attackers_rejected < simple.attackers_rejected


def test_a_federation_that_the_plan_refuses_is_an_outcome(grounds: Grounds) -> None:
    """Rank inflation against groups: attackers alone in a tier can never be outvoted there, and the plan says so."""
    outcome = attacked(grounds, AttackName.RANK_INFLATION, "robustness.group-size=3", "robustness.f=2")

    assert "groups do not stand against f=2" in outcome.refused


def test_a_configuration_that_is_refused_without_an_attack_is_an_error(grounds: Grounds) -> None:
    with pytest.raises(PlanError, match="group-size=20"):
        attacked(grounds, AttackName.NONE, "robustness.group-size=20")


def test_a_client_without_a_clip_has_one_group_and_no_more(
    grounds: Grounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fills the grid: one sum over everybody is refused for it round after round, a median over groups learns on.

    A server that takes whatever it adds up to loses the model to it.
    """
    wide = ("rounds=4", "quantization.bound=1.0", "quantization.bits=20")
    alone = {"share": 1 / 30, "grounds": grounds, "contribute": unclipped_contribution}

    closed = attacked_run(config(*wide), AttackName.SIGN_FLIP, **alone)  # type: ignore[arg-type]
    held = attacked_run(
        config(*wide, "robustness.group-size=3", "robustness.f=1"),
        AttackName.SIGN_FLIP,
        **alone,  # type: ignore[arg-type]
    )

    monkeypatch.setattr(average_check, "impossible", lambda *_: {})
    lost = attacked_run(config(*wide), AttackName.SIGN_FLIP, **alone)  # type: ignore[arg-type]

    assert closed.bands_closed == 1.0
    assert lost.accuracy < closed.accuracy - 0.05 < 0.5 < held.accuracy
