"""Trust anchor files, which say whom to believe: read only if nobody else can change their content.

A trust anchor (the authority's certificate in a client's folder) needs no secrecy, but whoever can replace it enrols whom it
likes. So others must be able to write neither the file nor any folder on the way to it, since whoever can write a folder
can put another file, folder or link under a name in it. The way is followed link by link: the folder that holds a link decides as
much as the folder that the link leads to. A folder that everybody may write to but nobody may rename in what belongs
to others (the sticky bit, as on /tmp) is no danger if it belongs to the system's administrator, as long as the next name on
the way belongs to us. The rules are those of OpenSSH's StrictModes (misc.c, safe_path), carried on up to the root.

If all of these hold, no other user can change the answer between the check and the reading: there is nothing that it could write
to. Other systems than POSIX keep permissions elsewhere and are not checked.
"""

import os
import stat
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rbla_secure.errors import TrustAnchorError

_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_MOST_LINKS: Final = 40  # as many as Linux follows
_ADMINISTRATOR: Final = 0


def check_anchor(path: Path) -> None:
    """Refuse a file that another user could change or replace.

    Raises:
        TrustAnchorError: The file, or a folder on the way to it, belongs to another user or can be written by others.
        FileNotFoundError, NotADirectoryError: There is no such file.
    """
    if os.name != "posix":
        return
    for step in _steps(path):
        _check_step(step)


def _steps(path: Path) -> Iterator[Path]:
    """Yield every folder, link and file that decides what a path leads to, from the root on."""
    current, links = Path("/"), 0
    yield current
    names = deque((Path.cwd() / path).parts[1:])
    while names:
        name = names.popleft()
        if name == "..":
            current = current.parent
            continue
        step = current / name
        yield step
        if not step.is_symlink():
            current = step
            continue
        links += 1
        if links > _MOST_LINKS:
            raise TrustAnchorError(f"{path}: more than {_MOST_LINKS} links lead from one to the next")
        target = step.readlink()
        names.extendleft(reversed(target.parts[1:] if target.is_absolute() else target.parts))
        current = Path("/") if target.is_absolute() else current


def _check_step(step: Path) -> None:
    found = step.lstat()
    if found.st_uid not in (_ADMINISTRATOR, os.geteuid()):
        raise TrustAnchorError(
            f"{step} belongs to user {found.st_uid}, who could replace a file that says whom to believe: it must belong to "
            f"user {os.geteuid()} or to the administrator"
        )
    if stat.S_ISLNK(found.st_mode) or not found.st_mode & _OTHERS_WRITE:
        return  # a link's own mode means nothing
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    if not (sticky and found.st_uid == _ADMINISTRATOR):
        mode = stat.S_IMODE(found.st_mode)
        raise TrustAnchorError(
            f"{step}: mode {mode:04o} lets others replace a file that says whom to believe: chmod go-w '{step}'"
        )
