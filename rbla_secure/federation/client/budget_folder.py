"""A client's folder of lifetime budgets: one ledger per set of data (`lifetime_ledger.py` in rbla_secure/privacy). Run by the client.

    BUDGETS/lock              held from opening to close(), or until the process ends, even by a kill
    BUDGETS/state.json        whose folder it is; of every ledger how many entries it has, and their digest
    BUDGETS/data-LABEL.json   the ledger of the data that the client calls LABEL

An entry is in its ledger, flushed, and then in state.json, flushed, before the client trains for what it counts. So a crash leaves
the ledgers as state.json has them, and at most one of them with one entry more, which counts something that never
happened: too much, never too little. A ledger with fewer, other or more entries than that was restored, edited or
copied from elsewhere, and is refused; so are ledgers without state.json. Files are 0600 and are replaced whole.

Limits. Restoring an older copy of the *whole* folder, or giving one client two folders or one set of data two labels,
makes the client forget. Windows has no such lock.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, Self, final

from pydantic import Field, StringConstraints, ValidationError, model_validator

from protocols.session import ClientId
from rbla_secure.atomic_files import PRIVATE, write_atomic
from rbla_secure.errors import PrivacyError, RunFolderError
from rbla_secure.privacy.ledger_fields import Number, Record
from rbla_secure.privacy.ledger_state import LedgerState
from rbla_secure.privacy.lifetime_ledger import Label, LifetimeLedger, LifetimeTerms, Participation
from rbla_secure.run_folder.folder_lock import check_still_there, lock

STATE: Final = "state.json"
_LEDGERS: Final = "data-*.json"
# A folder may be read while its client writes: an entry is in its ledger a moment before state.json has it.
_TRIES: Final = 10


class _Known(Record):
    label: Label
    entries: Number
    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _State(Record):
    format: Literal[1]
    client: Annotated[str, Field(min_length=1)]
    ledgers: tuple[_Known, ...]

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        labels = [each.label for each in self.ledgers]
        if labels != sorted(set(labels)):
            raise ValueError("ledgers must be in order of label and once each")
        return self

    def text(self) -> str:
        return self.model_dump_json(indent=1) + "\n"

    def of(self, label: str) -> LedgerState | None:
        """Return the known state of a ledger; None where it has no entries."""
        for each in self.ledgers:
            if each.label == label:
                return LedgerState(entries=each.entries, digest=each.digest)
        return None

    def knowing(self, label: str, state: LedgerState) -> "_State":
        """Return a copy with the present state of one ledger."""
        known = _Known(label=label, entries=state.entries, digest=state.digest)
        others = [each for each in self.ledgers if each.label != label]
        ledgers = tuple(sorted([*others, known], key=lambda each: each.label))
        return _State(format=1, client=self.client, ledgers=ledgers)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """The contents of a client's budget folder, for reading only."""

    client: ClientId
    ledgers: tuple[LifetimeLedger, ...]


@final
class BudgetFolder:
    """A budget folder, locked for one client and one process.

    Args:
        folder: Path of the folder; made if it is missing; not a link.
        client: The client that owns the folder.

    Raises:
        PrivacyError: It is in use, cannot be used, is another client's, or holds what no client writes and no crash leaves.
    """

    def __init__(self, folder: Path, *, client: ClientId) -> None:
        self.client = client
        self._folder = folder
        self._process = os.getpid()
        self._open = True
        self._lock = _held(folder)
        try:
            self._state = self._own_state()
        except BaseException:
            self.close()
            raise

    def ledger(self, label: str, terms: LifetimeTerms) -> LifetimeLedger:
        """Return the ledger of a label, if it has entries; else a new one under these terms.

        A new ledger is written with its first entry, so that a refused run fixes no terms.

        Raises:
            PrivacyError: It is damaged, shortened, edited or missing.
        """
        found = _read_ledger(self._folder, label, self._state)
        return found if found is not None else LifetimeLedger(ledger_path(self._folder, label), terms)

    def record(self, ledger: LifetimeLedger, entry: Participation) -> None:
        """Record an entry; when this returns, it is on the disk.

        Raises:
            PrivacyError: It cannot be written: nothing may be trained for it.
        """
        if not self._open or os.getpid() != self._process:
            raise PrivacyError("this client's budgets are closed in this process: open them again")
        state = self._state
        if state.of(ledger.terms.label) != (ledger.state() if ledger.entries else None):
            # The one entry more of a crash: it counts, and state.json says so first.
            state = state.knowing(ledger.terms.label, ledger.state())
        try:
            _check_no_link(self._folder)
            check_still_there(self._folder, self._lock)
            if state != self._state:
                self._write_state(state)
            write_atomic(ledger.path, ledger.text(entry).encode(), mode=PRIVATE)
            ledger.append(entry)
            self._write_state(state.knowing(ledger.terms.label, ledger.state()))
        except (OSError, RunFolderError) as error:
            why = error.strerror if isinstance(error, OSError) else "it was replaced while it was in use"
            raise PrivacyError(
                f"{self._folder} cannot be written ({why}): nothing is trained that is not counted; mend the folder, then "
                "another attempt can follow"
            ) from None

    def close(self) -> None:
        """Release the folder."""
        if self._open and self._lock is not None:
            os.close(self._lock)
        self._open = False

    def _own_state(self) -> _State:
        state = _read_state(self._folder)
        if state is None:
            state = _State(format=1, client=self.client, ledgers=())
            _write(self._folder / STATE, state.text())
        if state.client != self.client:
            raise PrivacyError(
                f"{self._folder} has the budgets of {state.client}, not of {self.client}: give each client a folder of its own"
            )
        return state

    def _write_state(self, state: _State) -> None:
        write_atomic(self._folder / STATE, state.text().encode(), mode=PRIVATE)
        self._state = state


