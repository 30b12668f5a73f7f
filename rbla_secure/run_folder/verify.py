"""Checks of a run folder against its audit log, before anything in it is trusted. Run by the server and by any reader.

The log is the only reference. Every other file is compared with it, and a difference is refused with the file name and
what to do; nothing is written before (except the lock, an empty file, if it is missing). Files that are read whole must
be what a run writes to the byte, so that no other reader can read them differently. What a crash can leave beside
what the log holds follows from the order in which a process writes, and is accepted as that and no more:

    an attempt without its session   attempts.jsonl is written before the session is opened: the next attempt, as it is numbered
    a ledger's last entry            it is written before the log is told, and nothing is revealed before that (`ledger_checks.py`)
    the result of the round          once the session after it is open and, if it was not aborted, the log holds what it spent. Its
                                     line in metrics.jsonl comes first, its checkpoint after that, the log last; whoever goes on
                                     takes them away in the opposite order and runs the round again
    a torn last line                 of any file of lines: it was never reported as written

Of the first three a crash leaves at most one: an attempt is numbered while one session is open, a result needs both,
and it comes after the log holds the entries.
So a missing checkpoint, line or entry was removed, and an extra one was added, or the log's end was cut off.
Going back to an earlier round is refused: its ledgers count what was revealed, and its clients have given the rounds
after it their input. Seconds (timings.jsonl) are no evidence and are not compared; config.toml is compared by its
values, so that comments and spaces are free; files under names that no run writes are ignored.

Caveat: see `audit_log.py`: whoever holds the folder can rewrite all of it.
"""

import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from protocols.session import RUN_ID_SIZE
from rbla_secure.atomic_files import whole_lines
from rbla_secure.config import Config
from rbla_secure.errors import RunFolderError
from rbla_secure.planning.promises import Promises
from rbla_secure.privacy.ledger import FILE
from rbla_secure.privacy.sample_ledger import FILE as SAMPLES_FILE
from rbla_secure.run_folder.audit_log import FILE_NAME
from rbla_secure.run_folder.budget_settings import FILE as BUDGETS
from rbla_secure.run_folder.history import History
from rbla_secure.run_folder.log_entries import line_digest, result_of
from rbla_secure.run_folder.records import RoundRecord

CONFIG: Final = "config.toml"
IDENTITY: Final = "run.json"
ATTEMPTS: Final = "attempts.jsonl"
METRICS: Final = "metrics.jsonl"
TIMINGS: Final = "timings.jsonl"
CHECKPOINTS: Final = "checkpoints"
BASE: Final = "base"
ADAPTER: Final = "adapter"
RESTORE: Final = "restore it from a copy (a run never goes back to an earlier round; begin a new one instead)"

_FILES: Final = (CONFIG, IDENTITY, FILE_NAME, ATTEMPTS, METRICS, TIMINGS, FILE, SAMPLES_FILE, BUDGETS, "lock")
_FOLDERS: Final = (CHECKPOINTS, BASE, ADAPTER)
_CHECKPOINT_NAME: Final = re.compile(r"round-(\d{4,9})\.safetensors")


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Identity(_Line):
    run: str


class _Attempt(_Line):
    round: int
    attempt: int


def checkpoint(folder: Path, number: int) -> Path:
    """Return the path of the checkpoint after a round."""
    return folder / CHECKPOINTS / f"round-{number:04d}.safetensors"


def check_kinds(folder: Path) -> None:
    """Refuse a folder that is no run folder, or in which a name links elsewhere: two runs could write one file.

    Raises:
        RunFolderError: It is such a folder.
    """
    if not (folder / CONFIG).is_file():
        raise RunFolderError(f"{folder} is no run folder: {CONFIG} is missing")
    for names, is_kind, kind in ((_FILES, stat.S_ISREG, "file"), (_FOLDERS, stat.S_ISDIR, "folder")):
        for path in (folder / name for name in names):
            try:
                found = path.lstat()
            except FileNotFoundError:
                continue
            if not is_kind(found.st_mode):
                raise RunFolderError(f"{path} must be a {kind} of its own and no link or anything else")
            if kind == "file" and found.st_nlink > 1:
                raise RunFolderError(
                    f"{path} has {found.st_nlink} names (hard links), so that another folder would be written too: copy the "
                    "folder instead of linking its files"
                )
    for path in (*_inside(folder / BASE), *_inside(folder / ADAPTER)):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise RunFolderError(f"{path} must be a file of its own and no link or anything else")


def _inside(folder: Path) -> Iterator[Path]:
    """Yield all files and links below a folder, at any depth; real folders are left out."""
    for parent, folders, files in os.walk(folder):  # does not follow links
        names = [*files, *(name for name in folders if (Path(parent) / name).is_symlink())]
        yield from (Path(parent) / name for name in sorted(names))


def identity_text(run_id: bytes) -> str:
    """Return the only valid content of run.json."""
    return json.dumps({"run": run_id.hex()})


