"""The command line: refusals in one line, exit codes, and one JSON object as the last line for machines."""

import json
import re
from pathlib import Path

import pytest

from rbla_secure import __version__
from rbla_secure.cli import main
from tests.support.tiny_job import adapter_sha256, finish, job, write_images

NARROW = ["--set", "tiers.datacenter.clients=2"]  # two clients of the largest rank


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set."""
    return write_images(tmp_path_factory.mktemp("data"))


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on standard error of a command that is refused with exit code 1."""
    code = main(arguments)
    captured = capsys.readouterr()
    assert code == 1
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("rbla-secure: ")
    assert "Traceback" not in captured.err
    return captured.err.removeprefix("rbla-secure: ").rstrip("\n")


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


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_refusal_is_told_to_machines_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    """With --json a refusal is an object with its name, beside the line on standard error."""
    out = ["--out", str(tmp_path / "run")] if command == "run" else []

    code = main([command, "--json", *NARROW, *out])

    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert code == 1
    assert found["error"] == "PlanError"
    assert found["message"].startswith("min-holders=3 must be <= 2")
    assert captured.err == f"rbla-secure: {found['message']}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["run", "a.toml", "b.toml"],
        ["run", "--set"],
        ["run", "--set", "rounds"],
        ["run", "--set", "=3"],
        ["run", "--out"],
        ["check", "--out", "x"],
        ["resume"],
        ["resume", "a", "b"],
        ["resume", "a", "--set", "rounds=3"],
        ["--json"],
        ["run", "--verbose"],
    ],
)
def test_a_bad_command_line_exits_with_two(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """What is no command line is answered with its usage."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)

    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert captured.out == ""
    assert captured.err.startswith("usage: rbla-secure")


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["check", "-h"], ["resume", "-h"]])
def test_help_is_no_error(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Every command explains itself."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)

    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("usage: rbla-secure")


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints name and version."""
    with pytest.raises(SystemExit) as stop:
        main(["--version"])

    assert stop.value.code == 0
    assert capsys.readouterr().out == f"rbla-secure {__version__}\n"


def test_a_run_ends_with_one_json_object(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, images: Path
) -> None:
    """With --json the only line of standard output has every key of a result, and true ones."""
    folder = tmp_path / "run"

    code = main(["run", "--json", "--out", str(folder), *job(images, dropout_rate=0.1)])

    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert code == 0
    assert captured.out.count("\n") == 1
    assert set(result) == {
        "run",
        "accuracy",
        "rounds",
        "seconds",
        "bytes_up_per_client",
        "refused_bands",
        "dropouts",
        "aborted_rounds",
        "epsilon",
        "privacy",
        "sample_privacy",
        "suspicion",
        "adapter_sha256",
        "services",
    }
    assert set(result["accuracy"]) == {"base", "final", "last5"}
    assert set(result["seconds"]) == {"training", "protocol", "evaluation", "total"}
    assert result["run"] == str(folder)
    assert result["rounds"] == 3
    assert result["epsilon"] is None
    assert result["adapter_sha256"] == adapter_sha256(folder)
    assert result["seconds"]["total"] > result["seconds"]["training"] > 0
    assert "round 3/3" in captured.err


def test_a_run_for_people_prints_lines(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, images: Path
) -> None:
    """Without --json one line per round and what each party learned go to standard output."""
    code = main(["run", "--out", str(tmp_path / "run"), *job(images, rounds=2)])

    captured = capsys.readouterr()
    assert code == 0
    assert captured.err == ""
    assert [line[:9] for line in captured.out.splitlines() if line.startswith("round")] == [
        "round 1/2",
        "round 2/2",
    ]
    assert "what each party learned" in captured.out
    assert f"adapter sha256 {adapter_sha256(tmp_path / 'run')}" in captured.out


def test_without_out_a_run_has_a_folder_of_its_own(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: Path
) -> None:
    """Runs are kept under runs/, named by time and process."""
    monkeypatch.chdir(tmp_path)

    code = main(["run", "--json", *job(images, rounds=1)])

    (folder,) = (tmp_path / "runs").iterdir()
    assert code == 0
    assert re.fullmatch(r"\d{8}-\d{6}-\d+", folder.name)
    assert json.loads(capsys.readouterr().out)["run"] == f"runs/{folder.name}"


def test_out_must_be_empty(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A folder with content is refused before anything is computed, and left as it is."""
    (tmp_path / "mine").write_text("mine")

    line = refusal(capsys, "run", "--out", str(tmp_path))

    assert line.startswith(f"out={tmp_path} must not exist or be empty")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_out_below_a_file_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What the operating system refuses is named with its path."""
    (tmp_path / "file").write_text("text")

    line = refusal(capsys, "run", "--out", str(tmp_path / "file" / "run"))

    assert line.endswith(": Not a directory")
    assert str(tmp_path / "file") in line


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_resume_needs_a_run(capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str) -> None:
    """A folder that is no run is refused by name."""
    path = tmp_path / "run"
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("text")

    line = refusal(capsys, "resume", str(path))

    assert line == f"{path} is no run folder: config.toml is missing"


def test_a_finished_run_can_be_resumed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, images: Path
) -> None:
    """Nothing is left to do: the result is told again, the same."""
    folder = tmp_path / "run"
    main(["run", "--json", "--out", str(folder), *job(images)])
    first = json.loads(capsys.readouterr().out)

    code = main(["resume", "--json", str(folder)])

    captured = capsys.readouterr()
    again = json.loads(captured.out)
    assert code == 0
    assert "resumed after round 3" in captured.err
    assert {**again, "seconds": None} == {**first, "seconds": None}


def test_a_run_that_diverged_can_be_resumed(tmp_path: Path, images: Path) -> None:
    """However bad the model has become, its run folder stays readable."""
    folder = tmp_path / "run"
    first = main(["run", "--json", "--out", str(folder), *job(images, rounds=1, server_learning_rate="1e6")])

    again = main(["resume", "--json", str(folder)])

    assert (first, again) == (0, 0)


def test_a_run_without_survivors_stops_by_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, images: Path
) -> None:
    """Too many aborted rounds in a row end a run with exit code 1 and a line that says how to try again."""
    out = ["--out", str(tmp_path / "run")]

    code = main(["run", "--json", *out, *job(images, rounds=9, dropout_rate=0.99, max_aborted_rounds=2)])

    captured = capsys.readouterr()
    assert code == 1
    assert json.loads(captured.out)["error"] == "AbortedRunError"
    assert captured.err.splitlines()[-1].startswith("rbla-secure: 2 rounds in a row were aborted")


