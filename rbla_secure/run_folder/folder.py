"""The run folder: everything that a killed run needs to continue as if nothing had happened.

    config.toml           the configuration, written before anything else
    run.json              identity of the run
    budgets.json          where its clients keep their lifetime budgets, if they do (`budget_settings.py`)
    attempts.jsonl        one line per attempt at a round, written before its session opens
    events.jsonl          what happened, each line bound to the one before it (`audit_log.py`)
    metrics.jsonl         one line per finished round, the same in every repetition
    timings.jsonl         seconds per round
    privacy.json, privacy-samples.json   what privacy was spent, each where there is noise of its kind
    checkpoints/          round-0007.safetensors: the global adapter after round 7; round-0007.direction, of the last round alone and
                          where a verifier screens: what it compares the next updates with (`kept_direction.py`)
    base/  adapter/       the frozen base; the result in PEFT's format

The order of writes: line of metrics, line of timings, checkpoint, direction, and then the event that ends the round. A round counts
from the moment the audit log holds its digests, and a crash before that costs only the round: its remains are
removed in the opposite order. Whatever is opened is compared with the log first (`verify.py`), and nothing is written
before all of it was compared.
"""

import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from pydantic import ValidationError

from protocols.session import RUN_ID_SIZE, Session
from rbla_secure.atomic_files import (
    PRIVATE,
    append_line,
    drop_torn_line,
    sync_folder,
    whole_lines,
    write_atomic,
)
from rbla_secure.config import Config, load_config
from rbla_secure.errors import RblaSecureError, RunFolderError
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.ledger import FILE
from rbla_secure.privacy.sample_ledger import FILE as SAMPLES_FILE
from rbla_secure.run_folder.audit_log import FILE_NAME, AuditLog, EventKind, LogEntry
from rbla_secure.run_folder.budget_settings import FILE as BUDGETS
from rbla_secure.run_folder.budget_settings import BudgetSettings
from rbla_secure.run_folder.checkpoint_file import checkpoint_bytes, read_checkpoint
from rbla_secure.run_folder.folder_lock import LOCK, lock, make_locked
from rbla_secure.run_folder.history import History
from rbla_secure.run_folder.kept_direction import direction_file, drop_directions, read_direction
from rbla_secure.run_folder.ledger_checks import check_ledgers
from rbla_secure.run_folder.log_entries import of_round, of_spending
from rbla_secure.run_folder.records import RoundRecord, RoundSeconds
from rbla_secure.run_folder.verify import (
    ATTEMPTS,
    BASE,
    CHECKPOINTS,
    CONFIG,
    IDENTITY,
    METRICS,
    RESTORE,
    TIMINGS,
    attempt_line,
    check_checkpoints,
    check_identity,
    check_kinds,
    check_result,
    checkpoint,
    identity_text,
    read_attempts,
    read_metrics,
    read_run_id,
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a run: round 0 and no adapter before the first checkpoint."""

    round: int
    adapter: Adapter | None
    records: list[RoundRecord]
    timings: list[RoundSeconds]


@final
class RunFolder:
    """One run's folder, held by one process at a time.

    Attributes:
        log: Its audit log.
        history: The state of the run by the log so far.
        new: Whether this process has made the folder.
        budgets: The settings of its clients' lifetime budgets; None if they keep none.
    """

    def __init__(self, path: Path, *, new: bool = False, held: int | None = None) -> None:
        self.path = path
        self.new = new
        self._lock = held if new else lock(path)
        try:
            self.config = load_config(path / CONFIG)
            self.run_id = read_run_id(path)
            self.history = History(path / FILE_NAME)
            self.log = AuditLog(path / FILE_NAME, observe=self.history.take)
            self.budgets = BudgetSettings.read(path, self.history.budgets)
            check_identity(path, self.config, self.run_id, self.history)
            self._attempts = read_attempts(path, self.config, self.history)
            self._counts = Counter(number for number, _ in self._attempts)
            read_metrics(path, self.config, self.history)
            check_checkpoints(path, self.config, self.history)
            read_direction(path, self.history)
            check_result(path, self.config, self.history)
            check_ledgers(path, self.config, self.history)
        except (RblaSecureError, OSError):
            self.close()
            raise

    @classmethod
    def create(cls, path: Path, config: Config, *, budgets: BudgetSettings | None = None) -> "RunFolder":
        """Create a folder that has its configuration from the moment it exists; an empty folder is filled in place.

        Raises:
            RunFolderError: Something is there already, or another process makes the folder.
            OSError: The folder cannot be written.
        """

        def fill(folder: Path) -> None:
            run_id = secrets.token_bytes(RUN_ID_SIZE)
            write_atomic(folder / IDENTITY, identity_text(run_id).encode())
            created = LogEntry.of_run(
                EventKind.RUN_CREATED,
                run=run_id.hex(),
                config=config.digest().hex(),
                **({"budgets": budgets.digest()} if budgets is not None else {}),
            )
            (folder / BUDGETS).unlink(missing_ok=True)  # of a creation that was cut short
            if budgets is not None:
                write_atomic(folder / BUDGETS, budgets.text().encode(), mode=PRIVATE)
            AuditLog.create(folder / FILE_NAME, created)
            (folder / CHECKPOINTS).mkdir(exist_ok=True)
            write_atomic(folder / CONFIG, config.to_toml().encode())

        if not path.exists():
            return cls(path, new=True, held=make_locked(path.resolve(), fill))
        # Empty, and maybe somebody's working folder: it is not replaced. Asked again once nobody else can fill it.
        _check_may_be_filled(path)
        held = lock(path)
        try:
            _check_may_be_filled(path)
            fill(path)
        except BaseException:
            if held is not None:
                os.close(held)
            raise
        return cls(path, new=True, held=held)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Open the folder of an earlier run after comparing it with its audit log. Nothing is written.

        Raises:
            RunFolderError: It is no run folder, another process works in it, or it is damaged: a file is missing, or is not
                what the events say.
            PrivacyError: A ledger is missing or is not what the events say.
            ConfigError: Its config.toml is damaged.
        """
        check_kinds(path)
        return cls(path)

    def close(self) -> None:
        """Release the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def check_base(self, digest: bytes) -> None:
        """Compare a base with the one that the log names, if it names one yet.

        Raises:
            RunFolderError: They differ.
        """
        if self.history.base not in {"", digest.hex()}:
            raise RunFolderError(
                f"{self.path / BASE} is not the base that {FILE_NAME} names: restore it from a copy"
            )

    def hold_base(self, digest: bytes) -> None:
        """Name the base, which is on the disk, in the log, unless the log names it already.

        Raises:
            RunFolderError: The log names another base.
        """
        self.check_base(digest)
        if not self.history.base:
            self.log.append(LogEntry.of_run(EventKind.BASE_MADE, base=digest.hex()))

    def next_attempt(self, round_number: int) -> int:
        """Number the next attempt at a round and write it down before it begins.

        After a crash others may have the round's old keys and shares: a new attempt binds to new ones.
        """
        self._counts[round_number] += 1
        attempt = self._counts[round_number]
        path = self.path / ATTEMPTS
        drop_torn_line(path)  # it would swallow the next one; it also never opened a session
        append_line(path, attempt_line(round_number, attempt))
        self._attempts.append((round_number, attempt))
        return attempt

    def save(
        self,
        plan: Plan,
        session: Session,
        adapter: Adapter,
        record: RoundRecord,
        seconds: RoundSeconds,
        *,
        direction: bytes = b"",
    ) -> None:
        """Make a round durable, together with the digest of the plan it was run under; it counts with its last event.

        Args:
            plan: The plan of the run.
            session: The session of the round.
            adapter: The global adapter after the round.
            record: The metrics of the round.
            seconds: The timings of the round, in seconds.
            direction: State that services need to continue screening in another process; empty if none.
        """
        line = record.model_dump_json()
        append_line(self.path / METRICS, line)
        append_line(self.path / TIMINGS, seconds.model_dump_json())
        data = checkpoint_bytes(adapter, self._metadata(plan, record.round))
        write_atomic(checkpoint(self.path, record.round), data)
        if direction:
            write_atomic(direction_file(self.path, record.round), direction)
        self.log.append(*of_round(session, record, line, direction=direction))
        drop_directions(self.path, record.round - 1)

    def _metadata(self, plan: Plan, number: int) -> dict[str, str]:
        return {"round": str(number), "run": self.run_id.hex(), "plan": plan.digest.hex()}

    def load(self, plan: Plan) -> Progress:
        """Return the state after the last round that counts, after comparing all rounds. Nothing is written.

        Reads every checkpoint once.

        Raises:
            RunFolderError: A checkpoint or the metrics are damaged, or not what the events say.
        """
        records = read_metrics(self.path, self.config, self.history)
        check_checkpoints(self.path, self.config, self.history)
        timings = self._timings()
        adapter = None
        for each in self.adapters(plan):
            adapter = each
        return Progress(round=self.history.rounds, adapter=adapter, records=records, timings=timings)

    def drop_left_over(self) -> None:
        """Remove what a crash has left of the next round, in reverse order of writing.

        So a crash in here leaves what an earlier crash could have left. For a folder that was loaded.
        """
        last = self.history.rounds
        drop_directions(self.path, last - 1, last + 1)
        left = checkpoint(self.path, last + 1)
        if left.exists():
            left.unlink()
            sync_folder(left.parent)
        self._keep_lines(TIMINGS, lambda line: RoundSeconds.model_validate_json(line).round <= last)
        self._keep_lines(METRICS, lambda line: RoundRecord.model_validate_json(line).round <= last)

    def direction(self) -> bytes:
        """Return the direction kept for screening from the last round that counts; empty if none was.

        Raises:
            RunFolderError: It is missing or not what the events say.
        """
        return read_direction(self.path, self.history)

    def say_resumed(self, progress: Progress) -> None:
        """Log that another process resumes the run, from where, and what the last one left that the log does not hold.

        The first write of a process that resumes: called once everything was compared.
        """
        ledgers = check_ledgers(self.path, self.config, self.history)
        self.drop_left_over()
        grown = [
            of_spending(None, name, ledger.state())
            for name, ledger in zip((FILE, SAMPLES_FILE), ledgers, strict=True)
            if ledger is not None and len(ledger.entries) > self._entries_known(name)
        ]
        adapter = progress.adapter.digest().hex() if progress.adapter is not None else ""
        unopened = [part for each in self._attempts[len(self.history.attempts) :] for part in each]
        resumed = LogEntry.of_run(
            EventKind.RUN_RESUMED, rounds=progress.round, adapter=adapter, unopened=list(unopened)
        )
        self.log.append(*grown, resumed)

    def _entries_known(self, name: str) -> int:
        return self.history.ledgers[name].entries if name in self.history.ledgers else 0

    def adapters(self, plan: Plan) -> Iterator[Adapter]:
        """Yield the adapters after all rounds so far, oldest first.

        Raises:
            RunFolderError: A checkpoint is damaged, or not what the events say.
        """
        for number in range(1, self.history.rounds + 1):
            yield self._load_adapter(plan, number)

    def last_adapters(self, plan: Plan, count: int) -> list[Adapter]:
        """Return the adapters after the last `count` rounds, oldest first; fewer if there were fewer.

        Raises:
            RunFolderError: A checkpoint is damaged, or not what the events say.
        """
        last = self.history.rounds
        return [self._load_adapter(plan, number) for number in range(max(1, last + 1 - count), last + 1)]

    def _load_adapter(self, plan: Plan, number: int) -> Adapter:
        path = checkpoint(self.path, number)
        adapter = read_checkpoint(path, plan.layout, self._metadata(plan, number))
        if adapter.digest().hex() != self.history.adapter_after(number):
            raise RunFolderError(
                f"{path} is not the adapter that {FILE_NAME} names for round {number}: {RESTORE}"
            )
        return adapter

    def _timings(self) -> list[RoundSeconds]:
        path = self.path / TIMINGS
        found = []
        for number, line in enumerate(whole_lines(path), start=1):
            try:
                found.append(RoundSeconds.model_validate_json(line))
            except ValidationError:
                raise RunFolderError(f"{path} line {number} is damaged: {RESTORE}") from None
        return [seconds for seconds in found if seconds.round <= self.history.rounds]

    def _keep_lines(self, name: str, kept: Callable[[str], bool]) -> None:
        """Cut off lines of the next round, if a crash has left any."""
        path = self.path / name
        lines = whole_lines(path)
        data = "".join(line + "\n" for line in lines if kept(line)).encode()
        if path.exists() and data != path.read_bytes():
            write_atomic(path, data)


def _check_may_be_filled(path: Path) -> None:
    """Refuse a path that is not empty, except for what an interrupted creation left behind."""
    own = {IDENTITY, FILE_NAME, CHECKPOINTS, LOCK, BUDGETS} | {
        f".{name}.tmp" for name in (IDENTITY, FILE_NAME, CONFIG, BUDGETS)
    }
    if not path.is_dir() or not all(entry.name in own for entry in path.iterdir()):
        raise RunFolderError(
            f"out={path} must not exist or be empty; 'rbla-secure resume {path}' goes on with a run"
        )
