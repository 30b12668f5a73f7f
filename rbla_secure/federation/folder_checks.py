"""A run folder is held against its audit log before anything in it is believed. Run by the server, and by whoever looks.

The log is the only witness. What it says is compared with every other file by digest, and a difference is refused by file
name with what to do; nothing is written before. What a crash can leave beside what the log holds, in the order in which a
process writes, is accepted; how many items are too many is checked, not what the last of them says:

    an attempt without its session   attempts.jsonl is written before the session is opened: one line too many
    a ledger's last entry            it is written before the log is told, and nothing is revealed before that: one too many
    the result of the round          its line and its checkpoint are written before the log is told: the round is run again
    a torn last line                 of any file of lines: it was never reported as written

So a checkpoint, a line or an entry that is missing was taken away, and a second one too many was put there, or the log's end
was cut off. Going back to an earlier round is refused: its ledgers count what was revealed, and its clients have given the
rounds after it their input. Seconds (timings.jsonl) are no evidence and are not compared.

Caveats: see `audit_log.py`: whoever holds the folder can write all of it anew. Whoever can write to it after a crash decides what
the ledger's entry says that the log does not hold yet, and with it how much privacy a resumed run believes it has spent.
"""

import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from protocols.session import RUN_ID_SIZE
from rbla_secure.config import Config, load_config
from rbla_secure.durable import whole_lines
from rbla_secure.errors import RunFolderError
from rbla_secure.federation.audit_log import FILE_NAME, AuditLog
from rbla_secure.federation.history import History
from rbla_secure.federation.log_entries import line_digest, result_of
from rbla_secure.federation.records import RoundRecord
from rbla_secure.privacy.ledger import FILE, Ledger
from rbla_secure.privacy.ledger_state import check_state
from rbla_secure.privacy.sample_ledger import FILE as SAMPLES_FILE
from rbla_secure.privacy.sample_ledger import SampleLedger

CONFIG: Final = "config.toml"
IDENTITY: Final = "run.json"
ATTEMPTS: Final = "attempts.jsonl"
METRICS: Final = "metrics.jsonl"
TIMINGS: Final = "timings.jsonl"
CHECKPOINTS: Final = "checkpoints"
ADAPTER: Final = "adapter"
RESTORE: Final = "restore it from a copy (a run never goes back to an earlier round; begin a new one instead)"

_FILES: Final = (CONFIG, IDENTITY, FILE_NAME, ATTEMPTS, METRICS, TIMINGS, FILE, SAMPLES_FILE, "lock")
_FOLDERS: Final = (CHECKPOINTS, "base", ADAPTER)
_CHECKPOINT_NAME: Final = re.compile(r"round-(\d{4,9})\.safetensors")


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Identity(_Line):
    run: str


class _Attempt(_Line):
    round: int
    attempt: int


def checkpoint(folder: Path, number: int) -> Path:
    """The file of the adapter after a round."""
    return folder / CHECKPOINTS / f"round-{number:04d}.safetensors"


def check_kinds(folder: Path) -> None:
    """Refuse a folder that is none of a run, or in which a name leads elsewhere: two runs could write one file.

    Raises:
        RunFolderError: It is.
    """
    if not (folder / CONFIG).is_file():
        raise RunFolderError(f"{folder} is no run folder: {CONFIG} is missing")
    for names, is_kind, kind in ((_FILES, stat.S_ISREG, "file"), (_FOLDERS, stat.S_ISDIR, "folder")):
        for path in (folder / name for name in names):
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:
                continue
            if not is_kind(mode):
                raise RunFolderError(f"{path} must be a {kind} of its own and no link or anything else")


def read_run_id(folder: Path) -> bytes:
    """The identity of a run.

    Raises:
        RunFolderError: Its file is missing or damaged.
    """
    path = folder / IDENTITY
    try:
        run_id = bytes.fromhex(_Identity.model_validate_json(path.read_bytes()).run)
    except (OSError, ValueError):  # pydantic's error is one
        raise RunFolderError(f"{path} is missing or damaged: restore it from a copy") from None
    if len(run_id) != RUN_ID_SIZE:
        raise RunFolderError(f"{path}: the run's identity must have {RUN_ID_SIZE} bytes")
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