def ledger_path(folder: Path, label: str) -> Path:
    """Return the path of the ledger of a label."""
    return folder / f"data-{label}.json"


def is_budget_folder(path: Path) -> bool:
    """Return whether a folder is the budget folder of one client."""
    return (path / STATE).is_file() or any(path.glob(_LEDGERS))


def look_at_budgets(folder: Path) -> Budgets:
    """Read all ledgers of one client's folder, each compared with state.json. Nothing is written, no lock is taken.

    Raises:
        PrivacyError: One is missing, damaged, shortened or edited.
    """
    for _ in range(_TRIES):
        before = _read_state(folder)
        try:
            return _look(folder, before)
        except PrivacyError:
            if _read_state(folder) == before:
                raise
    raise PrivacyError(f"{folder} changes while it is read: look again once its run is over")


def _look(folder: Path, state: _State | None) -> Budgets:
    if state is None:
        raise PrivacyError(f"{folder} holds no {STATE}: it is no client's folder of budgets")
    labels = {each.label for each in state.ledgers} | set(_labels(folder))
    found = [_read_ledger(folder, label, state) for label in sorted(labels)]
    return Budgets(client=state.client, ledgers=tuple(each for each in found if each is not None))


def _labels(folder: Path) -> list[str]:
    return [path.name.removeprefix("data-").removesuffix(".json") for path in folder.glob(_LEDGERS)]


def _read_state(folder: Path) -> _State | None:
    """Read state.json; None in a new folder."""
    path = folder / STATE
    data = _bytes(path)
    if data is None:
        if labels := _labels(folder):
            raise PrivacyError(
                f"{path} is missing, and {ledger_path(folder, min(labels)).name} is here: spent privacy could be forgotten; "
                "restore it from a copy"
            )
        return None
    try:
        state = _State.model_validate_json(data)
    except ValidationError:
        raise PrivacyError(f"{path} is damaged: restore it from a copy") from None
    if data != state.text().encode():
        raise PrivacyError(f"{path} is not spelt as a client writes it: restore it from a copy")
    return state


def _read_ledger(folder: Path, label: str, state: _State) -> LifetimeLedger | None:
    """Read a ledger as state.json has it, or with one entry more; None where there is none."""
    path, known = ledger_path(folder, label), state.of(label)
    data = _bytes(path)
    count = known.entries if known is not None else 0
    if data is None:
        if count:
            raise PrivacyError(_forgotten(path, f"is missing with the {count} entries"))
        return None
    ledger = LifetimeLedger.parse(path, data)
    if (ledger.terms.client, ledger.terms.label) != (state.client, label):
        raise PrivacyError(
            f"{path} is the ledger of {ledger.terms.client} for data {ledger.terms.label!r}: restore this one from a copy"
        )
    if (found := len(ledger.entries)) < count:
        raise PrivacyError(_forgotten(path, f"has {found} of the {count} entries"))
    if known is not None and ledger.state(count) != known:
        raise PrivacyError(
            f"{path}: its terms or its first {count} entries are not those that {STATE} holds; restore it from a copy"
        )
    if found > count + 1:
        raise PrivacyError(
            f"{path} has {found} entries, of which {STATE} holds {count} and a crash can leave one more: restore both from one "
            "copy"
        )
    return ledger


def _forgotten(path: Path, what: str) -> str:
    return (
        f"{path} {what} that {STATE} holds: spent privacy would be forgotten; restore the ledger from a copy"
    )


def _bytes(path: Path) -> bytes | None:
    """Read the bytes of a file; None where there is none."""
    if path.is_symlink():
        raise PrivacyError(f"{path} is a link: put the file itself there")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PrivacyError(f"{path} cannot be read: {error.strerror}") from None


def _write(path: Path, text: str) -> None:
    try:
        write_atomic(path, text.encode(), mode=PRIVATE)
    except OSError as error:
        raise PrivacyError(f"{path} cannot be written: {error.strerror}") from None


def _held(folder: Path) -> int | None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_no_link(folder)
        descriptor = lock(folder)
    except RunFolderError:
        raise PrivacyError(
            f"{folder} is in use by another process, or by another client of this one: use a client's budgets in one process "
            "at a time"
        ) from None
    except OSError as error:
        raise PrivacyError(
            f"{folder} cannot be used: {error.strerror}; it must be a folder that this user may write to"
        ) from None
    try:
        check_still_there(folder, descriptor)
    except RunFolderError:
        if descriptor is not None:
            os.close(descriptor)
        raise PrivacyError(f"{folder} was replaced while it was opened: try again") from None
    return descriptor


def _check_no_link(folder: Path) -> None:
    if folder.is_symlink():
        raise PrivacyError(f"{folder} is a link: name the folder itself")
