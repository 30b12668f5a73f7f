"""The run folder: what is durable comes back, what is damaged is refused by name, and nothing is lost on the way."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rbla_secure.config import Config
from rbla_secure.errors import RunFolderError
from rbla_secure.run_folder.audit_log import EventKind, LogEntry, read_events
from rbla_secure.run_folder.folder import RunFolder
from tests.rbla_secure.run_folder.folders import (
    PLAN,
    CrashError,
    adapter_after,
    attempts,
    save_round,
    snapshot,
)
from tests.support.federations import make_config, make_plan


def test_a_new_folder_is_whole(tmp_path: Path) -> None:
    """A folder has its configuration and its identity from the beginning, and no progress."""
    config = make_config(seed=5)

    made = RunFolder.create(tmp_path / "deep" / "run", config)

    assert made.config == config
    assert len(made.run_id) == 16
    progress = made.load(PLAN)
    assert (progress.round, progress.adapter, progress.records, progress.timings) == (0, None, [], [])


def test_every_run_has_its_own_identity(tmp_path: Path) -> None:
    """Two runs of one configuration are told apart, and one keeps its identity when opened again."""
    first, second = (RunFolder.create(tmp_path / name, make_config()) for name in ("a", "b"))
    first.close()

    again = RunFolder.open(tmp_path / "a")

    assert first.run_id == again.run_id != second.run_id


def test_the_last_round_comes_back(folder: RunFolder) -> None:
    """Adapter, metrics and timings are those of the last round that was saved."""
    progress = folder.load(PLAN)

    assert progress.round == 3
    assert progress.adapter is not None
    assert progress.adapter.to_bytes() == adapter_after(3).to_bytes()
    assert [record.round for record in progress.records] == [1, 2, 3]
    assert [line.round for line in progress.timings] == [1, 2, 3]


def test_the_adapters_of_all_rounds_are_there_in_order(folder: RunFolder) -> None:
    """Oldest first; and the last ones alone."""
    everything = list(folder.adapters(PLAN))
    last = folder.last_adapters(PLAN, 2)

    assert [each.digest() for each in everything] == [adapter_after(number).digest() for number in (1, 2, 3)]
    assert [each.digest() for each in last] == [adapter_after(number).digest() for number in (2, 3)]
    assert len(folder.last_adapters(PLAN, 5)) == 3


def test_a_new_run_has_no_adapters(tmp_path: Path) -> None:
    """Neither all nor the last."""
    made = RunFolder.create(tmp_path / "run", make_config(rounds=20_000))

    found = [*made.adapters(PLAN), *made.last_adapters(PLAN, 3)]

    made.close()
    assert found == []


def test_loading_changes_nothing(folder: RunFolder) -> None:
    """A folder in order is left as it is to the byte."""
    before = snapshot(folder)

    folder.load(PLAN)

    assert snapshot(folder) == before


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3"])
def test_a_checkpoint_of_numbers_that_numpy_has_not_is_refused(folder: RunFolder, kind: str) -> None:
    """By file name, as any damaged one."""
    path = folder.path / "checkpoints" / "round-0001.safetensors"
    size = 2 if kind == "BF16" else 1
    header = json.dumps({"rows": {"dtype": kind, "shape": [1, 1], "data_offsets": [0, size]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))

    with pytest.raises(RunFolderError, match=r"round-0001\.safetensors is damaged"):
        folder.load(PLAN)


def test_a_folder_whose_files_have_a_second_name_is_refused(folder: RunFolder, tmp_path: Path) -> None:
    """A copy by hard links is the same files: going on with one would write the other, and lose it."""
    before, copy = snapshot(folder), tmp_path / "copy"
    folder.close()
    shutil.copytree(folder.path, copy, copy_function=os.link)

    for path in (folder.path, copy):
        with pytest.raises(RunFolderError, match=r"has 2 names \(hard links\)"):
            RunFolder.open(path)

    shutil.rmtree(copy)
    again = RunFolder.open(folder.path)
    assert snapshot(again) == before
    again.close()


def test_a_checkpoint_of_another_plan_is_refused(folder: RunFolder) -> None:
    """Whoever changes config.toml or base/ between two sessions is told so, and nothing is trained on."""
    other = make_plan(seed=PLAN.config.seed + 1)
    before = snapshot(folder)

    with pytest.raises(RunFolderError, match="another plan"):
        folder.load(other)

    assert snapshot(folder) == before


@pytest.mark.slow
def test_a_round_beyond_four_digits_is_the_last(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds are compared as numbers and not as names."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    for number in range(4, 10001):
        save_round(folder, number)
    folder.close()

    again = RunFolder.open(folder.path)
    progress = again.load(PLAN)
    again.close()

    assert progress.round == 10000
    assert progress.adapter is not None
    assert progress.adapter.digest() == adapter_after(10000).digest()


@pytest.mark.parametrize("content", ["file", "folder", ".hidden"])
def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path, content: str) -> None:
    """A run never writes over what somebody else put there."""
    path = tmp_path / "run"
    path.mkdir()
    (path / content).write_text("mine")

    with pytest.raises(RunFolderError, match=r"must not exist or be empty; 'rbla-secure resume .*run'"):
        RunFolder.create(path, make_config())

    assert [each.name for each in path.iterdir()] == [content]
    assert (path / content).read_text() == "mine"


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    """A file of that name stays."""
    path = tmp_path / "run"
    path.write_text("mine")

    with pytest.raises(RunFolderError, match="must not exist or be empty"):
        RunFolder.create(path, make_config())

    assert path.read_text() == "mine"


def test_a_run_is_not_begun_over_another_one(folder: RunFolder) -> None:
    """The folder of a run is refused for a new one."""
    before = snapshot(folder)

    with pytest.raises(RunFolderError, match="must not exist or be empty"):
        RunFolder.create(folder.path, make_config())

    assert snapshot(folder) == before


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    """A folder made beforehand is as good as none."""
    path = tmp_path / "run"
    path.mkdir()

    made = RunFolder.create(path, make_config())

    assert made.config == make_config()


@pytest.mark.parametrize("flush", range(1, 7))
def test_a_crash_while_an_empty_folder_is_filled_does_not_block_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush: int
) -> None:
    """After a kill before the first round, the same command or a resume goes on without cleaning up by hand."""
    path = tmp_path / "run"
    path.mkdir()
    left = flush

    def crash(_descriptor: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", crash)
        with pytest.raises(CrashError):
            RunFolder.create(path, make_config())

    made = RunFolder.open(path) if (path / "config.toml").exists() else RunFolder.create(path, make_config())

    assert made.config == make_config()
    (created,) = read_events(path / "events.jsonl")
    assert created.details == {"run": made.run_id.hex(), "config": made.config.digest().hex()}


def test_a_log_that_was_tampered_with_is_refused_and_lets_go_of_the_folder(folder: RunFolder) -> None:
    """A changed line of events.jsonl is named when the folder is opened; put right, the folder opens in the same process."""
    folder.log.append(LogEntry.of_run(EventKind.STEP_CHECKED, reason="scaled"))
    folder.close()
    path = folder.path / "events.jsonl"
    good = path.read_bytes()
    path.write_bytes(good.replace(b"session-opened", b"dropped", 1))

    with pytest.raises(RunFolderError, match=r"events\.jsonl line 3: it does not follow the line before it"):
        RunFolder.open(folder.path)
    path.write_bytes(good)

    RunFolder.open(folder.path).close()


def test_a_folder_without_its_log_is_refused(folder: RunFolder) -> None:
    """Events that are gone are missed."""
    folder.close()
    (folder.path / "events.jsonl").unlink()

    with pytest.raises(RunFolderError, match=r"events\.jsonl is missing"):
        RunFolder.open(folder.path)


def test_a_folder_knows_whether_it_is_new(folder: RunFolder) -> None:
    """Made by this process, or opened again."""
    folder.close()

    again = RunFolder.open(folder.path)

    assert (folder.new, again.new) == (True, False)
    again.close()


def test_the_working_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder can be the run folder."""
    monkeypatch.chdir(tmp_path)

    made = RunFolder.create(Path(), make_config())

    assert made.config == make_config()


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_what_is_no_run_folder_is_refused(tmp_path: Path, kind: str) -> None:
    """Without config.toml there is no run."""
    path = tmp_path / "run"
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("text")

    with pytest.raises(RunFolderError, match=r"is no run folder: config\.toml is missing"):
        RunFolder.open(path)


