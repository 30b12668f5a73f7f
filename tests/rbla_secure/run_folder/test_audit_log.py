"""Events are written down in a chain in which no line can be changed unnoticed, whatever crashes."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbla_secure.errors import RunFolderError
from rbla_secure.run_folder.audit_log import AuditLog, Event, EventKind, LogEntry, read_events
from tests.support.federations import MEMBERS, make_plan, make_session
from tests.support.properties import PROPERTY

SESSION = make_session(make_plan(), round_number=3, attempt=2)
NOW = 1_800_000_000
ZEROS = "00" * 32


def ticking() -> Callable[[], float]:
    """A clock that moves on by a second and a half each time it is read."""
    ticks = count()
    return lambda: NOW + 1.5 * next(ticks)


def refusal(reason: str = "no", client: str = "large-01") -> LogEntry:
    return LogEntry.of_session(
        SESSION, EventKind.REFUSAL, client=client, by="client", error="RefusalError", reason=reason
    )


def new_log(folder: Path) -> AuditLog:
    """A log of one event."""
    first = LogEntry.of_run(EventKind.RUN_CREATED, run="ab", config="cd")
    return AuditLog.create(folder / "events.jsonl", first, clock=ticking())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a log of five events."""
    log = new_log(tmp_path)
    log.append(
        LogEntry.of_session(
            SESSION, EventKind.SESSION_OPENED, cohort=list(MEMBERS), threshold=4, context="ef"
        )
    )
    log.append(refusal(), LogEntry.of_session(SESSION, EventKind.DROPPED, client="large-01", stage="upload"))
    log.append(LogEntry.of_run(EventKind.RUN_FINISHED, rounds=3, adapter_file="01"))
    return tmp_path / "events.jsonl"


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="ascii").splitlines()


def test_a_line_is_the_documented_one(path: Path) -> None:
    """Keys in order, no spaces, number, whole seconds, the digest of the line before: written by hand."""
    first, second, third, *_ = lines_of(path)

    assert first == (
        '{"attempt":null,"details":{"config":"cd","run":"ab"},"kind":"run-created","number":1,'
        f'"previous":"{ZEROS}","round":null,"time":1800000000}}'
    )
    assert json.loads(second)["previous"] == hashlib.sha256(first.encode()).hexdigest()
    assert third == (
        '{"attempt":2,"details":{"by":"client","client":"large-01","error":"RefusalError","reason":"no"},'
        f'"kind":"refusal","number":3,"previous":"{hashlib.sha256(second.encode()).hexdigest()}",'
        '"round":3,"time":1800000003}'
    )


def test_what_was_appended_comes_back(path: Path) -> None:
    """Reading gives every event in its order, with what was said of it."""
    events = read_events(path)

    assert [event.number for event in events] == [1, 2, 3, 4, 5]
    assert [str(event.kind) for event in events] == [
        "run-created",
        "session-opened",
        "refusal",
        "dropped",
        "run-finished",
    ]
    assert [(event.round, event.attempt) for event in events] == [(None, None), *[(3, 2)] * 3, (None, None)]
    assert events[1].details == {"cohort": list(MEMBERS), "threshold": 4, "context": "ef"}


def test_the_head_is_the_digest_of_the_last_line(path: Path) -> None:
    """It moves with every append, and is the same for whoever opens the file."""
    log = AuditLog(path)
    before = log.head

    log.append(refusal())

    assert before.hex() == hashlib.sha256(lines_of(path)[-2].encode()).hexdigest()
    assert log.head.hex() == hashlib.sha256(lines_of(path)[-1].encode()).hexdigest()
    assert AuditLog(path).head == log.head
    assert (len(log), len(AuditLog(path))) == (6, 6)


