"""Attackers that fail by themselves, in whole runs: none is scored, whatever the answers of the round show."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols.errors import ScreeningError
from rbla_secure.config import Config, load_config
from rbla_secure.engines.in_process import Faults, InProcess
from rbla_secure.errors import EvaluationError
from rbla_secure.evaluation import attacked_run as attacked_runs
from rbla_secure.evaluation.attacked_run import Outcome, attacked_run, kept_from_input
from rbla_secure.evaluation.mounted import Failures, mounted
from rbla_secure.evaluation.poisoning.coalition import Coalition
from rbla_secure.evaluation.poisoning.placement import placement
from rbla_secure.evaluation.poisoning.registry import AttackName
from rbla_secure.evaluation.poisoning.unclipped import unclipped_contribution
from rbla_secure.federation.client.contribution import contribution
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.exchange import Answer
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.seeding import derive_seed
from rbla_secure.tasks.training import use_one_thread
from tests.support.federations import make_adapter, make_plan, make_session
from tests.support.tiny_job import write_images

PLAIN, MASKING, NOISE = "secure-sum=plain", "secure-sum=masking", "noise-multiplier=1.0"
STAGES = ("advertise_keys", "share_keys", "mask_input", "reveal_shares")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few hundred examples."""
    use_one_thread()
    folder = tmp_path_factory.mktemp("images")
    write_images(folder)
    return folder


def config(images: Path, *settings: str) -> Config:
    task = ("task.data=mnist", f"task.root={images}", "task.held-out=60", "task.public=60")
    return load_config(None, ["rounds=1", "dropout-rate=0.0", *task, "training.steps=2", *settings])


def attacked(images: Path, *settings: str, contribute: Any = contribution) -> Outcome:
    return attacked_run(config(images, *settings), AttackName.SIGN_FLIP, share=0.2, contribute=contribute)


def placed(chosen: Config) -> tuple[str, ...]:
    """The attackers."""
    seed = derive_seed(chosen.seed, "attackers")
    return tuple(placement(AttackName.SIGN_FLIP, chosen, share=0.2, seed=seed).attackers)


def raising(_adapter: Adapter, _seed: int) -> Rows:
    raise ArithmeticError("the attack failed")


def not_a_number(adapter: Adapter, _seed: int) -> Rows:
    return np.full_like(adapter.rows, np.nan, dtype=np.float32)


def misshapen(adapter: Adapter, _seed: int) -> Rows:
    return np.zeros((len(adapter.rows) + 1, 3), dtype=np.float32)


@pytest.mark.parametrize("settings", [(PLAIN,), (PLAIN, NOISE), (MASKING, NOISE)])
@pytest.mark.parametrize(
    ("train", "why"),
    [
        (raising, "ArithmeticError: the attack failed"),
        (not_a_number, "its change is not finite"),
        (misshapen, "ValueError"),
    ],
)
def test_an_attacker_whose_training_fails_is_not_scored(
    images: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...], train: Any, why: str
) -> None:
    monkeypatch.setattr(Coalition, "train_of", lambda *_: train)

    with pytest.raises(EvaluationError, match=f"round 1: attacker .* failed by itself \\({why}"):
        attacked(images, *settings)


