"""privacy.json: what privacy a run has spent, written down before it is spent.

The file is one JSON object: the terms of the claim and a list of entries. An attempt at a round has one of what its sums show,
over those whose noise is in them, and where the server reads single uploads, which it does before anybody knows who will
drop out, one of these first. The file only grows, and each entry is on the disk before anything that it counts is shown, so
that a crash can make the ledger count too much and never too little. Epsilon is that of the client that took part most,
against one observer of four, of which some know noise that is in the sums.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self, final

from pydantic import Field, ValidationError

from rbla_secure.atomic_files import write_atomic
from rbla_secure.config.choices import Adjacency, Mechanism
from rbla_secure.errors import BudgetError, PrivacyError
from rbla_secure.privacy.figures import exact, rounded_up
from rbla_secure.privacy.ledger_fields import (
    FORMAT,
    Clients,
    Delta,
    Figure,
    Multiplier,
    Number,
    Record,
    SampleRate,
    Slack,
    TotalVariation,
    accounted,
    unreadable,
)
from rbla_secure.privacy.ledger_state import LedgerState, OpenSession, check_state
from rbla_secure.privacy.noise import NOTHING, Release

FILE = "privacy.json"


class Observer(StrEnum):
    """Whose view an epsilon is about.

    PUBLIC: whoever reads the adapters and knows nobody's noise.
    PARTICIPANT: a client that reads the adapters. It knows its own noise, and that of the others that may collude.
    SERVER: the server alone, which sees what the secure sum shows it.
    COALITION: the server together with the clients that may collude.
    """

    PUBLIC = "public-reader"
    PARTICIPANT = "participant"
    SERVER = "server"
    COALITION = "server-with-clients"


class Shown(StrEnum):
    """What of an attempt an entry counts.

    UPLOADS: what the server reads of single uploads, each hidden by one share of noise whoever else is there. Written before
        anybody is asked, of everybody who is.
    SUMS: the sums, and what is made of them. Written once it is settled whose inputs and noise are in them.
    """

    UPLOADS = "uploads"
    SUMS = "sums"


class Terms(Record):
    """What the epsilons of a ledger mean.

    Args:
        run: Identity of the run.
        mechanism: Who adds the noise.
        adjacency: What a neighbouring federation is.
        delta: Of all epsilons.
        max_epsilon: Budget against every observer in `claimed`; 0 for none.
        claimed: Against whom something is claimed, in the order of :class:`Observer`.
        colluders: Clients whose noise the coalition knows; a participant that reads adapters knows that of one at least.
        simulation: The noise follows from a seed: worthless as protection.
        recovered: By band: how many missing uploaders are made good exactly; empty where none are.
        sample_rate: Probability of a client to take part in a round, by a secret draw; 1 where it is known who does.
    """

    run: str
    mechanism: Mechanism
    adjacency: Adjacency
    delta: Delta
    max_epsilon: Figure
    claimed: Annotated[tuple[Observer, ...], Field(min_length=1)]
    colluders: int
    simulation: bool
    recovered: tuple[int, ...] = ()
    sample_rate: SampleRate = 1.0


class Spent(Record):
    """A release against one observer, as accounting.py composes it; a noise multiplier of 0 spends everything."""

    noise_multiplier: Multiplier
    slack: Slack
    total_variation: TotalVariation = 0.0
    sample_rate: SampleRate = 1.0

    @classmethod
    def of(cls, release: Release) -> Self | None:
        """The record of a release; None if nothing was spent."""
        if release.noise_multiplier == float("inf"):
            return None
        return cls(
            noise_multiplier=release.noise_multiplier,
            slack=release.slack,
            total_variation=release.total_variation,
            sample_rate=release.sample_rate,
        )

    def release(self) -> Release:
        """What accounting composes."""
        return Release(
            noise_multiplier=self.noise_multiplier,
            slack=self.slack,
            rho=float("nan"),
            total_variation=self.total_variation,
            sample_rate=self.sample_rate,
        )


class Entry(Record):
    """What one attempt at a round was about to show.

    Args:
        round: Of the run.
        attempt: At this round.
        shown: What of the attempt is counted.
        clients: Whose inputs are in it, in order of name.
        public: Spent against :attr:`Observer.PUBLIC`; null if nothing was.
        participant: Against :attr:`Observer.PARTICIPANT`.
        server: Against :attr:`Observer.SERVER`.
        coalition: Against :attr:`Observer.COALITION`.
    """

    round: Number
    attempt: Number
    shown: Shown
    clients: Clients
    public: Spent | None
    participant: Spent | None
    server: Spent | None
    coalition: Spent | None

    @classmethod
    def of(
        cls,
        views: Mapping[Observer, Release],
        *,
        round_number: int,
        attempt: int,
        clients: Collection[str],
        shown: Shown = Shown.SUMS,
    ) -> Self:
        """The entry of what a release spends against each observer; nothing against those that are not named."""
        return cls(
            round=round_number,
            attempt=attempt,
            shown=shown,
            clients=tuple(sorted(clients)),
            public=Spent.of(views.get(Observer.PUBLIC, NOTHING)),
            participant=Spent.of(views.get(Observer.PARTICIPANT, NOTHING)),
            server=Spent.of(views.get(Observer.SERVER, NOTHING)),
            coalition=Spent.of(views.get(Observer.COALITION, NOTHING)),
        )

    @property
    def kind(self) -> str:
        """What of its attempt it counts."""
        return self.shown

    def spent(self, observer: Observer) -> Spent | None:
        """What one observer's view has cost."""
        match observer:
            case Observer.PUBLIC:
                return self.public
            case Observer.PARTICIPANT:
                return self.participant
            case Observer.SERVER:
                return self.server
            case Observer.COALITION:
                return self.coalition


