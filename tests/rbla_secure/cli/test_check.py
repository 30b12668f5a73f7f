"""`rbla-secure check`: refusals in one line, and what it says of a sound configuration."""

import json
import re
from pathlib import Path

import pytest

from rbla_secure.cli import main
from tests.support.command_line import NARROW, refusal
from tests.support.tiny_job import job

REFUSALS = [
    (NARROW, "min-holders=3 must be <= 2, the clients per round of rank >= 16 (tiers datacenter)"),
    (["--set", "min-holders=11"], "min-holders=11 must be <= 10"),
    (["--set", "masking.threshold=11"], "masking.threshold=11 must be <= 10, the clients per round"),
    (["--set", "masking.threshold=5"], "masking.threshold=5 must be >= 6 for 10 clients per round"),
    (["--set", "quantization.bits=32"], "quantization.bits=32 must be <= 27: the sum of 10 clients"),
    (["--set", "tiers.phone.cohort=3"], "tiers.phone.cohort=3 must be <= tiers.phone.clients=2"),
    (["--set", "average=fedavg"], "average=fedavg must have equal ranks: the tiers have 4 different ones"),
    (
        ["--set", "noise-multiplier=1", "--set", "privacy.max-epsilon=2"],
        (
            "privacy.max-epsilon=2 must be >= 28.373, which 20 rounds of one client spend at least against the participant at "
            "noise-multiplier=1 and delta=1e-05; noise-multiplier=8.917 or more would do"
        ),
    ),
    (["--set", "roundz=3"], "unknown key 'roundz'; did you mean 'rounds'?"),
    (["--set", "rounds=three"], "rounds='three' must be a valid integer"),
    (["--set", "rounds=true"], "rounds=True must be a valid integer"),
    (["--set", "clip-norm=nan"], "clip-norm=nan must be a finite number"),
    (["--set", "clip-norm=inf"], "clip-norm=inf must be a finite number"),
    (["--set", "gamma=5"], "gamma=5 must be less than or equal to 4"),
    (["nowhere/config.toml"], "config=nowhere/config.toml cannot be read: No such file or directory"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSALS)
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_configuration_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str, arguments: list[str], message: str
) -> None:
    """Both commands name argument, value and rule, exit with 1 and leave nothing behind."""
    out = ["--out", str(tmp_path / "run")] if command == "run" else []

    line = refusal(capsys, command, *arguments, *out)

    assert line.startswith(message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"rounds = ", r"config=.*config\.toml is not a TOML file: Invalid value \(at end of document\)"),
        (b"[tiers", r"config=.*config\.toml is not a TOML file"),
        (b"\xff", r"config=.*config\.toml is not a TOML file"),
        (b"rounds = 0", r"rounds=0 must be greater than or equal to 1"),
        (b"[tiers.a]\nrank = 1\n", r"key 'tiers\.a\.clients' is missing"),
        (b"rounds = nan", r"rounds=nan must be a "),
    ],
)
def test_a_broken_file_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes, message: str
) -> None:
    """What is wrong in a file is named like what is wrong on the command line."""
    path = tmp_path / "config.toml"
    path.write_bytes(content)

    line = refusal(capsys, "check", str(path))

    assert re.match(message, line)


@pytest.mark.parametrize("root", ["", "nowhere.npz", "."])
def test_a_missing_data_set_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    """`check` looks for the files of the task, and says what to do about one that is missing."""
    monkeypatch.chdir(tmp_path)

    line = refusal(capsys, "check", "--set", "task.data=mnist", "--set", f"task.root={root}")

    assert line.startswith("data=mnist ")
    assert "set task.root to an mnist.npz" in line


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *(
            (("noise-multiplier=" + noise,), f"noise-multiplier={noise}")
            for noise in ("1e-20", "1e-155", "1e-300")
        ),
        (("noise-multiplier=1e-300", "privacy.clipping=adaptive"), "noise-multiplier=1e-300"),
        (
            ("noise-multiplier=1e-6", "quantization.ring-bits=16"),
            "noise-multiplier=1e-06: no grid of 2 to 32 bits has room for 10 clients and their noise",
        ),
        (
            ("noise-multiplier=1e-6", "privacy.mechanism=central"),
            "noise-multiplier=1e-06: noise of 0.819 integer units must be >= 4: raise quantization.bits",
        ),
        (
            ("noise-multiplier=5000", "privacy.mechanism=central", "quantization.bits=24"),
            "noise-multiplier=5000: noise of",
        ),
        (("tiers.phone.clients=400", "tiers.phone.cohort=2"), "180 examples cannot give clients=408"),
    ],
)
def test_check_refuses_what_run_would(
    capsys: pytest.CaptureFixture[str], images: Path, settings: tuple[str, ...], message: str
) -> None:
    """Noise for which the base's shape leaves no room, and data too few to deal: found before a folder is made."""
    line = refusal(capsys, "check", *job(images), *(part for text in settings for part in ("--set", text)))

    assert line.startswith(message)


def test_a_sound_configuration_is_explained(capsys: pytest.CaptureFixture[str], images: Path) -> None:
    """`check` lists bands, threshold and warnings, and exits with 0."""
    code = main(["check", *job(images, secure_sum="plain")])

    text = capsys.readouterr().out
    assert code == 0
    assert "rows 9-16" in text
    assert "warning: INSECURE: secure-sum=plain" in text
    assert "threshold 6, at least 3 holders per band; the plan is sound" in text


def test_a_sound_configuration_is_explained_to_machines(
    capsys: pytest.CaptureFixture[str], images: Path
) -> None:
    """With --json standard output is one object, and the text for people goes to standard error."""
    code = main(["check", "--json", *job(images)])

    captured = capsys.readouterr()
    assert code == 0
    assert json.loads(captured.out) == {
        "sound": True,
        "threshold": 6,
        "bands": [
            {"band": "rows 1-2", "holders": 10, "quorum": 6, "groups": 0, "largest_f": 4},
            {"band": "rows 3-4", "holders": 8, "quorum": 5, "groups": 0, "largest_f": 3},
            {"band": "rows 5-8", "holders": 6, "quorum": 4, "groups": 0, "largest_f": 2},
            {"band": "rows 9-16", "holders": 4, "quorum": 3, "groups": 0, "largest_f": 1},
        ],
        "tiers": dict.fromkeys(
            ["datacenter", "laptop", "phone", "workstation"],
            "protected: all clients start a round from one function",
        ),
        "robustness": {
            "f": 0,
            "filter": "none",
            "pre_step": "none",
            "group_size": 0,
            "group_rule": None,
            "groups_needed": None,
        },
        "warnings": [],
    }
    assert "the plan is sound" in captured.err
