"""The state of a ledger as recorded outside of it: the number of its entries, and their digest.

A ledger is written before what it counts happens, and its state goes into the audit log right after. So a ledger as a crash
leaves it has every entry that the log holds, unchanged, and at most one more; any other has been shortened, exchanged or
edited, and spent privacy would be forgotten.

Why the one entry that the log does not hold yet may be there. The order is: the ledger's file, flushed; the log's line, flushed;
and then clients are sent the adapter to train, or the sums are opened. Where the log lacks an entry, what it counts has
not happened and never will: whoever goes on has the log say so first, and then opens another attempt. Fields are bounded
(`ledger_fields.py`), so that an entry adds to every epsilon or leaves it as it is; for sampled steps, whose distribution the
accountant rounds to a grid, one of much noise can lower the figure by up to 1e-9. Whatever the entry says, it counts
something that nobody has seen: too much, never too little. It is still accepted only as a crash leaves it: for the one session
that could be about to reveal, once of each kind and in the order in which it spends, with as many members of it as it would have (`ledger_checks.py` in
rbla_secure/federation), and (where there is a plan) with exactly the figures of the plan.

Limit: who cuts the log's last line and edits the ledger as well makes an entry that was revealed look like one that was not.
Against that only a head of the log that is known elsewhere helps (`audit_log.py` in rbla_secure/federation).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

from rbla_secure.errors import PrivacyError


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerState:
    """The number of entries of a ledger, and the SHA-256 of its contents with these entries, hex."""

    entries: int
    digest: str

    @classmethod
    def of(cls, text: str, entries: int) -> "LedgerState":
        """The state of a ledger that is written like this."""
        return cls(entries=entries, digest=hashlib.sha256(text.encode()).hexdigest())


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession:
    """An attempt at a round that has been opened and has not ended.

    Args:
        round: Number of the round in the run, from 1.
        attempt: Number of the attempt at this round, from 1.
        cohort: Its members.
        threshold: How many of them must have sent their inputs for anything to be opened.
    """

    round: int
    attempt: int
    cohort: tuple[str, ...]
    threshold: int


class Attempted(Protocol):
    """An entry of a ledger, as far as it is compared."""

    @property
    def round(self) -> int:
        """Number of the round in the run, from 1."""

    @property
    def attempt(self) -> int:
        """Number of the attempt at this round, from 1."""

    @property
    def clients(self) -> tuple[str, ...]:
        """The clients that it counts for."""

    @property
    def kind(self) -> str:
        """The part of its attempt that it counts; an attempt has one entry of each kind at most."""


class Counted(Protocol):
    """A ledger, as far as it is compared."""

    @property
    def entries(self) -> Sequence[Attempted]:
        """Every attempt so far."""

    def state(self, count: int | None = None) -> LedgerState:
        """Its state after so many entries; after all by default."""


def check_state(
    path: Path, ledger: Counted | None, *, known: LedgerState | None, about: OpenSession | None = None
) -> None:
    """Refuse a ledger that is neither the one the audit log holds nor that and one entry as a crash leaves it.

    Args:
        path: Path of the ledger file.
        ledger: As it was found; None where there is no file.
        known: The state that the log holds; None if it holds none.
        about: The session that could be about to reveal, or to be trained for; None if there is none.

    Raises:
        PrivacyError: It has fewer entries than are known, others, or more than a crash can leave.
    """
    entries = known.entries if known is not None else 0
    found = len(ledger.entries) if ledger is not None else 0
    if found < entries:
        has = f"has {found} of" if path.exists() else "is missing with"
        raise PrivacyError(
            f"{path} {has} the {entries} entries that events.jsonl holds: spent privacy would be forgotten; restore it from "
            "a copy"
        )
    if ledger is None:
        return
    if known is not None and ledger.state(entries) != known:
        raise PrivacyError(
            f"{path}: its terms or its first {entries} entries are not those that events.jsonl holds; restore it from a copy"
        )
    if not found:
        raise PrivacyError(f"{path} has no entry, and no run writes such a file: remove it")
    if found > entries + 1:
        raise PrivacyError(
            f"{path} has {found} entries, of which events.jsonl holds {entries} and a crash can leave one more: "
            "restore the ledger or events.jsonl, whichever was changed, from a copy"
        )
    if found > entries and (reason := _not_left_by_a_crash(ledger.entries, about)):
        raise not_believed(path, entries, reason)


def not_believed(path: Path, entries: int, reason: str) -> PrivacyError:
    """Return the error for an entry that the log does not hold.

    Args:
        path: Path of the ledger file.
        entries: How many the log holds.
        reason: What is wrong with the one after them.
    """
    return PrivacyError(
        f"{path}: its last entry is not in events.jsonl, and {reason}: no crash leaves that; restore the ledger with the "
        f"{entries} entries that events.jsonl holds, or events.jsonl, whichever was changed, from a copy"
    )


def _not_left_by_a_crash(entries: Sequence[Attempted], about: OpenSession | None) -> str:
    """Say why a crash cannot have left the last entry; empty if it can."""
    *before, last = entries
    if about is None:
        return "no session is open that could have written it"
    if (last.round, last.attempt) != (about.round, about.attempt):
        return (
            f"is for attempt {last.attempt} at round {last.round} in the place of the open attempt {about.attempt} at round "
            f"{about.round}"
        )
    if (last.round, last.attempt, last.kind) in {(each.round, each.attempt, each.kind) for each in before}:
        return f"attempt {last.attempt} at round {last.round} has one of its {last.kind} already"
    if strangers := sorted(set(last.clients) - set(about.cohort)):
        return f"names {strangers[0]!r}, who is not in the session"
    return ""