def read_attempts(folder: Path, history: History) -> list[tuple[int, int]]:
    """Round and attempt of every line of attempts.jsonl: those of the log, and at most one more.

    Raises:
        RunFolderError: They are others.
    """
    path = folder / ATTEMPTS
    found = []
    for number, line in enumerate(whole_lines(path), start=1):
        try:
            attempt = _Attempt.model_validate_json(line)
        except ValidationError:
            raise RunFolderError(
                f"{path} line {number} is damaged: attempts could be numbered twice"
            ) from None
        found.append((attempt.round, attempt.attempt))
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
    if len(found) > len(known) + 1:
        raise RunFolderError(
            f"{path} line {len(known) + 2}: {FILE_NAME} knows {len(known)} attempts and a crash leaves one more at most, "
            "so its end was cut off or the line was put in; restore whichever was changed from a copy"
        )
    return found


def read_metrics(folder: Path, history: History) -> list[RoundRecord]:
    """The records of the rounds that count, from the lines that the log holds the digests of.

    Raises:
        RunFolderError: A line is missing, is another one, or there is one that no crash leaves.
    """
    path = folder / METRICS
    lines = whole_lines(path)
    if len(lines) < history.rounds:
        raise RunFolderError(
            f"{path} must have one line for each of the rounds 1..{history.rounds} and has {len(lines)}: {RESTORE}"
        )
    records = [_record(path, number, lines[number - 1], history) for number in range(1, history.rounds + 1)]
    _check_left_over(path, lines[history.rounds :], history)
    return records


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


def _check_left_over(path: Path, lines: Sequence[str], history: History) -> None:
    """A crash leaves the line of the next round at most, once its session was opened."""
    number = history.rounds + 1
    if not lines or (len(lines) == 1 and _was_opened(number, history) and _round_of(lines[0]) == number):
        return
    raise RunFolderError(
        f"{path} line {number}: {FILE_NAME} knows {history.rounds} rounds, so its end was cut off or the line was put in; "
        "restore whichever was changed from a copy"
    )


def _round_of(line: str) -> int | None:
    try:
        return RoundRecord.model_validate_json(line).round
    except ValidationError:
        return None


def check_checkpoints(folder: Path, history: History) -> None:
    """Every round that counts has its checkpoint, and no other has but what a crash leaves of the next one.

    Raises:
        RunFolderError: One is missing, or one too many.
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
    left_over = {number} if _was_opened(number, history) else set()
    if more := found - set(range(1, number)) - left_over:
        raise RunFolderError(
            f"{checkpoint(folder, min(more))} is there, but {FILE_NAME} knows {history.rounds} rounds: its end was cut "
            "off or the file was put there; restore whichever was changed from a copy"
        )


def check_result(folder: Path, config: Config, history: History) -> None:
    """A result is exported after the last round.

    Raises:
        RunFolderError: There is one, but the log does not know the rounds that it needs.
    """
    if (folder / ADAPTER).exists() and history.rounds < config.rounds and not history.exported:
        raise RunFolderError(
            f"{folder / ADAPTER} is there, but {FILE_NAME} knows {history.rounds} of {config.rounds} rounds: its end was "
            "cut off or the folder was put there; restore whichever was changed from a copy"
        )


Ledgers = tuple[Ledger | None, SampleLedger | None]


def look_at_ledgers(folder: Path) -> Ledgers:
    """The ledgers of a run that may go on meanwhile. Nothing is written, and nobody is kept out.

    Raises:
        RunFolderError: It is no run folder, or its configuration, identity or events were changed.
        PrivacyError: As :func:`check_ledgers`.
        ConfigError: Its config.toml is damaged.
    """
    check_kinds(folder)
    history = History(folder / FILE_NAME)
    AuditLog(folder / FILE_NAME, observe=history.take)
    check_identity(folder, load_config(folder / CONFIG), read_run_id(folder), history)
    return check_ledgers(folder, history, exact=False)


def check_ledgers(folder: Path, history: History, *, exact: bool = True) -> Ledgers:
    """The ledgers of a folder, each with all entries that the log holds, unchanged.

    Args:
        folder: Of the run.
        history: Read before the ledgers are.
        exact: Whether they may be one entry ahead at most; else a run may go on while they are looked at.

    Raises:
        PrivacyError: One is missing, damaged, shortened or changed.
    """
    ledger = Ledger.read(folder) if (folder / FILE).exists() else None
    samples = SampleLedger.read(folder) if (folder / SAMPLES_FILE).exists() else None
    for name, found in ((FILE, ledger), (SAMPLES_FILE, samples)):
        check_state(folder / name, found, known=history.ledgers.get(name), exact=exact)
    return ledger, samples


def _was_opened(number: int, history: History) -> bool:
    return any(round_number == number for round_number, _ in history.attempts)
