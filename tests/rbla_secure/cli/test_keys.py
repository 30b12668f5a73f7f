"""`rbla-secure keys` as a command line: usage, passphrases as arguments, and a process of its own.

What its actions do to folders is in tests/rbla_secure/identities/test_authority.py.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rbla_secure import cli
from rbla_secure.cli import main

PASSPHRASE = "correct horse battery staple"  # noqa: S105 - of tests only


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["destroy"],
        ["list"],
        ["enrol", "--dir", "a", "--client", "b"],
        ["enrol", "--dir", "a", "--rank", "1"],
        ["enrol", "--dir", "a", "--client", "b", "--rank", "-1"],
        ["enrol", "--dir", "a", "--client", "b", "--rank", "65536"],
        ["enrol", "--dir", "a", "--client", "b", "--rank", "four"],
        ["enrol", "--dir", "a", "--client", "b", "--rank", "1", "--days", "-1"],
        ["create-authority", "--dir", "a", "--days", "36501"],
        ["show"],
    ],
)
def test_bad_command_lines_exit_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """What is missing, misspelt or out of range ends with usage and exit code 2, and nothing is made."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SystemExit) as caught:
        main(["keys", *arguments])

    assert caught.value.code == 2
    assert "usage: rbla-secure keys" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--passphrase", "--client-passphrase"])
@pytest.mark.parametrize("joint", [" ", "="])
def test_a_passphrase_on_the_command_line_is_refused_unprinted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, joint: str
) -> None:
    """A passphrase as an argument ends with exit code 2; the message names the file and shows no passphrase."""
    words = [f"{option}={PASSPHRASE}"] if joint == "=" else [option, PASSPHRASE]

    with pytest.raises(SystemExit) as caught:
        main(["keys", "enrol", "--dir", str(tmp_path), "--client", "carol", "--rank", "1", *words])

    output = capsys.readouterr()
    assert caught.value.code == 2
    assert "use a file or RBLA_SECURE_PASSPHRASE" in output.err
    assert "horse" not in output.err + output.out


def test_the_program_runs_as_a_process_of_its_own(tmp_path: Path) -> None:
    """The installed entry point makes, lists and refuses with its exit codes."""
    program = [sys.executable, "-m", "rbla_secure.cli", "keys"]
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}

    def start(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*program, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
        )

    created, again = start("create-authority", "--dir", "a"), start("create-authority", "--dir", "a")

    assert (created.returncode, again.returncode) == (0, 1)
    assert again.stderr == "rbla-secure: a must not exist or be empty; keys are never overwritten\n"
