"""What is remembered of a ledger outside of it: how many entries it had, and their digest.

A ledger is written before what it counts happens, and its state goes into the audit log right after. So a ledger as a crash
leaves it has every entry that the log knows, unchanged, and at most one more; any other has been shortened, exchanged or
edited, and spent privacy would be forgotten.
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
    """How many entries a ledger has, and the SHA-256 of its contents as they are read with them, hex."""

    entries: int
    digest: str

    @classmethod
    def of(cls, text: str, entries: int) -> "LedgerState":
        """The state of a ledger that is written like this."""
        return cls(entries=entries, digest=hashlib.sha256(text.encode()).hexdigest())


class Counted(Protocol):
    """A ledger, as far as it is compared."""

    @property
    def entries(self) -> Sequence[object]:
        """Every attempt so far."""

    def state_after(self, count: int) -> LedgerState:
        """Its state after so many entries."""


def check_state(path: Path, ledger: Counted | None, *, known: LedgerState | None, exact: bool = True) -> None:
    """Refuse a ledger that is not the one the audit log knows.

    Args:
        path: Of the ledger.
        ledger: As it was found; None where there is no file.
        known: The state that the log holds; None if it holds none.
        exact: Whether the ledger may be one entry ahead at most; else it may grow while it is looked at.

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
    if ledger is not None and known is not None and ledger.state_after(entries) != known:
        raise PrivacyError(
            f"{path}: its terms or its first {entries} entries are not those that events.jsonl holds; restore it from a copy"
        )
    if exact and found > entries + 1:
        raise PrivacyError(
            f"{path} has {found} entries, of which events.jsonl holds {entries} and a crash can leave one more: "
            "restore the ledger or events.jsonl, whichever was changed, from a copy"
        )
