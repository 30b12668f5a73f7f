"""privacy.json: what privacy a run has spent, written down before it is spent.

How it is kept is said in `ledger_file.py`. An attempt at a round has one entry of what its sums show, over those whose noise is
in them, and where the server reads single uploads, which it does before anybody knows who will drop out, one of these first.
Epsilon is that of the client that took part most, against one observer of four, of which some know noise that is in the sums.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Literal, Self, final

from pydantic import Field

from rbla_secure.config.choices import Adjacency, Mechanism
from rbla_secure.errors import BudgetError
from rbla_secure.privacy.figures import exact, rounded_up
from rbla_secure.privacy.ledger_fields import (
    Clients,
    Delta,
    Figure,
    Multiplier,
    Number,
    Record,
    SampleRate,
    Slack,
    TotalVariation,
)
from rbla_secure.privacy.ledger_file import Contents, RunLedger
from rbla_secure.privacy.noise import NOTHING, Release

FILE = "privacy.json"


class Observer(StrEnum):
    """The party whose view an epsilon is about.

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
    """The part of an attempt that an entry counts.

    UPLOADS: what the server reads of single uploads, each hidden by one share of noise whoever else is there. Written before
        any client is asked, for every client that will be asked.
    SUMS: the sums, and what is made of them. Written once it is settled whose inputs and noise are in them.
    """

    UPLOADS = "uploads"
    SUMS = "sums"


class LedgerTerms(Record):
    """The meaning of the epsilons in a ledger.

    Args:
        run: Identity of the run.
        mechanism: Who adds the noise.
        adjacency: What a neighbouring federation is.
        delta: The delta of all epsilons, in (0, 1).
        max_epsilon: Budget against every observer in `claimed`; 0 for none.
        claimed: Observers against whom a claim is made, in the order of :class:`Observer`.
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
        """Return the release that accounting composes."""
        return Release(
            noise_multiplier=self.noise_multiplier,
            slack=self.slack,
            rho=float("nan"),
            total_variation=self.total_variation,
            sample_rate=self.sample_rate,
        )


class LedgerEntry(Record):
    """The record of what one attempt at a round was about to reveal.

    Args:
        round: Number of the round in the run, from 1.
        attempt: Number of the attempt at this round, from 1.
        shown: What of the attempt is counted.
        clients: Clients whose inputs are in it, in order of name.
        public: Spent against :attr:`Observer.PUBLIC`; null if nothing was.
        participant: Spent against :attr:`Observer.PARTICIPANT`.
        server: Spent against :attr:`Observer.SERVER`.
        coalition: Spent against :attr:`Observer.COALITION`.
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
        """The part of its attempt that it counts."""
        return self.shown

    def spent(self, observer: Observer) -> Spent | None:
        """Return what one observer's view has spent; None if nothing."""
        match observer:
            case Observer.PUBLIC:
                return self.public
            case Observer.PARTICIPANT:
                return self.participant
            case Observer.SERVER:
                return self.server
            case Observer.COALITION:
                return self.coalition


class _Contents(Contents[LedgerTerms, LedgerEntry]):
    format: Literal[2]


@final
class Ledger(RunLedger[LedgerTerms, LedgerEntry]):
    """The ledger of one run at client level."""

    _contents = _Contents
    _file = FILE

    def check(self, entry: LedgerEntry, *others: LedgerEntry) -> None:
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

    @classmethod
    def _named(cls, round_number: int, kind: str) -> str:
        return f"the {kind} of round {round_number}"

    def _epsilon(self, entries: Sequence[LedgerEntry], observer: Observer) -> float:
        # The library takes a second to import: only where there is something to account for.
        from rbla_secure.privacy.accounting import epsilon  # noqa: PLC0415

        def composed(history: Sequence[Spent], delta: float) -> float:
            return epsilon([spent.release() for spent in history], delta)

        return self._most_of_a_client(entries, lambda entry: entry.spent(observer), composed)
