"""The command line in this process, as tests of single commands use it."""

import pytest

from rbla_secure.cli import main

NARROW = ["--set", "tiers.datacenter.clients=2"]  # two clients of the largest rank


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
