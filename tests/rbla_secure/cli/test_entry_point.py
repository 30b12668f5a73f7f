"""From a command line to an exit code: refusals, usage, versions, and one JSON object as the last line for machines."""

import json
from pathlib import Path

import pytest

from rbla_secure import __version__
from rbla_secure.cli import main
from tests.support.command_line import NARROW
from tests.support.tiny_job import finish


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


@pytest.mark.slow
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
