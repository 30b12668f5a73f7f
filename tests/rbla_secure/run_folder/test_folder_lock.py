"""Of several processes that want one folder one has it, wherever the others stand when it takes it."""

from pathlib import Path

import pytest

from rbla_secure.errors import RunFolderError
from rbla_secure.run_folder import folder, folder_lock
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.run_folder.folder_lock import LOCK, lock, make_locked
from tests.support.federations import make_config
from tests.support.run_folders import snapshot


def fill(folder: Path) -> None:
    (folder / "mine").write_text("1")


def test_a_made_folder_is_whole_and_held(tmp_path: Path) -> None:
    """Its lock is in it, and nothing is left beside it."""
    descriptor = make_locked(tmp_path / "run", fill)

    assert descriptor is not None
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [LOCK, "mine"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    with pytest.raises(RunFolderError, match="in use by another process"):
        lock(tmp_path / "run")


def test_what_a_killed_one_left_is_cleared_away(tmp_path: Path) -> None:
    """Files, folders and links, the last not followed."""
    left = tmp_path / ".run.tmp"
    (left / "deep").mkdir(parents=True)
    (left / "half").write_text("half")
    (tmp_path / "elsewhere").mkdir()
    fill(tmp_path / "elsewhere")
    (left / "link").symlink_to(tmp_path / "elsewhere")

    make_locked(tmp_path / "run", fill)

    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [LOCK, "mine"]
    assert (tmp_path / "elsewhere" / "mine").exists()


def test_one_that_is_being_made_is_refused(tmp_path: Path) -> None:
    """While the other one fills it, nothing of it is touched."""
    (tmp_path / ".run.tmp").mkdir()
    lock(tmp_path / ".run.tmp")
    fill(tmp_path / ".run.tmp")

    with pytest.raises(RunFolderError, match="in use by another process"):
        make_locked(tmp_path / "run", fill)

    assert (tmp_path / ".run.tmp" / "mine").exists()


def test_one_that_was_made_while_this_one_waited_for_the_lock_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder has renamed it between opening and locking: it is a run now, and nothing in it is cleared away."""
    held = folder_lock.lock

    def after_the_other(folder: Path) -> int | None:
        fill(folder)
        descriptor = held(folder)
        folder.rename(tmp_path / "run")
        return descriptor

    monkeypatch.setattr(folder_lock, "lock", after_the_other)

    with pytest.raises(RunFolderError, match="in use by another process"):
        make_locked(tmp_path / "run", fill)

    assert (tmp_path / "run" / "mine").exists()


def test_one_that_was_made_while_this_one_was_filled_is_refused(tmp_path: Path) -> None:
    """The winner's folder stays, and what was made in vain goes."""

    def fill_late(folder: Path) -> None:
        fill(folder)
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "theirs").write_text("2")

    with pytest.raises(RunFolderError, match="was made by another process meanwhile"):
        make_locked(tmp_path / "run", fill_late)

    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert snapshot(tmp_path / "run") == {"theirs": b"2"}


def test_an_empty_folder_that_was_filled_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at again under the lock: the winner may have come and gone."""
    path = tmp_path / "run"
    path.mkdir()

    def after_the_other(folder: Path) -> int | None:
        RunFolder.create(folder, make_config(seed=9)).close()
        return lock(folder)

    with monkeypatch.context() as patch:
        patch.setattr(folder, "lock", lambda folder: (patch.undo(), after_the_other(folder))[1])
        with pytest.raises(RunFolderError, match="must not exist or be empty"):
            RunFolder.create(path, make_config())

    winner = RunFolder.open(path)
    winner.close()
    assert winner.config == make_config(seed=9)
    lock(path)  # and let go of again by the loser
