"""Audit log entries about rounds and ledgers, made from what is written into their files."""

import hashlib
from collections.abc import Iterator

from pydantic import JsonValue

from protocols.session import Session
from rbla_secure.privacy.ledger_state import LedgerState
from rbla_secure.run_folder.audit_log import EventKind, LogEntry
from rbla_secure.run_folder.records import RoundRecord


def line_digest(line: str) -> str:
    """Return the SHA-256 of a line without its line feed, hex: of exactly these bytes, not of their meaning."""
    return hashlib.sha256(line.encode()).hexdigest()


def result_of(record: RoundRecord, line: str) -> tuple[EventKind, dict[str, JsonValue]]:
    """Return kind and details of the event that ends a round.

    Args:
        record: The metrics of the round.
        line: Its line in metrics.jsonl.
    """
    common: dict[str, JsonValue] = {"adapter": record.adapter, "metrics": line_digest(line)}
    if record.aborted:
        return EventKind.ROUND_ABORTED, {"reason": record.aborted, **common}
    return EventKind.ROUND_FINISHED, {"survivors": list(record.survivors), **common}


def of_round(
    session: Session, record: RoundRecord, line: str, *, direction: bytes = b""
) -> Iterator[LogEntry]:
    """Yield the entries about the outcome of a finished or aborted round; the last entry makes it count.

    Args:
        session: The session of the round.
        record: The metrics of the round.
        line: Its line in metrics.jsonl.
        direction: The direction kept from it for screening; empty if none.
    """
    for band, reason in record.refused_bands.items():
        yield LogEntry.of_session(session, EventKind.BAND_REFUSED, band=band, reason=reason)
    for name, reason in record.rejected.items():
        yield LogEntry.of_session(session, EventKind.UPDATE_REJECTED, of=name, reason=reason)
    for reason in record.checks:
        yield LogEntry.of_session(session, EventKind.STEP_CHECKED, reason=reason)
    if direction:
        digest = hashlib.sha256(direction).hexdigest()
        yield LogEntry.of_session(session, EventKind.DIRECTION_KEPT, direction=digest)
    kind, details = result_of(record, line)
    yield LogEntry.of_session(session, kind, **details)


def of_spending(session: Session | None, ledger: str, state: LedgerState) -> LogEntry:
    """Make the entry about a ledger that has grown: in a session, or without one as a resuming process found it."""
    details: dict[str, JsonValue] = {"ledger": ledger, "entries": state.entries, "digest": state.digest}
    if session is None:
        return LogEntry.of_run(EventKind.PRIVACY_SPENT, **details)
    return LogEntry.of_session(session, EventKind.PRIVACY_SPENT, **details)