def test_attempts_are_numbered_round_by_round(empty: RunFolder) -> None:
    """Each attempt at a round has the next number, and is on the disk before it begins."""
    folder = empty
    numbers = [folder.next_attempt(number) for number in (1, 1, 2, 1, 2)]

    assert numbers == [1, 2, 1, 3, 2]
    assert attempts(folder)[-1] == {"round": 2, "attempt": 2}
    assert len(attempts(folder)) == 5


def test_attempts_go_on_after_the_folder_is_opened_again(folder: RunFolder) -> None:
    """A process that died inside an attempt has used its number up."""
    folder.next_attempt(4)
    folder.close()

    again = RunFolder.open(folder.path)
    number = again.next_attempt(4)
    again.close()

    assert number == 2


def test_a_folder_in_use_is_refused(folder: RunFolder) -> None:
    """A second holder is turned away as long as the first one works, and let in afterwards."""
    with pytest.raises(RunFolderError, match="in use by another process"):
        RunFolder.open(folder.path)
    folder.close()

    again = RunFolder.open(folder.path)

    assert again.run_id == folder.run_id
    again.close()


def test_another_process_is_refused(folder: RunFolder) -> None:
    """The lock holds across processes, and a process that ends, in whatever way, lets go of it."""
    program = (
        "import sys; from pathlib import Path; from rbla_secure.run_folder.folder import RunFolder\n"
        "RunFolder.open(Path(sys.argv[1])); import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", program, str(folder.path)]

    refused = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    folder.close()
    killed = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    again = RunFolder.open(folder.path)

    assert refused.returncode == 1
    assert "in use by another process" in refused.stderr
    assert killed.returncode < 0
    assert again.run_id == folder.run_id
    again.close()


def test_letting_go_twice_is_harmless(tmp_path: Path) -> None:
    """Closing is repeatable and does not close somebody else's file."""
    made = RunFolder.create(tmp_path / "run", Config())

    made.close()
    with (tmp_path / "other").open("w") as other:
        made.close()
        other.write("still open")

    assert (tmp_path / "other").read_text() == "still open"
