"""Whole jobs with filters, groups and checks: what they end in, say and write, and that they resume."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rbla_secure.cli import main
from rbla_secure.config import load_config
from rbla_secure.federation.server.step_checks import PublicTests, StepChecks
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.peft_io import find_linear
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.figures import rounded_up
from rbla_secure.robustness.step_decisions import Action
from rbla_secure.run_folder.audit_log import EventKind, read_events
from rbla_secure.tasks.base_model import train_base
from rbla_secure.tasks.datasets import LabelledImages
from rbla_secure.tasks.public_examples import PublicExamples
from rbla_secure.tasks.splits import load_data
from rbla_secure.tasks.training import LocalTrainer
from rbla_secure.tasks.triggers import corner_patches, stamp
from tests.support.run_folders import go_back_to
from tests.support.tiny_job import adapter_sha256, job, metrics, write_images

# One tier of twelve: four groups of three, which stand one attacker.
ONE_TIER = "{all={rank=4,clients=12}}"
GROUPED: dict[str, object] = {
    "tiers": ONE_TIER,
    "robustness__f": 1,
    "robustness__group_size": 3,
    "masking__profile": "semi-honest",
}
FILTERED: dict[str, object] = {
    "tiers": ONE_TIER,
    "secure_sum": "plain",
    "robustness__f": 2,
    "robustness__filter": "tier-dnc-cosine",
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set."""
    return write_images(tmp_path_factory.mktemp("data"))


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], str]:
    """The object that a command ends with, and the text for people with it."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    found: dict[str, Any] = json.loads(captured.out.splitlines()[-1])
    return found, captured.err


def without_bytes(folder: Path) -> list[dict[str, object]]:
    """The rounds, but for what they sent."""
    return [{k: v for k, v in line.items() if not k.startswith("bytes_up")} for line in metrics(folder)]


def test_groups_are_the_same_in_the_clear_and_in_a_repetition(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Adapter, decisions and ranking of suspicion; the latter is told at the end, five lines of it at the most."""
    keys = job(images, **GROUPED)
    masked, text = told(capsys, "run", "--out", str(tmp_path / "masked"), *keys)
    again, _ = told(capsys, "run", "--out", str(tmp_path / "again"), *keys)
    clear, _ = told(capsys, "run", "--out", str(tmp_path / "clear"), *keys, "--set", "secure-sum=plain")

    assert masked["adapter_sha256"] == again["adapter_sha256"] == clear["adapter_sha256"]
    assert (tmp_path / "masked/metrics.jsonl").read_bytes() == (tmp_path / "again/metrics.jsonl").read_bytes()
    assert without_bytes(tmp_path / "masked") == without_bytes(tmp_path / "clear")
    assert masked["suspicion"] == clear["suspicion"]
    assert len(masked["suspicion"]) == 5
    assert set(masked["suspicion"][0]) == {"client", "suspicion", "rounds"}
    shares = [each["suspicion"] for each in masked["suspicion"]]
    assert shares == sorted(shares, reverse=True)
    assert "most often in suspicious groups" in text
    assert masked["suspicion"][0]["client"] in text


