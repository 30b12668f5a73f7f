"""The rule that attackers run at home is the server's, under every filter and pre-step, and the attack takes place."""

import hashlib
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols.session import Session
from rbla_secure.cli import main
from rbla_secure.config import Config, load_config
from rbla_secure.config.choices import FilterName, PreStepName
from rbla_secure.errors import EvaluationError, RobustnessError
from rbla_secure.evaluation import known_defence
from rbla_secure.evaluation.attacked_run import Grounds, attacked_run
from rbla_secure.evaluation.known_defence import KnownRule
from rbla_secure.evaluation.poisoning.registry import AttackName
from rbla_secure.federation.server.defence import Defence, Judged
from rbla_secure.federation.server.previous_step import PreviousStep
from rbla_secure.lora.adapter import Adapter
from rbla_secure.robustness.registry import build
from rbla_secure.tasks.training import use_one_thread
from tests.support.defended import drifted, make_plan
from tests.support.federations import make_adapter, make_session
from tests.support.tiny_job import job, write_images

COMBINATIONS = [
    (name, step)
    for name, step in product(FilterName, PreStepName)
    if name is not FilterName.NONE or step is PreStepName.NONE
]
ROUNDS, ATTACKERS = 2, 2
Inputs = Mapping[str, Mapping[int, Any]]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set."""
    return write_images(tmp_path_factory.mktemp("data"))


def config(images: Path, name: FilterName, step: PreStepName = PreStepName.NONE, **changes: object) -> Config:
    """Sixteen clients, two of whom attack; weights, learning rate and seed such that leaving one of them out would show."""
    settings: dict[str, object] = {
        "secure-sum": "plain",
        "rounds": ROUNDS,
        "weights": "examples",
        "server-learning-rate": 0.5,
        "robustness.f": 1,
        "robustness.filter": name,
        "robustness.pre-step": step,
        "training.steps": 2,
        "tiers": "{small={rank=1,clients=4},large={rank=2,clients=12}}",
        **({"min-holders": 1} if name is FilterName.KRUM else {}),
        **changes,
    }
    return load_config(None, [part for part in job(images, **settings) if part != "--set"])


@pytest.fixture(scope="module")
def grounds(images: Path) -> Grounds:
    """One data set and base for all."""
    use_one_thread()
    return Grounds(config(images, FilterName.NONE))


class Seen:
    """Every set of inputs that a filter was asked about, and by whom."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.by_attackers: set[bytes] = set()
        self.by_server: list[bytes] = []
        self.verdicts: list[Judged] = []
        self._at_home = False
        judge, accepts = Defence.judge_inputs, KnownRule.accepts

        def judged(own: Defence, session: Session, inputs: Inputs, adapter: Adapter) -> Judged:
            found = judge(own, session, inputs, adapter)
            digest = _digest(session, inputs)
            if self._at_home:
                self.by_attackers.add(digest)
            else:
                self.by_server.append(digest)
                self.verdicts.append(found)
            return found

        def asked(own: KnownRule, changes: Any) -> Any:
            self._at_home = True
            try:
                return accepts(own, changes)
            finally:
                self._at_home = False

        monkeypatch.setattr(Defence, "judge_inputs", judged)
        monkeypatch.setattr(KnownRule, "accepts", asked)


def _digest(session: Session, inputs: Inputs) -> bytes:
    found = hashlib.sha256(session.round.to_bytes(8, "big"))
    for client in sorted(inputs):
        for index in sorted(inputs[client]):
            found.update(f"{client} {index} ".encode() + np.asarray(inputs[client][index]).tobytes())
    return found.digest()


