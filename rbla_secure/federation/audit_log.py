"""The audit log of a run: events.jsonl, in which each line is bound to the one before it.

    {"attempt":1,"details":{...},"kind":"session-opened","number":2,"previous":"<hex>","round":1,"time":1800000000}

A line is canonical JSON: keys in order, no spaces, ASCII. `previous` is the SHA-256 of the line before, without its line
feed; 64 zeros in the first. A line is flushed to the disk before the run goes on.

What the chain shows: no line before the last one has been changed, removed, moved or put in since the next was written.
Caveat: whoever holds the folder can write the whole chain anew, or cut off its end. Against the holder it proves nothing
until its head (:attr:`AuditLog.head`) is known elsewhere: signed with a key that is not in the folder, or given to others.
Signing the head with the server's key is a later step.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, unique
from pathlib import Path
from typing import Final, final

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from protocols.session import Session
from rbla_secure.durable import append_lines, whole_lines, write_atomic
from rbla_secure.errors import RunFolderError

FILE_NAME: Final = "events.jsonl"
_START: Final = bytes(hashlib.sha256().digest_size)

Clock = Callable[[], float]


@unique
class EventKind(StrEnum):
    """What can happen in a run, and what is said of it.

    RUN_CREATED: run, config (their identity and digest, hex).
    RUN_RESUMED: rounds (how many are durable), adapter (digest after the last one; empty before the first).
    SESSION_OPENED: cohort, threshold, context (hex). Written before the first message of the session.
    REFUSAL: client, by ("client": it declined; "server": its answer was turned away), error, reason.
    DROPPED: client, stage: it is out of the session from there on.
    BAND_REFUSED: band, reason.
    UPDATE_REJECTED: of (a client or a group), reason: the filter kept nothing of it.
    STEP_CHECKED: reason: the step of a round was scaled or rolled back, or a claim of its clients is not told.
    ROUND_ABORTED: reason, adapter (digest, unchanged). Written once the round is durable.
    ROUND_FINISHED: survivors, adapter (digest). Written once the round is durable.
    RUN_FINISHED: rounds, adapter_file (SHA-256 of the exported tensors).
    """

    RUN_CREATED = "run-created"
    RUN_RESUMED = "run-resumed"
    SESSION_OPENED = "session-opened"
    REFUSAL = "refusal"
    DROPPED = "dropped"
    BAND_REFUSED = "band-refused"
    UPDATE_REJECTED = "update-rejected"
    STEP_CHECKED = "step-checked"
    ROUND_ABORTED = "round-aborted"
    ROUND_FINISHED = "round-finished"
    RUN_FINISHED = "run-finished"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is to be written down; the log adds number, time and chain.

    Args:
        kind: What happened.
        round: In which round, if in one.
        attempt: In which attempt at it.
        details: The facts that the kind asks for; public ones.
    """

    kind: EventKind
    round: int | None = None
    attempt: int | None = None
    details: Mapping[str, JsonValue] = field(default_factory=dict)

    @classmethod
    def of_run(cls, kind: EventKind, **details: JsonValue) -> "Entry":
        """Something that happened to the run as a whole."""
        return cls(kind=kind, details=details)

    @classmethod
    def of_session(cls, session: Session, kind: EventKind, **details: JsonValue) -> "Entry":
        """Something that happened in one attempt at a round."""
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
        """The canonical line, without its end."""
        fields = self.model_dump(mode="json")
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


@final
class AuditLog:
    """The log of one run folder, which its process holds alone.

    Raises:
        RunFolderError: The file is missing, or its chain is broken; the line is named. Nothing is changed.
    """

    def __init__(self, path: Path, *, clock: Clock = time.time) -> None:
        self._path = path
        self._clock = clock
        lines = read_lines(path)
        if path.read_bytes()[-1:] not in (b"", b"\n"):
            # The torn line of a crash: it was never reported as written.
            write_atomic(path, "".join(line + "\n" for line in lines).encode())
        self._count, self._head = len(lines), _digest(lines)

    @classmethod
    def create(cls, path: Path, first: Entry, *, clock: Clock = time.time) -> "AuditLog":
        """A new log that begins with one event; another file of its name is replaced."""
        event = _event(first, number=1, previous=_START, clock=clock)
        write_atomic(path, (event.to_line() + "\n").encode())
        return cls(path, clock=clock)

    @property
    def head(self) -> bytes:
        """SHA-256 of the last line: whoever knows it can tell whether anything up to it has been changed since."""
        return self._head

    def __len__(self) -> int:
        return self._count

    def append(self, *entries: Entry) -> None:
        """Write entries down, durably, in one go."""
        lines: list[str] = []
        head = self._head
        for number, entry in enumerate(entries, start=self._count + 1):
            lines.append(_event(entry, number=number, previous=head, clock=self._clock).to_line())
            head = _digest(lines)
        if lines:
            append_lines(self._path, lines)
            self._count, self._head = self._count + len(lines), head


def read_events(path: Path) -> list[Event]:
    """The events of a log, its chain verified.

    Raises:
        RunFolderError: The file is missing, or its chain is broken; the line is named.
    """
    return [Event.model_validate_json(line) for line in read_lines(path)]


def read_lines(path: Path) -> list[str]:
    """The lines of a log, its chain verified; a torn last line is not among them.

    Raises:
        RunFolderError: As :func:`read_events`.
    """
    if not path.is_file():
        raise RunFolderError(f"{path} is missing: the run's events cannot be shown to be complete")
    lines = whole_lines(path)
    for number, line in enumerate(lines, start=1):
        before = _digest(lines[: number - 1][-1:])
        if reason := _fault(line, number=number, previous=before):
            raise RunFolderError(
                f"{path} line {number}: {reason}; lines were changed after they were written"
            )
    return lines


def _fault(line: str, *, number: int, previous: bytes) -> str:
    """Why a line cannot be the next one of a chain; empty if it can."""
    try:
        event = Event.model_validate_json(line)
    except ValidationError:
        return "it is no event"
    if event.number != number:
        return f"its number is {event.number}"
    if event.previous != previous.hex():
        return "it does not follow the line before it"
    if event.to_line() != line:
        return "it is not in canonical form"
    return ""


def _event(entry: Entry, *, number: int, previous: bytes, clock: Clock) -> Event:
    return Event(
        number=number,
        time=int(clock()),
        kind=entry.kind,
        round=entry.round,
        attempt=entry.attempt,
        details=dict(entry.details),
        previous=previous.hex(),
    )


def _digest(lines: Sequence[str]) -> bytes:
    """Of the last of some lines; where there is none, what a chain begins with."""
    return hashlib.sha256(lines[-1].encode()).digest() if lines else _START
