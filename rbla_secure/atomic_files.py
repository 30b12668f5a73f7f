"""Atomic writes: a crash at any moment leaves either the old content or the new one, complete."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

PRIVATE = 0o600  # the mode of a file that holds a secret
PUBLIC = 0o644  # of a file that everybody may read and nobody else may change, whatever the umask
OURS_TO_WRITE = 0o755  # of a folder of such files


def write_atomic(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Replace a file: write beside it, flush to the disk, rename, flush the folder.

    Args:
        path: The file.
        data: Its new content.
        mode: Permissions at creation, less the process's umask; the file never has more, not even briefly.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)  # left by a crash, perhaps with another mode
    with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def append_line(path: Path, line: str) -> None:
    """Append one line and flush it to the disk. A crash can leave a torn last line: readers drop it."""
    append_lines(path, [line])


def append_lines(path: Path, lines: Sequence[str]) -> None:
    """Append lines and flush them to the disk together. A crash can leave fewer of them, the last one torn.

    A new file's name is flushed too: what is written elsewhere later may rely on it.
    """
    new = not path.exists()
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(line + "\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    if new:
        sync_folder(path.parent)


def whole_lines(path: Path) -> list[str]:
    """Return the lines that were written completely; none if there is no file."""
    if not path.exists():
        return []
    text = path.read_bytes().decode("utf-8", errors="replace")
    return text.split("\n")[:-1]


def drop_torn_line(path: Path) -> None:
    """Cut off an incomplete last line left by a crash, which would swallow the next one; complete lines stay."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
    cut_to(path, path.read_bytes().rfind(b"\n") + 1)


def cut_to(path: Path, size: int) -> None:
    """Truncate a file to `size` bytes, durably."""
    with path.open("r+b") as file:
        file.truncate(size)
        os.fsync(file.fileno())


def replace_folder(path: Path, fill: Callable[[Path], None], *, mode: int = 0o777) -> None:
    """Replace a folder by what `fill` writes into an empty one. The old one is removed once the new one is complete.

    Between two renames the name is free for a moment; a crash then leaves the old folder beside it as ``.NAME.old``,
    and the next replacement first puts it back.

    Args:
        path: The folder.
        fill: Writes the content; its argument is the empty folder.
        mode: Permissions at creation, less the process's umask.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    old = path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():
        old.rename(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(mode=mode, parents=True)
    fill(temporary)
    sync_folder(temporary)
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    temporary.rename(path)
    sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk, where the platform supports it."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
