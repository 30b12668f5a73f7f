"""A crash leaves the old content or the new one, and leftovers of an earlier crash do no harm."""

import itertools
import os
from pathlib import Path
from typing import NoReturn

import pytest

from rbla_secure.atomic_files import (
    append_line,
    append_lines,
    drop_torn_line,
    replace_folder,
    whole_lines,
    write_atomic,
)


class CrashError(Exception):
    """Stands for the end of the process."""


def crash(*_arguments: object, **_options: object) -> NoReturn:
    raise CrashError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill_with(text: str, folder: Path) -> None:
    (folder / "file").write_text(text)


def test_a_file_is_replaced(tmp_path: Path) -> None:
    """The new content stands under the name, and nothing else is left in the folder."""
    path = tmp_path / "file"
    path.write_bytes(b"old, and longer than the new one")

    write_atomic(path, b"new")

    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_crash_while_writing_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Up to the rename the old content stands, and a second try goes through over the leftovers."""
    path = tmp_path / "file"
    path.write_bytes(b"old")

    with monkeypatch.context() as patch:
        patch.setattr(os if step == "fsync" else Path, step, crash)
        with pytest.raises(CrashError):
            write_atomic(path, b"new, and longer")
    kept = path.read_bytes()
    write_atomic(path, b"new")

    assert kept == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_a_crash_on_the_first_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not there before is not there half."""
    path = tmp_path / "file"
    monkeypatch.setattr(os, "fsync", crash)

    with pytest.raises(CrashError):
        write_atomic(path, b"new")

    assert not path.exists()


def test_contents_reach_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is flushed first, then renamed, then its folder is flushed."""
    steps = []
    sync, rename = os.fsync, Path.replace

    def recording_sync(descriptor: int) -> None:
        steps.append("flush folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "flush file")  # noqa: PTH112
        sync(descriptor)

    def recording_rename(path: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", recording_sync)
    monkeypatch.setattr(Path, "replace", recording_rename)

    write_atomic(tmp_path / "file", b"new")

    assert steps == ["flush file", "rename", "flush folder"]


def test_lines_come_back(tmp_path: Path) -> None:
    """Every appended line is read as it was, accents included."""
    path = tmp_path / "lines"

    for line in ("first", "", "żółć"):
        append_line(path, line)

    assert whole_lines(path) == ["first", "", "żółć"]


def test_lines_that_are_appended_together_are_flushed_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several lines cost one flush, and come back in their order."""
    path, flushes = tmp_path / "lines", []
    path.touch()
    monkeypatch.setattr(os, "fsync", lambda _descriptor: flushes.append(path.read_bytes()))

    append_lines(path, ["first", "second", ""])

    assert flushes == [b"first\nsecond\n\n"]
    assert whole_lines(path) == ["first", "second", ""]


def test_the_name_of_a_new_file_is_flushed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once: what relies on the first line finds the file after a crash."""
    flushed = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: flushed.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
    )

    append_line(tmp_path / "lines", "first")
    append_line(tmp_path / "lines", "second")

    assert flushed == ["lines", tmp_path.name, "lines"]


@pytest.mark.parametrize(
    ("content", "left"),
    [
        (b"a\nb\n", b"a\nb\n"),
        (b"a\nb", b"a\n"),
        (b"a\n\xc5", b"a\n"),
        (b"half", b""),
        (b"", b""),
        (b"\n", b"\n"),
    ],
)
def test_a_torn_last_line_is_cut_off(tmp_path: Path, content: bytes, left: bytes) -> None:
    """Whole lines stay, and a missing file is none."""
    path = tmp_path / "lines"
    path.write_bytes(content)

    drop_torn_line(path)
    drop_torn_line(tmp_path / "missing")

    assert path.read_bytes() == left
    assert names(tmp_path) == ["lines"]


@pytest.mark.parametrize("torn", [b"half", b"\xc5", b'{"round": 1', b"\x00"])
def test_a_torn_last_line_is_dropped(tmp_path: Path, torn: bytes) -> None:
    """What a crash left without its line feed is no line, were it cut inside a character."""
    path = tmp_path / "lines"
    append_line(path, "whole")

    with path.open("ab") as file:
        file.write(torn)

    assert whole_lines(path) == ["whole"]


@pytest.mark.parametrize("content", [None, b"", b"only half of a line"])
def test_without_a_whole_line_there_is_none(tmp_path: Path, content: bytes | None) -> None:
    """A missing, an empty and a torn file have no lines."""
    path = tmp_path / "lines"
    if content is not None:
        path.write_bytes(content)

    lines = whole_lines(path)

    assert lines == []


def test_a_folder_is_replaced(tmp_path: Path) -> None:
    """The new files stand under the name, the old ones are gone, and parents are made."""
    path = tmp_path / "parent" / "folder"

    replace_folder(path, lambda folder: (folder / "old").touch())
    replace_folder(path, lambda folder: fill_with("new", folder))

    assert names(path) == ["file"]
    assert (path / "file").read_text() == "new"
    assert names(path.parent) == ["folder"]


def test_a_crash_while_filling_keeps_the_old_folder(tmp_path: Path) -> None:
    """An error on the way leaves the old files, and what it left behind does not mix with the next try."""
    path = tmp_path / "folder"
    replace_folder(path, lambda folder: fill_with("old", folder))

    def half(folder: Path) -> None:
        (folder / "half").touch()
        crash()

    with pytest.raises(CrashError):
        replace_folder(path, half)
    kept = (path / "file").read_text()
    replace_folder(path, lambda folder: fill_with("new", folder))

    assert kept == "old"
    assert names(path) == ["file"]
    assert (path / "file").read_text() == "new"
    assert names(tmp_path) == ["folder"]


def test_a_folder_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash before the rename leaves nothing under the name of a new folder."""
    path = tmp_path / "folder"
    monkeypatch.setattr(Path, "rename", crash)

    with pytest.raises(CrashError):
        replace_folder(path, lambda folder: fill_with("new", folder))

    assert not path.exists()


@pytest.mark.parametrize("number", [1, 2])
def test_a_folder_is_never_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A crash at any of the renames leaves the old folder, in its place or beside it until the next replacement."""
    path = tmp_path / "folder"
    replace_folder(path, lambda folder: fill_with("old", folder))
    rename, calls = Path.rename, itertools.count(1)

    def crash_at(source: Path, target: Path) -> Path:
        return crash() if next(calls) == number else rename(source, target)

    monkeypatch.setattr(Path, "rename", crash_at)

    with pytest.raises(CrashError):
        replace_folder(path, lambda folder: fill_with("new", folder))
    monkeypatch.setattr(Path, "rename", rename)

    def give_up(_folder: Path) -> None:
        raise CrashError

    with pytest.raises(CrashError):
        replace_folder(path, give_up)
    assert (path / "file").read_text() == "old"
