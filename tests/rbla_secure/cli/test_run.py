"""`rbla-secure run` as its user meets it: lines or one JSON object, and its folder."""

import json
import re
from pathlib import Path

import pytest

from rbla_secure.cli import main
from tests.support.command_line import refusal
from tests.support.tiny_job import adapter_sha256, job


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


def test_a_configuration_is_refused_before_what_stands_beside_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Whoever mends the configuration first is not told of a budget's label first."""
    arguments = ["run", "--out", str(tmp_path / "run"), "--set", "min-holders=99", "--data-label", "x"]

    assert main(arguments) == 1
    assert "min-holders=99 must be <= 10" in capsys.readouterr().err
    assert main([*arguments[:3], *arguments[5:]]) == 1
    assert "--data-label and --lifetime-... need --budgets DIR" in capsys.readouterr().err