def attempt_line(round_number: int, attempt: int) -> str:
    """Return the only valid line of attempts.jsonl for an attempt, without its line feed."""
    return json.dumps({"round": round_number, "attempt": attempt})


def read_run_id(folder: Path) -> bytes:
    """Read the identity of a run.

    Raises:
        RunFolderError: Its file is missing or damaged.
    """
    path = folder / IDENTITY
    try:
        data = path.read_bytes()
        run_id = bytes.fromhex(_Identity.model_validate_json(data).run)
    except (OSError, ValueError):  # pydantic's error is one
        raise RunFolderError(f"{path} is missing or damaged: restore it from a copy") from None
    if len(run_id) != RUN_ID_SIZE:
        raise RunFolderError(f"{path}: the run's identity must have {RUN_ID_SIZE} bytes")
    if data != identity_text(run_id).encode():
        raise RunFolderError(
            f"{path} is not spelt as a run writes it, so something in it may be read otherwise: restore it from a copy"
        )
    return run_id


def check_identity(folder: Path, config: Config, run_id: bytes, history: History) -> None:
    """Compare configuration and identity with those that the run was created with.

    Raises:
        RunFolderError: They differ, or the log is empty.
    """
    log = folder / FILE_NAME
    if not history.run:
        raise RunFolderError(
            f"{log} is empty: a run's first event is written with its folder; restore it from a copy"
        )
    if history.run != run_id.hex():
        raise RunFolderError(
            f"{folder / IDENTITY} names run {run_id.hex()}, but {FILE_NAME} is of run {history.run}: "
            "restore whichever was changed from a copy"
        )
    if history.config != config.digest().hex():
        raise RunFolderError(
            f"{folder / CONFIG} is not the configuration that the run was created with, says {FILE_NAME}: restore it; "
            "other settings need a new run"
        )


def read_attempts(folder: Path, config: Config, history: History) -> list[tuple[int, int]]:
    """Read round and attempt of every line of attempts.jsonl: those of the log, and the next one left by a crash.

    Raises:
        RunFolderError: The file has other lines.
    """
    path = folder / ATTEMPTS
    found = [_attempt(path, number, line) for number, line in enumerate(whole_lines(path), start=1)]
    known = history.attempts
    if known and not path.exists():
        raise RunFolderError(
            f"{path} is missing with the {len(known)} attempts that {FILE_NAME} holds: restore it from a copy, or attempts "
            "would be numbered twice"
        )
    for number, expected in enumerate(known):
        if found[number : number + 1] != [expected]:
            raise RunFolderError(
                f"{path} line {number + 1} must be attempt {expected[1]} at round {expected[0]}, says {FILE_NAME}: "
                "restore it from a copy, or attempts would be numbered twice"
            )
    if more := found[len(known) :]:
        _check_next_attempt(path, more, config, history)
    return found


def _attempt(path: Path, number: int, line: str) -> tuple[int, int]:
    try:
        attempt = _Attempt.model_validate_json(line)
    except ValidationError:
        attempt = None
    if attempt is None or line != attempt_line(attempt.round, attempt.attempt):
        raise RunFolderError(
            f"{path} line {number} is damaged: restore it from a copy, or attempts could be numbered twice"
        )
    return attempt.round, attempt.attempt


def _check_next_attempt(
    path: Path, more: Sequence[tuple[int, int]], config: Config, history: History
) -> None:
    """Refuse further lines, except the line of the attempt to be opened next, which a crash can leave."""
    known, expected = len(history.attempts), history.next_attempt(config.rounds)
    if len(more) == 1 and more[0] == expected:
        return
    rule = (
        f"after them comes attempt {expected[1]} at round {expected[0]}"
        if expected is not None
        else "no other was to come"
    )
    number = known + 1 if more[0] != expected else known + 2
    raise RunFolderError(
        f"{path} line {number}: {FILE_NAME} knows {known} attempts and {rule}, which alone a crash can leave: "
        f"its end was cut off or the line was put in; restore whichever was changed from a copy"
    )


def read_metrics(folder: Path, config: Config, history: History) -> list[RoundRecord]:
    """Read the records of the rounds that count, from the lines whose digests the log holds.

    Raises:
        RunFolderError: A line is missing or differs, or there is one that no crash leaves.
    """
    path = folder / METRICS
    lines = whole_lines(path)
    _check_bytes(path, lines)
    if len(lines) < history.rounds:
        raise RunFolderError(
            f"{path} must have one line for each of the rounds 1..{history.rounds} and has {len(lines)}: {RESTORE}"
        )
    records = [_record(path, number, lines[number - 1], history) for number in range(1, history.rounds + 1)]
    _check_left_over(path, lines[history.rounds :], config, history)
    return records


def has_left_over(folder: Path, history: History) -> bool:
    """Return whether metrics.jsonl has a line for the round after those that count."""
    return len(whole_lines(folder / METRICS)) > history.rounds


