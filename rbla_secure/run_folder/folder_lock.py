"""Locks that allow one process per run folder or client state, from its first file to the end of the process."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rbla_secure.atomic_files import sync_folder
from rbla_secure.errors import RunFolderError

if sys.platform != "win32":
    import fcntl

LOCK: Final = "lock"


def lock(folder: Path) -> int | None:
    """Lock a folder until the process ends; the operating system releases it even after a kill.

    Raises:
        RunFolderError: Another process holds it.
    """
    if sys.platform == "win32":
        return None  # no such lock there: two processes on one folder go unnoticed
    path = folder / LOCK
    # Never through a link: the lock of another folder would be held.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise RunFolderError(f"{folder} is in use by another process") from None
    return descriptor


def make_locked(path: Path, fill: Callable[[Path], None]) -> int | None:
    """Make a folder that appears complete and is locked from before its first file on.

    Of several processes that make the same folder at once one wins: the others find the lock held while it is filled, or
    the name taken when they rename. What a killed process left behind is removed by the next.

    Returns:
        The file descriptor of the lock; None where the platform has no locks.

    Raises:
        RunFolderError: Another process makes it, or has made it.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.mkdir(parents=True, exist_ok=True)
    descriptor = lock(temporary)
    try:
        check_still_there(temporary, descriptor)
        for left in temporary.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            elif left.name != LOCK:
                left.unlink()
        fill(temporary)
        sync_folder(temporary)
        _rename(temporary, path)
    except BaseException:
        if descriptor is not None:
            os.close(descriptor)
        raise
    sync_folder(path.parent)
    return descriptor


def check_still_there(folder: Path, descriptor: int | None) -> None:
    """Refuse a folder that is not the one whose lock is held.

    Between opening the lock and holding it, its last holder may have renamed the folder that it is in; later somebody may have
    put another one in its place.

    Raises:
        RunFolderError: It is another folder.
    """
    if descriptor is None:
        return
    try:
        same = os.path.samestat(os.fstat(descriptor), (folder / LOCK).lstat())
    except (FileNotFoundError, NotADirectoryError):
        same = False
    if not same:
        raise RunFolderError(f"{folder} is in use by another process")


def _rename(temporary: Path, path: Path) -> None:
    try:
        temporary.rename(path)
    except OSError:
        if not path.exists():
            raise
        shutil.rmtree(temporary, ignore_errors=True)
        raise RunFolderError(f"out={path} was made by another process meanwhile") from None