def test_under_noise_the_sum_shows_no_such_failure(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The controls: attackers that do not fail are counted, and those that fail too where failures are not recorded."""
    assert attacked(images, PLAIN, NOISE).attacks_seen == 2

    monkeypatch.setattr(Coalition, "train_of", lambda *_: raising)
    monkeypatch.setattr(Failures, "training", lambda _self, _client, train: train)
    monkeypatch.setattr(Failures, "contributing", lambda _self, _client, contribute: contribute)
    assert attacked(images, PLAIN, NOISE).attacks_seen == 2


def test_what_failed_in_one_round_is_not_held_against_the_next() -> None:
    plan = make_plan()
    failures, adapter = Failures(), make_adapter(plan)
    failures.training("bad", not_a_number)(adapter, 1)
    assert set(failures.of) == {"bad"}

    failures.before_round(make_session(plan), adapter)

    assert not failures.of


def test_a_change_that_was_lost_after_training_is_a_failure(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a limit of time does that ends between training and contribution: under noise zeros go on in its place."""
    change = Participant._change

    def lost(participant: Participant, *args: Any) -> Any:
        trained = change(participant, *args)
        return np.zeros_like(trained) if participant._name in attackers else trained

    attackers = placed(config(images, PLAIN, NOISE))
    monkeypatch.setattr(Participant, "_change", lost)
    with pytest.raises(EvaluationError, match="its change is not the one that its training returned"):
        attacked(images, PLAIN, NOISE)


@pytest.mark.parametrize("settings", [(PLAIN,), (PLAIN, NOISE)])
def test_a_screening_error_of_the_attackers_own_is_no_screening(
    images: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    """Nothing screens there. An evaluation that believes the name scores them, one that asks for a verdict does not."""

    def unjudged(*_: Any, **__: Any) -> Any:
        raise ScreeningError("its norm exceeds 1 input bounds")

    with pytest.raises(EvaluationError, match=r"failed by itself \(ScreeningError"):
        attacked(images, *settings, contribute=unjudged)

    def believing(outcome: Any, number: int, attackers: Any, *rest: Any, **_: Any) -> frozenset[str]:
        named = {name for name, why in outcome.refusals.items() if why.startswith("ScreeningError")}
        return mounted(outcome, number, attackers, *rest, screened=named)

    monkeypatch.setattr(attacked_runs, "mounted", believing)
    assert attacked(images, *settings, contribute=unjudged).attacks_seen == 2


def test_what_the_servers_screening_turns_away_is_counted(images: Path) -> None:
    """Updates without a clip, beyond the norm that is allowed: refused with a verdict, by the server."""
    settings = ("secure-sum=homomorphic", "homomorphic.screening=verdicts")

    assert attacked(images, *settings, contribute=unclipped_contribution).attacks_seen == 2
    with pytest.raises(EvaluationError, match="was refused"):
        attacked(images, "secure-sum=masking", contribute=_out_of_range)


def _out_of_range(*args: Any, **kwargs: Any) -> Any:
    return {index: values + 2**40 for index, values in contribution(*args, **kwargs).items()}


def test_a_drop_out_after_the_input_excuses_no_silence_before_it() -> None:
    """A drop-out at any moment but the last does; one that asks only whether there is any is taken in."""
    faults = Faults(rate=0.5, seed=0, stages=STAGES, input_stage="mask_input")
    moments = {client: faults.silent_from(client, 1) for client in map(str, range(60))}
    assert set(moments.values()) == {0, 1, 2, 3, 4}

    for client, moment in moments.items():
        assert kept_from_input(faults, client, 1) == (moment <= 2)
    late = next(client for client, moment in moments.items() if moment == 3)
    assert faults.silent_from(late, 1) < len(STAGES)


def test_an_attacker_that_is_silent_at_its_input_is_not_scored(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its injected drop-out would have come after the input, and takes nothing away: without the silence it is counted.

    An evaluation that any injected drop-out satisfies scores the other attacker alone.
    """
    lost = placed(config(images, MASKING))[0]
    monkeypatch.setattr(Faults, "silent_from", lambda _self, client, _number: 3 if client == lost else 4)
    assert attacked(images, MASKING).attacks_seen == 2

    send = InProcess.send

    def losing(engine: InProcess, messages: Any) -> Iterator[Answer]:
        for answer in send(engine, messages):
            if (answer.client, answer.parcel.stage) != (lost, "mask_input"):
                yield answer

    monkeypatch.setattr(InProcess, "send", losing)
    with pytest.raises(EvaluationError, match=f"nothing of attacker {lost} was summed, and no injected"):
        attacked(images, MASKING)

    monkeypatch.setattr(
        attacked_runs, "kept_from_input", lambda faults, *which: faults.silent_from(*which) < 4
    )
    assert attacked(images, MASKING).attacks_seen == 1