def _check_bytes(path: Path, lines: Sequence[str]) -> None:
    """Refuse lines whose decoded text differs from the bytes in the file, as digests are of the text that was read."""
    if path.exists():
        whole = path.read_bytes().rpartition(b"\n")[0]
        for number, (line, found) in enumerate(zip(lines, whole.split(b"\n"), strict=False), start=1):
            if line.encode() != found:
                raise RunFolderError(f"{path} line {number} is not the one that was written: {RESTORE}")


def _record(path: Path, number: int, line: str, history: History) -> RoundRecord:
    result = history.results[number - 1]
    if line_digest(line) != history.metrics_of(number):
        raise RunFolderError(
            f"{path} line {number} is not the one whose digest {FILE_NAME} holds for round {number}: {RESTORE}"
        )
    try:
        record = RoundRecord.model_validate_json(line)
    except ValidationError:
        raise RunFolderError(f"{path} line {number} is damaged: {RESTORE}") from None
    if record.round != number or result_of(record, line) != (result.kind, result.details):
        raise RunFolderError(f"{path} line {number} tells of another end than {FILE_NAME} does: {RESTORE}")
    return record


def _check_left_over(path: Path, lines: Sequence[str], config: Config, history: History) -> None:
    """Refuse further lines, except the line of the next round, which a crash can leave.

    It is accepted once that round could be revealed and the log holds what it has spent.
    """
    if not lines:
        return
    number, about = history.rounds + 1, history.about_to_reveal(config.rounds)
    record = _record_of(lines[0])
    if len(lines) == 1 and about is not None and record is not None and record.round == number:
        for name, entries in _must_have_spent(config, record).items():
            if history.spent_by(about, name) < entries:
                raise RunFolderError(
                    f"{path} line {number} tells of a round whose entry of {name} is not in {FILE_NAME}, which comes first: the "
                    "log's end was cut off or the line was put in; restore whichever was changed from a copy"
                )
        return
    raise RunFolderError(
        f"{path} line {number}: {FILE_NAME} knows {history.rounds} rounds, so its end was cut off or the line was put in; "
        "restore whichever was changed from a copy"
    )


def _must_have_spent(config: Config, record: RoundRecord) -> dict[str, int]:
    """Return the least entries that each ledger has for a round with this end; an aborted one may end before most."""
    promises = Promises.build(config)
    parts = promises.shown if promises.noisy else ()
    if record.aborted and not (record.survivors or record.holders or record.flags):
        return {FILE: sum(part in promises.shown_at_once for part in parts)}
    return {FILE: len(parts), SAMPLES_FILE: int(config.sample_level.noise_multiplier > 0)}


def _record_of(line: str) -> RoundRecord | None:
    try:
        return RoundRecord.model_validate_json(line)
    except ValidationError:
        return None


def check_checkpoints(folder: Path, config: Config, history: History) -> None:
    """Check that exactly the rounds that count have checkpoints, except for one of the next that a crash can leave.

    Raises:
        RunFolderError: A checkpoint is missing, or there is one too many.
    """
    path = folder / CHECKPOINTS
    if not path.is_dir():
        raise RunFolderError(f"{path} is missing: {RESTORE}")
    found = set()
    for entry in path.iterdir():
        match = _CHECKPOINT_NAME.fullmatch(entry.name)
        if match and entry.name == checkpoint(folder, int(match.group(1))).name:
            if entry.is_symlink() or not entry.is_file():
                raise RunFolderError(f"{entry} must be a file of its own and no link or anything else")
            found.add(int(match.group(1)))
    if missing := set(range(1, history.rounds + 1)) - found:
        raise RunFolderError(
            f"{checkpoint(folder, min(missing))} is missing, but {FILE_NAME} holds round {min(missing)}: {RESTORE}"
        )
    number = history.rounds + 1
    could_be = {number} if history.about_to_reveal(config.rounds) is not None else set()
    if more := found - set(range(1, number)) - could_be:
        raise RunFolderError(
            f"{checkpoint(folder, min(more))} is there, but {FILE_NAME} knows {history.rounds} rounds: its end was cut "
            "off or the file was put there; restore whichever was changed from a copy"
        )
    if number in found and not has_left_over(folder, history):
        raise RunFolderError(
            f"{checkpoint(folder, number)} is there, but {METRICS} has no line for round {number}, which is written first: the "
            "file was put there; move it away"
        )


def check_result(folder: Path, config: Config, history: History) -> None:
    """Check that no result was exported before the last round.

    Raises:
        RunFolderError: There is a result, but the log does not know the rounds that it needs, or says that it was made
            earlier.
    """
    if history.exported and history.rounds != config.rounds:
        raise RunFolderError(
            f"{folder / FILE_NAME} says that the run has ended after {history.rounds} of {config.rounds} rounds: restore it "
            "from a copy"
        )
    if (folder / ADAPTER).exists() and history.rounds < config.rounds and not history.exported:
        raise RunFolderError(
            f"{folder / ADAPTER} is there, but {FILE_NAME} knows {history.rounds} of {config.rounds} rounds: its end was "
            "cut off or the folder was put there; restore whichever was changed from a copy"
        )