def test_entries_that_are_appended_together_are_flushed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage with many refusals costs one flush, one without any costs none."""
    log = new_log(tmp_path)
    flushed = []
    monkeypatch.setattr(
        os, "fsync", lambda _descriptor: flushed.append(len(lines_of(tmp_path / "events.jsonl")))
    )

    log.append(*(refusal(str(number)) for number in range(50)))
    log.append()

    assert flushed == [51]


@pytest.mark.parametrize("reason", ["żółć", "a\nb", '"quoted"', "\u2028", "\x00", "{}", "\U0001f600"])
def test_any_text_is_one_line_of_ascii(tmp_path: Path, reason: str) -> None:
    """Whatever a refusal says, it stays in its line and comes back as it was."""
    log = new_log(tmp_path)

    log.append(refusal(reason))

    assert len(lines_of(tmp_path / "events.jsonl")) == 2
    assert read_events(tmp_path / "events.jsonl")[1].details["reason"] == reason


def test_what_could_not_be_read_back_is_not_written(path: Path) -> None:
    """An event that the reader of the log refuses never reaches the file."""
    before = path.read_bytes()

    def refuse(event: Event) -> None:
        if event.number == 7:
            raise RunFolderError("no")

    log = AuditLog(path, observe=refuse)
    with pytest.raises(RunFolderError):
        log.append(refusal(), refusal())

    assert path.read_bytes() == before


# Tampering.


def rechained(lines: list[str], start: int) -> list[str]:
    """The lines from a place on with number and previous digest put right: what a holder of the file can do."""
    fixed = lines[:start]
    for line in lines[start:]:
        fields: dict[str, Any] = json.loads(line)
        fields["number"] = len(fixed) + 1
        fields["previous"] = hashlib.sha256(fixed[-1].encode()).hexdigest() if fixed else ZEROS
        fixed.append(json.dumps(fields, sort_keys=True, separators=(",", ":")))
    return fixed


def changed(line: str, **fields: Any) -> str:
    return json.dumps({**json.loads(line), **fields}, sort_keys=True, separators=(",", ":"))


def spaced(line: str) -> str:
    return json.dumps(json.loads(line), sort_keys=True)


FAULTS: dict[str, tuple[Callable[[list[str]], list[str]], int]] = {
    "another time": (lambda lines: [*lines[:1], changed(lines[1], time=1), *lines[2:]], 3),
    "another kind": (lambda lines: [*lines[:2], changed(lines[2], kind="dropped"), *lines[3:]], 4),
    "other details": (lambda lines: [changed(lines[0], details={}), *lines[1:]], 2),
    "a line left out": (lambda lines: [*lines[:2], *lines[3:]], 3),
    "the first line left out": (lambda lines: lines[1:], 1),
    "a line twice": (lambda lines: [*lines[:2], lines[1], *lines[2:]], 3),
    "a line put in": (lambda lines: [*lines[:2], *rechained([*lines[:2], lines[4]], 2)[2:], *lines[2:]], 4),
    "two lines exchanged": (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], 2),
    "another number": (lambda lines: [*lines[:4], changed(lines[4], number=6)], 5),
    "another digest": (lambda lines: [*lines[:4], changed(lines[4], previous=ZEROS)], 5),
    "spaces": (lambda lines: [*lines[:4], spaced(lines[4])], 5),
    "a key twice": (lambda lines: [*lines[:4], lines[4].replace('"round"', '"time":1,"round"')], 5),
    "a key too many": (lambda lines: [*lines[:4], changed(lines[4], more=1)], 5),
    "an unknown kind": (lambda lines: [*lines[:4], changed(lines[4], kind="nothing")], 5),
    "an empty line": (lambda lines: [*lines[:3], "", *lines[3:]], 4),
    "no JSON": (lambda lines: [*lines[:4], "{"], 5),
    "a figure without a word in JSON": (
        lambda lines: [*lines[:4], lines[4].replace('"rounds":3', '"rounds":NaN')],
        5,
    ),
    "a carriage return": (lambda lines: [*lines[:4], lines[4] + "\r"], 5),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_tampering_is_noticed_and_the_line_is_named(path: Path, fault: str) -> None:
    """A changed, missing, repeated, moved or added line raises RunFolderError, and the file is left as it is."""
    tamper, number = FAULTS[fault]
    data = "".join(line + "\n" for line in tamper(lines_of(path))).encode()
    path.write_bytes(data)

    for read in (AuditLog, read_events):
        with pytest.raises(RunFolderError, match=rf"events\.jsonl line {number}: "):
            read(path)

    assert path.read_bytes() == data


@PROPERTY
@given(place=st.integers(0, 10**6), value=st.integers(1, 255))
def test_no_byte_before_the_last_line_can_be_changed(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    """Any single byte of any line but the last, changed to any other, raises RunFolderError and nothing else."""
    folder = tmp_path_factory.mktemp("log")
    log = new_log(folder)
    log.append(refusal(), refusal("again"))
    data = bytearray((folder / "events.jsonl").read_bytes())
    kept = len(data) - len(data.splitlines()[-1]) - 1
    data[place % kept] ^= value
    (folder / "events.jsonl").write_bytes(bytes(data))

    with pytest.raises(RunFolderError, match="line"):
        AuditLog(folder / "events.jsonl")


def test_what_the_chain_alone_cannot_show(path: Path) -> None:
    """The caveat is true: whoever writes all later lines anew, or cuts off the end, is noticed by the known head alone."""
    known = AuditLog(path).head
    lines = lines_of(path)
    forged = rechained([*lines[:2], changed(lines[2], details={}), *lines[3:]], 3)

    for content in (forged, lines[:-1]):
        path.write_text("".join(line + "\n" for line in content))

        assert AuditLog(path).head != known


def test_a_missing_log_is_refused(tmp_path: Path) -> None:
    """A run whose events are gone cannot be passed off as one that had none."""
    with pytest.raises(RunFolderError, match="is missing"):
        AuditLog(tmp_path / "events.jsonl")


# Crashes.


@pytest.mark.parametrize("kept", [1, 40, -2])
def test_a_torn_last_line_is_cut_away(path: Path, kept: int) -> None:
    """What a crash left of a line that nobody was told of goes, and the chain goes on from the line before."""
    whole = lines_of(path)
    torn = changed(whole[-1], number=6)
    with path.open("a") as file:
        file.write(torn[:kept])

    log = AuditLog(path)
    log.append(refusal())

    assert lines_of(path)[:5] == whole
    assert [event.number for event in read_events(path)] == [1, 2, 3, 4, 5, 6]


def test_opening_a_whole_log_writes_nothing(path: Path) -> None:
    """A log in order is only read."""
    before = path.stat().st_mtime_ns, path.stat().st_ino

    AuditLog(path)

    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_reading_leaves_a_torn_line_where_it_is(path: Path) -> None:
    """Who only reads, reads what was written whole."""
    with path.open("ab") as file:
        file.write(b"\xc5half")
    before = path.read_bytes()

    events = read_events(path)

    assert len(events) == 5
    assert path.read_bytes() == before


def cut_at(data: bytes) -> Iterator[bytes]:
    """What may be on the disk after a crash while the last lines were written."""
    yield from (data[:size] for size in range(data.index(b"\n") + 1, len(data) + 1))


def test_every_crash_while_lines_are_written_leaves_a_chain(path: Path) -> None:
    """Cut anywhere behind its first line, the log opens with the lines that were whole; the torn one goes with the next."""
    data = path.read_bytes()

    for left in cut_at(data):
        path.write_bytes(left)
        whole = left[: left.rindex(b"\n") + 1]

        log = AuditLog(path)
        assert len(log) == left.count(b"\n")
        assert path.read_bytes() == left
        log.append(refusal())

        assert path.read_bytes().startswith(whole)
        assert path.read_bytes().count(b"\n") == len(read_events(path)) == whole.count(b"\n") + 1