def test_filters_say_whom_they_rejected(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two in every round, in metrics, events and on the console alike; nobody is ranked without groups."""
    found, text = told(capsys, "run", "--out", str(tmp_path / "run"), *job(images, **FILTERED))

    rejected = [line["rejected"] for line in metrics(tmp_path / "run")]
    events = read_events(tmp_path / "run" / "events.jsonl")
    noted: dict[int | None, dict[str, object]] = {}
    for event in events:
        if event.kind is EventKind.UPDATE_REJECTED:
            noted.setdefault(event.round, {})[str(event.details["of"])] = event.details["reason"]
    assert [len(each) for each in rejected] == [2, 2, 2]  # type: ignore[arg-type]
    assert noted == dict(enumerate(rejected, start=1))
    for each in rejected:
        for client, reason in each.items():  # type: ignore[attr-defined]
            assert f"{client} was not kept: {reason}" in text
    assert found["suspicion"] == []
    assert "suspicious groups" not in text


CHECKED: dict[str, object] = {
    "robustness__max_step_norm": 0.05,
    "robustness__max_accuracy_drop": 0.01,
    "robustness__max_trigger_rise": 0.01,
}


@pytest.mark.parametrize("defence", [FILTERED | CHECKED, GROUPED | CHECKED, GROUPED | {"dropout_rate": 0.1}])
@pytest.mark.parametrize("kept", [1, 2, 4])
def test_a_defended_job_resumes_to_the_same_bytes(
    tmp_path: Path, images: Path, defence: dict[str, object], kept: int
) -> None:
    """From any of its checkpoints."""
    whole = tmp_path / "whole"
    assert main(["run", "--out", str(whole), *job(images, rounds=5, **{"dropout_rate": 0.0, **defence})]) == 0
    part = tmp_path / "part"
    shutil.copytree(whole, part)
    go_back_to(part, kept)

    assert main(["resume", str(part)]) == 0

    assert (part / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert adapter_sha256(part) == adapter_sha256(whole)


def test_decisions_on_steps_are_said(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every step of this run is too long: scaled, by rule, number and limit, in metrics, events and on the console."""
    keys = job(images, robustness__max_step_norm=0.05)
    _, text = told(capsys, "run", "--out", str(tmp_path / "run"), *keys)

    checks = [line["checks"] for line in metrics(tmp_path / "run")]
    events = read_events(tmp_path / "run" / "events.jsonl")
    noted = [event.details["reason"] for event in events if event.kind is EventKind.STEP_CHECKED]
    assert all(len(each) == 1 and "cap 0.05: scaled" in each[0] for each in checks)  # type: ignore[arg-type,index]
    assert noted == [each[0] for each in checks]  # type: ignore[index]
    assert all(str(reason) in text for reason in noted)


def test_the_scan_catches_an_adapter_with_a_backdoor(images: Path) -> None:
    """One that was trained to see a class in a patch is rolled back; one that was trained on what is true is not."""
    options = job(images, robustness__max_trigger_rise=0.4, training__epochs=30)
    config = load_config(None, [part for part in options if part != "--set"])
    data = load_data(config)
    base = train_base(data.public, seed=0)
    plan = Plan.build(config, layout=find_linear(base, scaling=config.lora.scaling), base_digest=bytes(32))
    public = PublicExamples(config, base, plan.layout, data.public)
    step_checks = StepChecks(
        wanted=config.robustness,
        tests=PublicTests(accuracy=public.accuracy, triggers=public.triggers),
        first=plan.initial_adapter,
    )
    trigger = next(iter(corner_patches().values()))
    honest = data.public
    stamped = LabelledImages(
        images=np.concatenate([honest.images, stamp(honest.images, trigger)]),
        labels=np.concatenate([honest.labels, np.full_like(honest.labels, trigger.target)]),
    )
    trainer = LocalTrainer(base, plan.layout, config.training)

    def judged(examples: LabelledImages) -> list[Action]:
        trained = Adapter(layout=plan.layout, rows=trainer.train(step_checks.first, examples, seed=1))
        kept, decisions = step_checks.judge(step_checks.first, trained)
        rolled_back = any(decision.action is Action.ROLL_BACK for decision in decisions)
        assert (kept is step_checks.first) == rolled_back
        return [decision.action for decision in decisions]

    assert judged(stamped) == [Action.ROLL_BACK]
    assert judged(honest) == [Action.ACCEPT]


def test_check_speaks_of_groups(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """How many hold each band, how many it needs, what it stands, and what small groups tell."""
    tiers = "{large={rank=4,clients=15},small={rank=2,clients=7}}"
    found, text = told(capsys, "check", *job(images, **{**GROUPED, "tiers": tiers}))

    assert found["bands"] == [
        {"band": "rows 1-2", "holders": 22, "quorum": 9, "groups": 7, "largest_f": 3},
        {"band": "rows 3-4", "holders": 15, "quorum": 9, "groups": 5, "largest_f": 2},
    ]
    assert found["robustness"] == {
        "f": 1,
        "filter": "none",
        "pre_step": "none",
        "group_size": 3,
        "group_rule": "coordinate-median",
        "groups_needed": 3,
    }
    assert "coordinate-median across groups of 3 or more clients of one rank" in text
    assert "groups per round: 7 in rows 1-2, 5 in rows 3-4; a band opens with 3 of them" in text
    assert "largest f that each band stands: 3 in rows 1-2, 2 in rows 3-4" in text
    assert any("hide little" in warning for warning in found["warnings"])


def test_check_speaks_of_filters(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By name, with what stands before it; buckets are what has a vote."""
    keys = {**FILTERED, "robustness__pre_step": "bucketing", "robustness__filter": "trimmed-mean"}
    found, text = told(capsys, "check", *job(images, **keys))

    assert found["bands"][0]["largest_f"] == 2
    assert found["robustness"]["filter"] == "trimmed-mean"
    assert "f=2 hostile clients of a round: filter trimmed-mean over single updates after bucketing" in text


@pytest.mark.parametrize("colluders", [0, 3])
def test_account_tells_what_groups_cost(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], colluders: int
) -> None:
    """Beside one sum over everybody; without drop-outs a run spends just that, or what nobody bounds."""
    keys = [*job(images, **GROUPED), "--set", "noise-multiplier=3", "--set", f"privacy.colluders={colluders}"]
    before, text = told(capsys, "account", *keys)

    run, _ = told(capsys, "run", "--out", str(tmp_path / "run"), *keys)

    assert f"one sum over everybody would cost {rounded_up(before['epsilon_one_sum'])}" in text
    if colluders:
        assert before["epsilon"] is None
        assert run["epsilon"] is None
    else:
        assert run["epsilon"] == pytest.approx(before["epsilon"])
        assert before["epsilon"] > before["epsilon_one_sum"]