class _File(Record):
    format: Literal[2]
    terms: Terms
    entries: tuple[Entry, ...]


@final
class Ledger:
    """The ledger of one run, in its folder."""

    def __init__(self, path: Path, terms: Terms, entries: Iterable[Entry] = ()) -> None:
        self._path = path
        self.terms = terms
        self._entries = list(entries)

    @classmethod
    def open(
        cls,
        folder: Path,
        terms: Terms,
        *,
        spent: Collection[tuple[int, Shown]] = (),
        known: LedgerState | None = None,
        about: OpenSession | None = None,
    ) -> Self:
        """The ledger of a run folder; a new one only for a run that has not revealed anything.

        Args:
            folder: Of the run.
            terms: That the ledger must have been opened with.
            spent: Rounds whose results are in the folder, and what they have shown, each of which must be in the ledger.
            known: What the audit log holds of the ledger; None if nothing.
            about: The session that the one entry which the log does not hold may be of; None if there is none.

        Raises:
            PrivacyError: The ledger is missing, damaged, of other terms, lacks a round, or is not the one that is known.
        """
        path = folder / FILE
        found = cls.read(folder) if path.exists() else None
        check_state(path, found, known=known, about=about)
        ledger = found or cls(path, terms)
        if ledger.terms != terms:
            raise PrivacyError(
                f"{path} was opened under other terms: restore config.toml, run.json or the ledger"
            )
        if missing := set(spent) - {(entry.round, entry.shown) for entry in ledger.entries}:
            number, shown = min(missing)
            raise PrivacyError(
                f"{path} lacks the {shown} of round {number}, whose result is here: spent privacy would be forgotten"
            )
        return ledger

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The ledger of a run folder, to look at: every byte of it is as :meth:`record` writes it.

        Raises:
            PrivacyError: It is missing, damaged, or in another spelling.
        """
        path = folder / FILE
        try:
            data = path.read_bytes()
            file = _File.model_validate_json(data)
        except OSError as error:
            raise PrivacyError(f"{path} cannot be read: {error.strerror}") from None
        except ValidationError:
            raise unreadable(path, data) from None
        ledger = cls(path, file.terms, file.entries)
        if data != ledger._text(ledger.entries).encode():
            raise PrivacyError(
                f"{path} is not spelt as a run writes it, so something in it may be read otherwise: restore it from a copy"
            )
        return ledger

    @property
    def entries(self) -> Sequence[Entry]:
        """Every attempt so far."""
        return tuple(self._entries)

    def state_after(self, count: int) -> LedgerState:
        """What is to be known of its first entries."""
        return LedgerState.of(self._text(self._entries[:count]), count)

    def _text(self, entries: Sequence[Entry]) -> str:
        return _File(format=FORMAT, terms=self.terms, entries=tuple(entries)).model_dump_json(indent=1) + "\n"

    def record(self, entry: Entry) -> LedgerState:
        """Write an attempt down; when this returns, it is on the disk.

        Returns:
            The state of the ledger, for the audit log.

        Raises:
            BudgetError: It would exceed the budget; the ledger is unchanged, and the caller must not reveal.
        """
        self.check(entry)
        entries = (*self._entries, entry)
        text = self._text(entries)
        write_atomic(self._path, text.encode())
        self._entries.append(entry)
        return LedgerState.of(text, len(entries))

    def check(self, entry: Entry, *others: Entry) -> None:
        """Refuse an attempt that would exceed the budget with its entry, or all of them.

        Raises:
            BudgetError: It would.
        """
        limit = self.terms.max_epsilon
        for observer in self.terms.claimed if limit else ():
            # Not `after > limit`, which no figure is that is not a number.
            if not (after := self._epsilon([*self._entries, entry, *others], observer)) <= limit:
                raise BudgetError(
                    f"round {entry.round} attempt {entry.attempt} would take epsilon against the {observer} to "
                    f"{rounded_up(after)}, above max-epsilon={exact(limit)} at delta={exact(self.terms.delta)}: nothing of it was revealed"
                )

    def epsilon(self, observer: Observer) -> float:
        """Epsilon so far in one observer's view, of the client that spent most; infinite if nothing is claimed.

        Raises:
            PrivacyError: The accountant cannot compute it.
        """
        return self._epsilon(self._entries, observer) if observer in self.terms.claimed else math.inf

    def _epsilon(self, entries: Sequence[Entry], observer: Observer) -> float:
        # The library takes a second to import: only where there is something to account for.
        from rbla_secure.privacy.accounting import epsilon  # noqa: PLC0415

        clients = {client for entry in entries for client in entry.clients}
        histories = {
            tuple(
                spent
                for entry in entries
                if client in entry.clients and (spent := entry.spent(observer)) is not None
            )
            for client in clients
        }
        with accounted(self._path):
            return max(
                (epsilon([spent.release() for spent in history], self.terms.delta) for history in histories),
                default=0.0,
            )
