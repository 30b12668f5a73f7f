"""`rbla-secure resume`: what is no run is refused, and a finished run is told again."""

import json
from pathlib import Path

import pytest

from rbla_secure.cli import main
from tests.support.command_line import refusal
from tests.support.tiny_job import job


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
