"""What `account` believes of a run folder, and who may go on with one."""

import json
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from rbla_secure.cli import main
from rbla_secure.config import load_config
from rbla_secure.errors import RunFolderError
from rbla_secure.run_folder.audit_log import AuditLog, EventKind, read_events
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.run_folder.history import History
from tests.support.federations import make_config
from tests.support.folder_edits import (
    Edit,
    entries,
    text_of,
)
from tests.support.refused_edits import EDITS, LEDGERS, ROUNDS
from tests.support.resumed import copy_of
from tests.support.run_folders import (
    die_before_the_end_of,
    go_back_to,
    keep_entries,
    result_at,
    snapshot,
)


def test_spending_is_in_the_log_before_it_is_spent(runs: Mapping[str, Path]) -> None:
    """Killed at any moment of a round, an entry whose sums may have been seen cannot be taken out again."""
    events = read_events(runs["noisy"] / "events.jsonl")

    for number in range(1, ROUNDS + 1):
        kinds = [
            (str(event.details.get("ledger", event.kind)))
            for event in events
            if event.round == number and event.kind in {EventKind.PRIVACY_SPENT, EventKind.ROUND_FINISHED}
        ]
        assert kinds == ["privacy-samples.json", "privacy.json", "round-finished"]


# Who looks.


@pytest.mark.parametrize("name", [name for name in EDITS if name.startswith("privacy")])
def test_account_refuses_a_ledger_that_is_not_the_logs(
    tmp_path: Path, runs: Mapping[str, Path], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """What was spent is told from the ledger that the log holds, or not at all.

    But for the figures of an entry at client level that the log does not hold: nothing was revealed for it, and it only adds
    to what was.
    """
    run, edit, words = EDITS[name]
    folder = copy_of(runs[run], tmp_path)
    edit(folder)
    capsys.readouterr()

    code = main(["account", str(folder)])

    error = capsys.readouterr().err
    if name.startswith("privacy.json: an unlogged entry ") and words.endswith("has other figures or clients"):
        assert code == 0
    else:
        assert code == 1
        assert words in error


@pytest.mark.parametrize("case", [(1, 0, 1), (2, 0, 0), (3, 0, 0), (4, 0, 0), (3, 1, 1), (4, 3, 1)])
def test_account_of_a_run_that_goes_on_meanwhile(
    tmp_path: Path, runs: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch, case: tuple[int, int, int]
) -> None:
    """The log had two rounds before the ledgers were read, and four afterwards: they may have any number from two on.

    What they have is compared with what the log held when they had it.
    """
    kept, changed, code = case
    folder, earlier = copy_of(runs["noisy"], tmp_path), Path(shutil.copytree(runs["noisy"], tmp_path / "was"))
    go_back_to(earlier, 2)
    for name in LEDGERS:
        keep_entries(folder / name, kept)
    if changed:
        entries(LEDGERS[0], lambda found: found[changed - 1].update(attempt=9))(folder)
    logs = iter([earlier / "events.jsonl", folder / "events.jsonl"])

    def history_of(_folder: Path) -> History:
        path = next(logs)
        found = History(path)
        AuditLog(path, observe=found.take)
        return found

    monkeypatch.setattr("rbla_secure.run_folder.ledger_checks._history", history_of)

    assert main(["account", str(folder)]) == code


@pytest.mark.parametrize(
    "name", ["no noise any more", "another identity", "no log", "an empty log", "log of another run"]
)
def test_account_looks_at_runs_alone(
    tmp_path: Path, runs: Mapping[str, Path], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A folder whose configuration, identity or log was exchanged has no account."""
    run, edit, words = EDITS[name]
    folder = copy_of(runs[run], tmp_path)
    edit(folder)

    assert main(["account", str(folder)]) == 1

    assert words in capsys.readouterr().err


@pytest.mark.parametrize("make", [lambda _path: None, lambda path: (path / "mine").write_text("1")])
def test_account_of_what_is_no_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Edit
) -> None:
    """A folder without a run is not one in which nothing was spent."""
    make(tmp_path)

    assert main(["account", str(tmp_path)]) == 1

    assert "is no run folder: config.toml is missing" in capsys.readouterr().err


def test_account_writes_nothing(tmp_path: Path, runs: Mapping[str, Path]) -> None:
    """Not even a lock: a run may be looked at while it goes on, and by who may only read."""
    folder = copy_of(runs["noisy"], tmp_path)
    (folder / "lock").unlink()
    text_of("events.jsonl", lambda text: text + '{"attempt":nu')(folder)
    before = snapshot(folder)

    assert main(["account", str(folder)]) == 0

    assert snapshot(folder) == before
    assert not (folder / "lock").exists()


# Two processes.


def test_of_two_that_go_on_with_a_run_one_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By name, and it has written nothing."""
    held = RunFolder.open(folder)
    before = snapshot(folder)

    code = main(["resume", str(folder)])

    held.close()
    assert code == 1
    assert "is in use by another process" in capsys.readouterr().err
    assert snapshot(folder) == before


@pytest.mark.parametrize("there", [False, True])
def test_of_many_that_make_one_folder_one_wins(tmp_path: Path, there: bool) -> None:  # noqa: FBT001
    """The others are refused by name, and the winner's folder is whole."""
    path = tmp_path / "run"
    if there:
        path.mkdir()
    start = threading.Barrier(8)
    made: list[RunFolder] = []
    refused: list[str] = []

    def make() -> None:
        start.wait()
        try:
            made.append(RunFolder.create(path, make_config()))
        except RunFolderError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (winner,) = made
    winner.close()
    again = RunFolder.open(path)
    again.close()
    assert len(refused) == 7
    assert again.run_id == winner.run_id
    assert all("in use" in text or "must not exist" in text or "meanwhile" in text for text in refused)
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


# What goes unseen, and is stated: whoever holds the folder can write all of it anew.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run", "noisy"])
@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_folder_that_is_cut_back_as_a_whole_looks_like_a_crash(
    tmp_path: Path, runs: Mapping[str, Path], name: str, number: int
) -> None:
    """With the end of the log, everything that it held goes unmissed: only its head, known elsewhere, tells."""
    folder = copy_of(runs[name], tmp_path)
    go_back_to(folder, number) if number else die_before_the_end_of(folder, 1)

    assert main(["resume", str(folder)]) == 0


def test_the_rules_of_a_folder_are_those_of_the_log(runs: Mapping[str, Path]) -> None:
    """What the first lines say is what the folder was made with: identity, configuration, base."""
    created, base, *_ = read_events(runs["run"] / "events.jsonl")

    assert created.details == {
        "run": json.loads((runs["run"] / "run.json").read_text())["run"],
        "config": load_config(runs["run"] / "config.toml").digest().hex(),
    }
    assert base.kind is EventKind.BASE_MADE
    assert result_at(runs["run"], 1) > 1