def test_a_folder_in_use_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one process works in a folder, another one is turned away."""
    folder = tmp_path / "run"
    codes = []

    def resume_meanwhile(*_arguments: object) -> None:
        codes.append(main(["resume", str(folder)]))
        raise KeyboardInterrupt

    monkeypatch.setattr("rbla_secure.job.run_job", resume_meanwhile)

    codes.append(main(["run", "--out", str(folder), *job(images)]))

    lines = capsys.readouterr().err.splitlines()
    assert codes == [1, 1]
    assert lines[0] == f"rbla-secure: {folder} is in use by another process"
    assert "interrupted; 'rbla-secure resume' goes on" in lines[1]


@pytest.mark.parametrize(
    ("arguments", "code", "start"),
    [
        (["check", *NARROW], 1, "rbla-secure: min-holders=3 must be <= 2"),
        (["check", "--set", "roundz=1"], 1, "rbla-secure: unknown key 'roundz'"),
        (["check", "--set", "task.data=mnist"], 1, "rbla-secure: data=mnist needs a file"),
        (["resume", "nowhere"], 1, "rbla-secure: nowhere is no run folder"),
        (["dance"], 2, "usage: rbla-secure"),
    ],
)
def test_a_process_ends_with_the_code(tmp_path: Path, arguments: list[str], code: int, start: str) -> None:
    """In a process of its own, too, a refusal is one line, an exit code and no traceback."""
    ended = finish(*arguments, cwd=tmp_path)

    assert ended.returncode == code
    assert ended.stdout == ""
    assert ended.stderr.startswith(start)
    assert "Traceback" not in ended.stderr
