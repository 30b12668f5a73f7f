"""The audit log of a run: events.jsonl, in which each line is bound to the one before it.

    {"attempt":1,"details":{...},"kind":"session-opened","number":2,"previous":"<hex>","round":1,"time":1800000000}

A line is canonical JSON: keys in order, no spaces, ASCII. `previous` is the SHA-256 of the line before, without its line
feed; 64 zeros in the first. A line is flushed to the disk before the run goes on.

What the chain shows: no line before the last one has been changed, removed, moved or inserted since the next was
written. It is also where a run commits: a round, the base and every entry of a ledger count from the moment the chain
holds their digests, and nothing in the folder is trusted that the chain does not hold (`verify.py`).
Caveat: whoever holds the folder can rewrite the whole chain, together with the files that it names, or cut all of them
back to an earlier state. Against the holder it proves nothing until its head (:attr:`AuditLog.head`) is known elsewhere:
signed with a key that is not in the folder, or given to others. Signing the head with the server's key is a later step.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique
from pathlib import Path
from typing import Final, final

from pydantic import BaseModel, ConfigDict, JsonValue

from protocols.session import Session
from rbla_secure.atomic_files import append_lines, drop_torn_line, write_atomic
from rbla_secure.errors import RunFolderError

FILE_NAME: Final = "events.jsonl"
_START: Final = bytes(hashlib.sha256().digest_size)

Clock = Callable[[], float]


@unique
class EventKind(StrEnum):
    """The kinds of events of a run, and the details that each records.

    RUN_CREATED: run, config (their identity and digest, hex); budgets (SHA-256 of budgets.json, where there is one).
    RUN_RESUMED: rounds (how many the chain holds), adapter (digest after the last one; empty before the first), unopened
        (round and attempt that were numbered, but whose session a crash kept from being opened; empty if there is none).
    SESSION_OPENED: cohort, threshold, context (hex). Written before the first message of the session.
    REFUSAL: client, by ("client": it declined; "server": its answer was rejected), error, reason.
    DROPPED: client, stage: it is out of the session from that stage on.
    BAND_REFUSED: band, reason.
    UPDATE_REJECTED: of (a client or a group), reason: the filter kept nothing of it.
    STEP_CHECKED: reason: the step of a round was scaled or rolled back, or a claim of its clients is not reported.
    DIRECTION_KEPT: direction (SHA-256 of the file of the direction that the next round's updates are compared with).
        Written with the end of its round, where the verifier of a screened run would forget it.
    ROUND_ABORTED: reason, adapter (digest, unchanged), metrics (SHA-256 of the round's line in metrics.jsonl). Written
        once line and checkpoint are on the disk: the round counts from here on.
    ROUND_FINISHED: survivors, adapter, metrics: as above.
    RUN_FINISHED: rounds, adapter_file (SHA-256 of the exported tensors).
    BASE_MADE: base (digest of its chain of layers). Written once the base is on the disk, before the first session.
    PRIVACY_SPENT: ledger (file name), entries (how many it has now), digest (of all of them). Written once the ledger is on
        the disk, before what it counts is trained or revealed.
    """

    RUN_CREATED = "run-created"
    RUN_RESUMED = "run-resumed"
    SESSION_OPENED = "session-opened"
    REFUSAL = "refusal"
    DROPPED = "dropped"
    BAND_REFUSED = "band-refused"
    UPDATE_REJECTED = "update-rejected"
    STEP_CHECKED = "step-checked"
    DIRECTION_KEPT = "direction-kept"
    ROUND_ABORTED = "round-aborted"
    ROUND_FINISHED = "round-finished"
    RUN_FINISHED = "run-finished"
    BASE_MADE = "base-made"
    PRIVACY_SPENT = "privacy-spent"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """The content of an event before it is written; the log adds number, time and chain.

    Args:
        kind: The kind of event.
        round: Number of the round, if the event belongs to one.
        attempt: Number of the attempt at that round.
        details: The facts that the kind requires; all public.
    """

    kind: EventKind
    round: int | None = None
    attempt: int | None = None
    details: Mapping[str, JsonValue] = field(default_factory=dict)

    @classmethod
    def of_run(cls, kind: EventKind, **details: JsonValue) -> "LogEntry":
        """Make an entry about the run as a whole."""
        return cls(kind=kind, details=details)

    @classmethod
    def of_session(cls, session: Session, kind: EventKind, **details: JsonValue) -> "LogEntry":
        """Make an entry about one attempt at a round."""
        return cls(kind=kind, round=session.round, attempt=session.attempt, details=details)


class Event(BaseModel):
    """One line of events.jsonl; `time` is in unix seconds, by the clock of the machine that wrote it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    number: int
    time: int
    kind: EventKind
    round: int | None
    attempt: int | None
    details: dict[str, JsonValue]
    previous: str

    def to_line(self) -> str:
        """Return the canonical line, without its line feed."""
        fields = self.model_dump(mode="json")
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


Observe = Callable[[Event], None]


@final
class AuditLog:
    """The log of one run folder, whose process holds it exclusively.

    Args:
        path: The file of the log.
        clock: Gives the time of appended events, in unix seconds.
        observe: Called with every event: first with those in the file, then with appended ones before they are written.
            An exception from it prevents the write, so that a log never holds an event that would prevent its opening.

    Raises:
        RunFolderError: The file is missing, or its chain is broken; the line is named. Opening changes nothing: an
            incomplete line left by a crash is removed when the next one is written.
    """

    def __init__(
        self, path: Path, *, clock: Clock = time.time, observe: Observe = lambda _event: None
    ) -> None:
        self._path = path
        self._clock = clock
        self._observe = observe
        self._count, self._head = 0, _START
        for event, line in _scan(path):
            observe(event)
            self._count, self._head = event.number, _digest(line)

    @classmethod
    def create(cls, path: Path, first: LogEntry, *, clock: Clock = time.time) -> "AuditLog":
        """Create a log that begins with one event; an existing file of its name is replaced."""
        event = _event(first, number=1, previous=_START, clock=clock)
        write_atomic(path, (event.to_line() + "\n").encode())
        return cls(path, clock=clock)

    @property
    def head(self) -> bytes:
        """SHA-256 of the last line: whoever knows it can detect later changes to anything up to that line."""
        return self._head

    def __len__(self) -> int:
        return self._count

    def append(self, *entries: LogEntry) -> None:
        """Append entries durably, in one write."""
        events: list[Event] = []
        lines: list[str] = []
        head = self._head
        for number, entry in enumerate(entries, start=self._count + 1):
            events.append(_event(entry, number=number, previous=head, clock=self._clock))
            lines.append(events[-1].to_line())
            head = _digest(lines[-1])
        if not lines:
            return
        for event in events:
            self._observe(event)
        drop_torn_line(self._path)
        append_lines(self._path, lines)
        self._count, self._head = self._count + len(lines), head


def read_events(path: Path) -> list[Event]:
    """Return the events of a log after verifying its chain; a torn last line is left out.

    Raises:
        RunFolderError: The file is missing, or its chain is broken; the line is named.
    """
    return [event for event, _ in _scan(path)]


def _scan(path: Path) -> Iterator[tuple[Event, str]]:
    """Yield the events of a log with their lines, read once from the start, each verified before the next is read."""
    if not path.is_file():
        raise RunFolderError(
            f"{path} is missing: the run's events cannot be shown to be complete; restore it from a copy"
        )
    previous = _START
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.endswith(b"\n"):
                return  # the torn line of a crash: it was never reported as written
            line = raw[:-1].decode("utf-8", errors="replace")
            event = _next(path, line, number=number, previous=previous)
            previous = _digest(line)
            yield event, line


def _next(path: Path, line: str, *, number: int, previous: bytes) -> Event:
    """Parse a line as the next event of a chain."""
    try:
        event = Event.model_validate_json(line)
        canonical = event.to_line() == line
    except ValueError:  # pydantic's error is one; so is that of a figure that JSON has no word for
        reason = "it is no event"
    else:
        if event.number != number:
            reason = f"its number is {event.number}"
        elif event.previous != previous.hex():
            reason = "it does not follow the line before it"
        elif not canonical:
            reason = "it is not in canonical form"
        else:
            return event
    raise RunFolderError(f"{path} line {number}: {reason}; lines were changed after they were written")


def _event(entry: LogEntry, *, number: int, previous: bytes, clock: Clock) -> Event:
    return Event(
        number=number,
        time=int(clock()),
        kind=entry.kind,
        round=entry.round,
        attempt=entry.attempt,
        details=dict(entry.details),
        previous=previous.hex(),
    )


def _digest(line: str) -> bytes:
    return hashlib.sha256(line.encode()).digest()
