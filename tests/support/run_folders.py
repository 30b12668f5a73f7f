"""Run folders as crashes leave them, and as whoever holds them may leave them."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from rbla_secure.run_folder.audit_log import Event, EventKind, read_events

LEDGERS = ("privacy.json", "privacy-samples.json")
RESULTS = (EventKind.ROUND_FINISHED, EventKind.ROUND_ABORTED)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file and its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def result_at(folder: Path, number: int) -> int:
    """How many events stand before the one that ends a round."""
    events = read_events(folder / "events.jsonl")
    return next(at for at, each in enumerate(events) if each.kind in RESULTS and each.round == number)


def keep_events(folder: Path, count: int) -> list[Event]:
    """Cut the end of the log off."""
    path = folder / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:count]))
    return read_events(path)


def keep_lines(path: Path, count: int) -> None:
    """Cut the end of a file of lines off."""
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:count]))


def as_ledger(content: object) -> bytes:
    """A ledger in the spelling of a ledger, whose figures are not spelt as Python's own library spells them."""
    return to_json(content, indent=1, inf_nan_mode="constants") + b"\n"


def keep_entries(path: Path, count: int) -> None:
    """Take the last entries of a ledger away, in the ledger's own spelling."""
    if path.exists():
        content = json.loads(path.read_text())
        content["entries"] = content["entries"][:count]
        path.write_bytes(as_ledger(content))


def die_before_the_end_of(folder: Path, number: int) -> None:
    """Leave a finished run as a crash leaves it just before the log is told of a round's end: what it needs is on the disk.

    This is what whoever holds the folder can do as well: cut off the end of the log with all that came after it.
    """
    cut_back(folder, result_at(folder, number), rounds=number)


def go_back_to(folder: Path, number: int) -> None:
    """Leave a finished run as it was just after a round had ended."""
    cut_back(folder, result_at(folder, number) + 1, rounds=number)


def die_before_the_log_of(folder: Path, ledger: str, number: int, *, entry: int = 0) -> None:
    """Leave a finished run as a crash leaves it between an entry of a ledger for a round and the log's line of it.

    Args:
        folder: Of the run.
        ledger: Its name.
        number: Of the round.
        entry: Which one of the round's, from 0.
    """
    events = read_events(folder / "events.jsonl")
    of_ledger = [at for at, each in enumerate(events) if each.details.get("ledger") == ledger]
    at = [at for at in of_ledger if events[at].round == number][entry]
    written = (folder / ledger).read_bytes()
    cut_back(folder, at, rounds=number - 1)
    (folder / ledger).write_bytes(written)
    keep_entries(folder / ledger, of_ledger.index(at) + 1)


def cut_back(folder: Path, events: int, *, rounds: int) -> None:
    """Cut the log and everything that it does not hold any more, but for lines and checkpoints of these rounds."""
    kept = keep_events(folder, events)
    keep_lines(folder / "attempts.jsonl", sum(event.kind is EventKind.SESSION_OPENED for event in kept))
    keep_lines(folder / "metrics.jsonl", rounds)
    keep_lines(folder / "timings.jsonl", rounds)
    for path in (folder / "checkpoints").iterdir():
        if int(path.stem[-4:]) > rounds:
            path.unlink()
    for name in LEDGERS:
        count = sum(event.details.get("ledger") == name for event in kept)
        keep_entries(folder / name, count)
        if not count:
            (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "adapter", ignore_errors=True)


def rewrite_events(folder: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Write the whole chain anew with events changed: its digests fit, as whoever holds the folder can make them."""
    path = folder / "events.jsonl"
    events = change([json.loads(line) for line in path.read_text().splitlines()])
    previous, lines = "0" * 64, []
    for number, event in enumerate(events, start=1):
        event |= {"number": number, "previous": previous}
        lines.append(json.dumps(event, sort_keys=True, separators=(",", ":")))
        previous = hashlib.sha256(lines[-1].encode()).hexdigest()
    path.write_text("".join(line + "\n" for line in lines))
