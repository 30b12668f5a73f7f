"""A client's state folder: the state that one process keeps for the next. Run by the client.

    STATE/lock                               held from opening to close(), or until the process ends, even by a kill
    STATE/memory-seed-<seed>.safetensors     the last adapter that was accepted; everything else as metadata

One folder belongs to one client and one process at a time. The file is replaced whole (:mod:`rbla_secure.atomic_files`): a crash
leaves the old one or the new one. Nothing in it is secret: the adapter is the server's, rounds and names are public.

Limits. Windows has no such lock: two processes on one folder go unnoticed there. Restoring an older copy of the folder,
or giving one client two folders, makes the client forget.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from protocols.session import ClientId
from rbla_secure.atomic_files import PRIVATE, write_atomic
from rbla_secure.errors import AdapterError, RefusalError, RunFolderError
from rbla_secure.federation.client.plausibility import Sent
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.plan import Plan
from rbla_secure.run_folder.folder_lock import check_still_there, lock

_LOG = logging.getLogger(__name__)
_FORMAT: Final = "2"
_TENSOR: Final = "rows"
# Of the version before this one: named after the digest of the plan, without client and seed.
_FORMER: Final = "given-*.safetensors"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """The durable state of a client.

    Args:
        given: The highest round that has the client's input; 0 if none has.
        last: The adapter that was accepted last.
    """

    given: int
    last: Sent


@final
class StateFolder:
    """A state folder, locked for one client.

    Args:
        folder: Path of the folder; made if it is missing; not a link.
        client: The client that owns the folder.

    Raises:
        RefusalError: It is in use, cannot be used, or holds the file of an earlier version.
    """

    def __init__(self, folder: Path, *, client: ClientId) -> None:
        self.client = client
        self._folder = folder
        self._process = os.getpid()
        self._open = True
        self._lock = _held(folder)
        try:
            _check_no_former(folder)
        except BaseException:
            self.close()
            raise

    def read(self, plan: Plan) -> Remembered | None:
        """Read the state under a plan's seed; None if it gave no input and nothing was accepted under this plan.

        Raises:
            RefusalError: The file is damaged, another client's, or of a plan that differs in anything but has given a round
                an input under the same seed.
        """
        path = self._path(plan)
        if path.is_symlink():
            raise RefusalError(f"{path} is a link: put the file itself there")
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                metadata, rows = file.metadata() or {}, np.array(file.get_tensor(_TENSOR))
            given = self._given(path, plan, metadata)
            if metadata["plan"] != plan.digest.hex():
                # Nothing was given under it: what was accepted then is no adapter of this plan.
                return None
            return _remembered(plan, given, Adapter(layout=plan.layout, rows=rows), metadata)
        # TypeError and AttributeError: what the library raises for a type of numbers that numpy has not.
        except (
            OSError,
            SafetensorError,
            AdapterError,
            KeyError,
            ValueError,
            OverflowError,
            TypeError,
            AttributeError,
        ) as error:
            raise RefusalError(
                f"{path} is damaged ({type(error).__name__}): without it this client could give a round its input twice; "
                "restore it from a backup, or take part under a plan with another seed"
            ) from None

    def write(self, plan: Plan, remembered: Remembered) -> None:
        """Replace the file, durably.

        Raises:
            RefusalError: It cannot be written, so that the next step must not follow. The reason goes to the server and
                does not say where the folder is; the log of this client does.
        """
        if not self._open or os.getpid() != self._process:
            raise RefusalError("this client's state folder is closed in this process: open it again")
        try:
            # Writing follows a name: what was locked must still be what it names.
            _check_no_link(self._folder)
            check_still_there(self._folder, self._lock)
            write_atomic(self._path(plan), self._encode(plan, remembered), mode=PRIVATE)
        except (OSError, RunFolderError, RefusalError) as error:
            _LOG.exception("%s: %s cannot be written", self.client, self._folder)
            why = error.strerror if isinstance(error, OSError) else "it was replaced while it was in use"
            raise RefusalError(
                f"this client's state folder cannot be written ({why}): nothing leaves that is not written down; mend the folder, "
                "then another attempt can follow"
            ) from None

    def close(self) -> None:
        """Release the folder."""
        if self._open and self._lock is not None:
            os.close(self._lock)
        self._open = False

    def _path(self, plan: Plan) -> Path:
        return self._folder / f"memory-seed-{plan.config.seed}.safetensors"

    def _given(self, path: Path, plan: Plan, metadata: dict[str, str]) -> int:
        """Return the highest round given, after checking whose file it is and of which seed and plan."""
        if metadata["format"] != _FORMAT:
            raise RefusalError(f"{path} has format {metadata['format']}, and this version reads {_FORMAT}")
        if metadata["client"] != self.client:
            raise RefusalError(
                f"{path} is that of {metadata['client']}, not of {self.client}: give each client a folder of its own"
            )
        if metadata["seed"] != str(plan.config.seed):
            raise ValueError("the seed is not that of the name")
        given = int(metadata["given"])
        if given and metadata["plan"] != plan.digest.hex():
            raise RefusalError(
                f"round {given} has had this client's input under seed={plan.config.seed} and another configuration ({path}): "
                "training and rounding follow from the seed, so that two sums could show the update; take a new seed"
            )
        return given

    def _encode(self, plan: Plan, remembered: Remembered) -> bytes:
        last = remembered.last
        metadata = {
            "format": _FORMAT,
            "client": self.client,
            "seed": str(plan.config.seed),
            "plan": plan.digest.hex(),
            "given": str(remembered.given),
            "sent": str(last.round),
            "clip_norm": last.clip_norm.hex(),
        }
        return save({_TENSOR: np.ascontiguousarray(last.adapter.rows)}, metadata=metadata)


def _remembered(plan: Plan, given: int, adapter: Adapter, metadata: dict[str, str]) -> Remembered:
    round_number, clip_norm = int(metadata["sent"]), float.fromhex(metadata["clip_norm"])
    if clip_norm not in plan.clip_norms or not 0 <= given <= round_number:
        raise ValueError("numbers that no memory has")
    return Remembered(given=given, last=Sent(round=round_number, adapter=adapter, clip_norm=clip_norm))


def _held(folder: Path) -> int | None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_no_link(folder)
        return _still_held(folder, lock(folder))
    except RunFolderError:
        raise RefusalError(
            f"state folder {folder} is in use by another process, or by another client of this one: give each client a "
            "folder of its own, and use it in one process at a time"
        ) from None
    except OSError as error:
        raise RefusalError(
            f"state folder {folder} cannot be used: {error.strerror}; it must be a folder that this user may write to"
        ) from None


def _still_held(folder: Path, descriptor: int | None) -> int | None:
    try:
        check_still_there(folder, descriptor)
    except BaseException:
        if descriptor is not None:
            os.close(descriptor)
        raise
    return descriptor


def _check_no_link(folder: Path) -> None:
    if folder.is_symlink():
        raise RefusalError(f"state folder {folder} is a link: name the folder itself")


def _check_no_former(folder: Path) -> None:
    """Refuse a file that names no seed: it does not show whether this plan's seed has given a round."""
    if former := sorted(folder.glob(_FORMER)):
        raise RefusalError(
            f"{former[0]} is of an earlier version, which wrote down neither seed nor client: finish its run with that version, "
            "or take a new folder, and a plan with a new seed"
        )
