"""Fixtures that the tests of this folder share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rbla_secure.cli import main
from rbla_secure.identities.passphrases import PASSPHRASE_VARIABLE
from tests.rbla_secure.identities.offices import NOW, PASSPHRASE, Command


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """A known time, and no passphrase from outside."""
    monkeypatch.setattr("rbla_secure.cli.keys._now", lambda: NOW)
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a keys command that must be done, and gives its JSON."""

    def command(*arguments: object) -> dict[str, Any]:
        code = main(["keys", *map(str, arguments), "--json"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        assert PASSPHRASE not in captured.out + captured.err
        result: dict[str, Any] = json.loads(captured.out)
        return result

    return command


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a keys command that must be refused with exit code 1 and one line, and gives kind and line."""

    def command(*arguments: object) -> str:
        code = main(["keys", *map(str, arguments), "--json"])
        captured = capsys.readouterr()
        assert code == 1, captured.out
        assert captured.err.count("\n") == 1
        assert "Traceback" not in captured.err
        assert PASSPHRASE not in captured.out + captured.err
        result = json.loads(captured.out)
        assert captured.err == f"rbla-secure: {result['message']}\n"
        return f"{result['error']}: {result['message']}"

    return command


@pytest.fixture
def office(tmp_path: Path, run: Command) -> Path:
    """An authority's folder with alice (rank 4) and bob (rank 8)."""
    folder = tmp_path / "authority"
    run("create-authority", "--dir", folder, "--name", "Test authority")
    run("enrol", "--dir", folder, "--client", "alice", "--rank", 4)
    run("enrol", "--dir", folder, "--client", "bob", "--rank", 8)
    return folder