@pytest.mark.parametrize(("name", "step"), COMBINATIONS)
def test_the_adaptive_attack_is_mounted_and_what_it_foresaw_is_what_the_server_judges(
    images: Path, grounds: Grounds, name: FilterName, step: PreStepName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both attackers in both rounds; the integers of every client are those that the attackers had judged at home, to the bit."""
    seen = Seen(monkeypatch)

    outcome = attacked_run(config(images, name, step), AttackName.ADAPTIVE, share=0.125, grounds=grounds)

    assert outcome.attacks_seen == ATTACKERS * ROUNDS
    assert outcome.strength is not None
    assert outcome.strength > 0
    if name is FilterName.NONE:
        assert seen.by_server == []
        return
    assert outcome.attackers_rejected is not None
    assert len(seen.by_server) == ROUNDS
    assert set(seen.by_server) <= seen.by_attackers
    assert all(len(judged.verdicts) == 16 for judged in seen.verdicts)


@pytest.mark.parametrize("name", [FilterName.NORM_BOUND, FilterName.CENTERED_CLIPPING])
def test_attackers_that_build_a_rule_of_their_own_end_the_evaluation(
    images: Path, grounds: Grounds, name: FilterName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: a copy of the rule that lacks its parameters raises, and nothing is scored."""

    def careless(own: KnownRule, changes: Any) -> Any:
        wanted = own.plan.config.robustness
        build(wanted.filter, f=wanted.f, privacy_quorum=3)
        return dict.fromkeys(changes, True)

    monkeypatch.setattr(KnownRule, "accepts", careless)

    with pytest.raises(EvaluationError, match=r"failed by itself .*its attack did not happen"):
        attacked_run(config(images, name), AttackName.ADAPTIVE, share=0.125, grounds=grounds)


def test_an_attacker_that_raises_fails_the_command(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, the name of the error, and no table."""

    def broken(own: KnownRule, changes: Any) -> Any:  # noqa: ARG001
        raise RobustnessError("this filter needs `bound`")

    monkeypatch.setattr(KnownRule, "accepts", broken)
    keys = job(images, rounds=1, robustness__f=1)

    assert main(["evaluate", "--quick", "--out", str(tmp_path / "found"), *keys]) == 1

    assert "its attack did not happen" in capsys.readouterr().err
    assert not (tmp_path / "found" / "evaluation.md").exists()


def test_an_attack_of_which_no_round_comes_about_is_an_error(images: Path, grounds: Grounds) -> None:
    """Everybody drops out in every round: there is nothing to score."""
    silent = config(images, FilterName.NONE, **{"dropout-rate": 0.99})

    with pytest.raises(EvaluationError, match=r"no update of an attacker reached a sum in 2 rounds"):
        attacked_run(silent, AttackName.SIGN_FLIP, share=0.125, grounds=grounds)


def test_drop_outs_that_are_injected_are_part_of_the_evaluation(images: Path, grounds: Grounds) -> None:
    outcome = attacked_run(
        config(images, FilterName.TRIMMED_MEAN, **{"dropout-rate": 0.3, "rounds": 4}),
        AttackName.ADAPTIVE,
        share=0.125,
        grounds=grounds,
    )

    assert 0 < outcome.attacks_seen < ATTACKERS * 4


def test_a_sampled_cohort_has_those_attackers_that_were_drawn(images: Path, grounds: Grounds) -> None:
    """Who is not in the round is not judged, sends nothing, and is not missed."""
    tiers = "{small={rank=1,clients=4,cohort=3},large={rank=2,clients=12,cohort=8}}"
    outcome = attacked_run(
        config(images, FilterName.TIER_DNC_COSINE, tiers=tiers, rounds=4),
        AttackName.ADAPTIVE,
        share=0.125,
        grounds=grounds,
    )

    assert 0 < outcome.attacks_seen < ATTACKERS * 4


def test_a_change_becomes_the_integers_that_its_client_sends() -> None:
    """Asked for again it is not computed anew; another change of the same client is."""
    plan = make_plan(robustness={"filter": "trimmed-mean"})
    adapter, session = make_adapter(plan), make_session(plan)
    rule = KnownRule(
        plan=plan, defence=Defence.of(plan, PreviousStep(plan)), weights=dict.fromkeys(plan.ranks, 1.0)
    )
    change = np.full((3, adapter.rows.shape[1]), 0.01)
    rule.before_round(session, adapter)

    first = rule._integers(session, adapter, "large-01", change)

    assert rule._integers(session, adapter, "large-01", change) is first
    assert rule._integers(session, adapter, "large-01", 2 * change) is not first
    assert set(first) == set(drifted(plan, adapter, "large-01"))


def test_what_rows_of_32_bits_cannot_hold_is_not_sent() -> None:
    """A change of some steps of the grid to rows of a thousand is lost in training's own result, and so it is at home."""
    plan = make_plan(robustness={"filter": "trimmed-mean"})
    small = make_adapter(plan)
    adapter = Adapter(layout=small.layout, rows=np.full_like(small.rows, 1000.0))
    rule = KnownRule(
        plan=plan, defence=Defence.of(plan, PreviousStep(plan)), weights=dict.fromkeys(plan.ranks, 1.0)
    )
    change = np.full((1, adapter.rows.shape[1]), 1e-5)

    sent = rule._integers(make_session(plan), adapter, "small-01", change)

    assert not sent[0][: len(sent[0]) - plan.statistics].any()


def test_the_rule_knows_enrolled_clients_in_a_round_alone() -> None:
    """Made-up names and a round that was not entered are refused by name: no attack goes on with a rule that it has not."""
    plan = make_plan(robustness={"filter": "trimmed-mean"})
    rule = KnownRule(
        plan=plan, defence=Defence.of(plan, PreviousStep(plan)), weights=dict.fromkeys(plan.ranks, 1.0)
    )
    with pytest.raises(EvaluationError, match="before the round was entered"):
        rule.accepts({})
    rule.before_round(make_session(plan), make_adapter(plan))
    with pytest.raises(EvaluationError, match="honest-1 is no client"):
        rule.accepts({"honest-1": np.zeros((1, 4))})


def test_no_filter_is_built_by_the_attackers() -> None:
    """There is one builder, and it is not imported here: what cannot be written twice cannot drift."""
    assert not hasattr(known_defence, "build")
    assert not hasattr(known_defence, "options")
