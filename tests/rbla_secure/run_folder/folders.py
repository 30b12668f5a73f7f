"""Run folders with a few rounds in them."""

import json

from rbla_secure.lora.adapter import Adapter
from rbla_secure.run_folder.audit_log import EventKind, LogEntry
from rbla_secure.run_folder.folder import RunFolder
from tests.support.federations import make_adapter, make_plan, make_session
from tests.support.records import make_record, make_seconds

PLAN = make_plan(rounds=20_000)


def adapter_after(number: int) -> Adapter:
    return make_adapter(PLAN, seed=number)


def save_round(folder: RunFolder, number: int, *, upcoming: bool = False) -> None:
    """A round from its session to its end, with the next round's session opened before that, or without."""
    adapter = adapter_after(number)
    record = make_record(round=number, adapter=adapter.digest().hex())
    attempt = folder.next_attempt(number)
    session = make_session(PLAN, run=folder.run_id, round_number=number, attempt=attempt)
    folder.log.append(LogEntry.of_session(session, EventKind.SESSION_OPENED))
    if upcoming:
        following = make_session(
            PLAN,
            run=folder.run_id,
            round_number=number + 1,
            attempt=folder.next_attempt(number + 1),
        )
        folder.log.append(LogEntry.of_session(following, EventKind.SESSION_OPENED))
    folder.save(PLAN, session, adapter, record, make_seconds(round=number))


class CrashError(Exception):
    """Stands for the end of the process."""


def snapshot(folder: RunFolder) -> dict[str, bytes]:
    """Every file and its bytes."""
    return {str(path): path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}


def attempts(folder: RunFolder) -> list[dict[str, int]]:
    return [json.loads(line) for line in (folder.path / "attempts.jsonl").read_text().splitlines()]
