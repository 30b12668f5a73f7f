"""The file that all ledgers are kept in, and what those of one run do with it.

A ledger is one JSON object: format, terms and entries. The file only grows, and an entry is on the disk before what it counts
happens: a crash can make a ledger count too much and never too little. A file is read only in the spelling in which it is written,
so that nobody reads anything else from it. `ledger_state.py` says what is remembered of a ledger outside of it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from pydantic import ValidationError

from rbla_secure.atomic_files import write_atomic
from rbla_secure.errors import PrivacyError
from rbla_secure.privacy.ledger_fields import FORMAT, Record, accounted, unreadable
from rbla_secure.privacy.ledger_state import Attempted, LedgerState, OpenSession, check_state

TermsT = TypeVar("TermsT")
EntryT = TypeVar("EntryT")
RunTermsT = TypeVar("RunTermsT", bound="RunTerms")
AttemptT = TypeVar("AttemptT", bound=Attempted)
_Part = TypeVar("_Part")


class RunTerms(Protocol):
    """The terms of a run's ledger, as far as all of them have the same."""

    @property
    def delta(self) -> float:
        """The delta of all epsilons, in (0, 1)."""


class Contents(Record, Generic[TermsT, EntryT]):
    """The JSON object of a ledger; each kind of ledger names its format."""

    format: int
    terms: TermsT
    entries: tuple[EntryT, ...]


class LedgerFile(ABC, Generic[TermsT, EntryT]):
    """Entries under terms that are fixed with the first one, in one spelling.

    Args:
        path: Path of the ledger file.
        terms: What its figures mean.
        entries: All entries so far.
    """

    _contents: ClassVar[type[Contents[Any, Any]]]
    _format: ClassVar[int]
    _writer: ClassVar[str]

    def __init__(self, path: Path, terms: TermsT, entries: Iterable[EntryT] = ()) -> None:
        self.path = path
        self.terms = terms
        self._entries = list(entries)

    @classmethod
    def parse(cls, path: Path, data: bytes) -> Self:
        """Read a ledger from the bytes of its file.

        Raises:
            PrivacyError: It is damaged or in another spelling.
        """
        try:
            contents = cls._contents.model_validate_json(data)
        except ValidationError:
            raise cls._unreadable(path, data) from None
        ledger = cls(path, contents.terms, contents.entries)
        if data != ledger.text().encode():
            raise PrivacyError(
                f"{path} is not spelt as {cls._writer} writes it, so something in it may be read otherwise: restore it from a copy"
            )
        return ledger

    @classmethod
    def _unreadable(cls, path: Path, data: bytes) -> PrivacyError:  # noqa: ARG003  # subclasses look for another format
        return PrivacyError(f"{path} is damaged: restore it from a copy")

    @property
    def entries(self) -> Sequence[EntryT]:
        """Every attempt so far."""
        return tuple(self._entries)

    def text(self, *more: EntryT) -> str:
        """Return the text of its file with further entries."""
        return self._spelt([*self._entries, *more])

    def state(self, count: int | None = None) -> LedgerState:
        """Return the number and digest of its first `count` entries; of all by default."""
        entries = self._entries[:count]
        return LedgerState.of(self._spelt(entries), len(entries))

    def _spelt(self, entries: Iterable[EntryT]) -> str:
        # Without validation: a ledger without entries is never written, and has a state all the same.
        contents = self._contents.model_construct(
            format=self._format, terms=self.terms, entries=tuple(entries)
        )
        return contents.model_dump_json(indent=1) + "\n"


class RunLedger(LedgerFile[RunTermsT, AttemptT], Generic[RunTermsT, AttemptT]):
    """A ledger of one run, in its folder: it is written before what an entry counts is revealed, or trained for."""

    _file: ClassVar[str]
    _format = FORMAT
    _writer = "a run"

    @classmethod
    def open(
        cls,
        folder: Path,
        terms: RunTermsT,
        *,
        spent: Collection[tuple[int, str]] = (),
        known: LedgerState | None = None,
        about: OpenSession | None = None,
    ) -> Self:
        """Open the ledger of a run folder; a new one only for a run that has spent nothing.

        Args:
            folder: The run folder.
            terms: Terms with which the ledger must have been opened.
            spent: Rounds whose results are in the folder, and the kinds of entries that each must have in the ledger.
            known: What the audit log holds of the ledger; None if nothing.
            about: The session that the one entry which the log does not hold may be of; None if there is none.

        Raises:
            PrivacyError: The ledger is missing, damaged, of other terms, lacks a round, or is not the one that is known.
        """
        path = folder / cls._file
        found = cls.read(folder) if path.exists() else None
        check_state(path, found, known=known, about=about)
        ledger = found or cls(path, terms)
        if ledger.terms != terms:
            raise PrivacyError(
                f"{path} was opened under other terms: restore config.toml, run.json or the ledger"
            )
        if missing := set(spent) - {(entry.round, entry.kind) for entry in ledger.entries}:
            raise PrivacyError(
                f"{path} lacks {cls._named(*min(missing))}, whose result is here: spent privacy would be forgotten"
            )
        return ledger

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the ledger of a run folder, to look at: every byte of it is as :meth:`record` writes it.

        Raises:
            PrivacyError: It is missing, damaged, or in another spelling.
        """
        path = folder / cls._file
        try:
            data = path.read_bytes()
        except OSError as error:
            raise PrivacyError(f"{path} cannot be read: {error.strerror}") from None
        return cls.parse(path, data)

    def record(self, entry: AttemptT) -> LedgerState:
        """Write an attempt down; when this returns, it is on the disk.

        Returns:
            The state of the ledger, for the audit log.

        Raises:
            BudgetError: It would exceed the budget; the ledger is unchanged, and the caller must not go on with the attempt.
        """
        self.check(entry)
        text = self.text(entry)
        write_atomic(self.path, text.encode())
        self._entries.append(entry)
        return LedgerState.of(text, len(self._entries))

    @abstractmethod
    def check(self, entry: AttemptT, *others: AttemptT) -> None:
        """Refuse an attempt that would exceed the budget with its entry, or all of them.

        Raises:
            BudgetError: It would.
        """

    @classmethod
    def _unreadable(cls, path: Path, data: bytes) -> PrivacyError:
        return unreadable(path, data)

    @classmethod
    @abstractmethod
    def _named(cls, round_number: int, kind: str) -> str:
        """Name what a ledger lacks, for a message."""

    def _most_of_a_client(
        self,
        entries: Sequence[AttemptT],
        part: Callable[[AttemptT], _Part | None],
        epsilon: Callable[[Sequence[_Part], float], float],
    ) -> float:
        """The epsilon of the client that spent most: each client's entries compose, and those of clients do not.

        Args:
            entries: What is counted.
            part: What an entry spends; None if nothing.
            epsilon: Computes the epsilon of what one client spent, at a delta.
        """
        clients = {client for entry in entries for client in entry.clients}
        histories = {
            tuple(
                spent for entry in entries if client in entry.clients and (spent := part(entry)) is not None
            )
            for client in clients
        }
        with accounted(self.path):
            return max((epsilon(history, self.terms.delta) for history in histories), default=0.0)
