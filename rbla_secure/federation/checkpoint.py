"""The run folder: what a killed run needs to go on as if nothing had happened.

    config.toml           the configuration, written before anything else
    run.json              identity of the run
    attempts.jsonl        one line per attempt at a round, written before its session opens
    events.jsonl          what happened, each line bound to the one before it (`audit_log.py`)
    metrics.jsonl         one line per finished round, the same in every repetition
    timings.jsonl         seconds per round
    checkpoints/          round-0007.safetensors: the global adapter after round 7
    base/  adapter/       the frozen base; the result in PEFT's format

A round counts when its checkpoint has its final name. Metrics are written before it, so that a crash between the two
leaves a line too many, which :func:`RunFolder.load` cuts away, and never one too few.
"""

import json
import os
import re
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, final

import numpy as np
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_tensors

from protocols.session import RUN_ID_SIZE
from rbla_secure.config import Config, load_config
from rbla_secure.durable import append_line, replace_folder, whole_lines, write_atomic
from rbla_secure.errors import AdapterError, RunFolderError
from rbla_secure.federation.audit_log import FILE_NAME, AuditLog, Entry, EventKind
from rbla_secure.federation.plan import Plan
from rbla_secure.federation.records import RoundRecord, RoundSeconds
from rbla_secure.lora.adapter import Adapter

if sys.platform != "win32":
    import fcntl

_CHECKPOINT_NAME = re.compile(r"round-(\d{4,9})\.safetensors")
_Line = TypeVar("_Line", bound=BaseModel)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run has come: round 0 and no adapter before the first checkpoint."""

    round: int
    adapter: Adapter | None
    records: list[RoundRecord]
    timings: list[RoundSeconds]


@final
class RunFolder:
    """One run's folder, held by one process at a time.

    Attributes:
        log: Its audit log.
        new: Whether this process has made the folder.
    """

    def __init__(self, path: Path, *, new: bool = False) -> None:
        self.path = path
        self.new = new
        self.config = load_config(path / "config.toml")
        self.run_id = _read_run_id(path / "run.json")
        self._lock = _lock(path / "lock")
        try:
            self.log = AuditLog(path / FILE_NAME)
        except (RunFolderError, OSError):
            self.close()
            raise

    @classmethod
    def create(cls, path: Path, config: Config) -> "RunFolder":
        """A new folder, which has its configuration from the moment it exists; an empty one is filled in place.

        Raises:
            RunFolderError: Something is there already.
            OSError: The folder cannot be written.
        """
        if path.exists() and (not path.is_dir() or not _may_be_filled(path)):
            raise RunFolderError(
                f"out={path} must not exist or be empty; 'rbla-secure resume {path}' goes on with a run"
            )

        def fill(folder: Path) -> None:
            run = secrets.token_hex(RUN_ID_SIZE)
            write_atomic(folder / "run.json", json.dumps({"run": run}).encode())
            created = Entry.of_run(EventKind.RUN_CREATED, run=run, config=config.digest().hex())
            AuditLog.create(folder / FILE_NAME, created)
            (folder / "checkpoints").mkdir(exist_ok=True)
            write_atomic(folder / "config.toml", config.to_toml().encode())

        if path.exists():
            fill(path)  # empty, and maybe somebody's working folder: it is not replaced
        else:
            replace_folder(path.resolve(), fill)
        return cls(path, new=True)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """The folder of an earlier run.

        Raises:
            RunFolderError: It is no run folder, is damaged, its events were changed, or another process works in it.
            ConfigError: Its config.toml is damaged.
        """
        if not (path / "config.toml").is_file():
            raise RunFolderError(f"{path} is no run folder: config.toml is missing")
        return cls(path)

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def next_attempt(self, round_number: int) -> int:
        """Number the next attempt at a round and write it down before it begins.

        After a crash the round's old keys and shares may be in somebody's hands: a new attempt binds to new ones.
        """
        path = self.path / "attempts.jsonl"
        # A torn last line would swallow the next one; it also never opened a session.
        lines = whole_lines(path)
        write_atomic(path, "".join(line + "\n" for line in lines).encode())
        earlier = [line for line in map(self._decode_attempt, lines) if line.get("round") == round_number]
        attempt = len(earlier) + 1
        append_line(path, json.dumps({"round": round_number, "attempt": attempt}))
        return attempt

    def _decode_attempt(self, line: str) -> dict[str, object]:
        if not (found := _decode_json(line)):
            raise RunFolderError(
                f"{self.path / 'attempts.jsonl'} is damaged: attempts could be numbered twice"
            )
        return found

    def save(self, plan: Plan, adapter: Adapter, record: RoundRecord, seconds: RoundSeconds) -> None:
        """Make a finished round durable, together with the digest of the plan it was run under."""
        append_line(self.path / "metrics.jsonl", record.model_dump_json())
        append_line(self.path / "timings.jsonl", seconds.model_dump_json())
        metadata = {
            "round": str(record.round),
            "run": self.run_id.hex(),
            "plan": plan.digest.hex(),
        }
        data = save_tensors({"rows": np.ascontiguousarray(adapter.rows)}, metadata=metadata)
        write_atomic(self._checkpoint(record.round), data)

    def load(self, plan: Plan) -> Progress:
        """The last finished round; lines of later rounds are cut away.

        Raises:
            RunFolderError: The checkpoint or the metrics are damaged; nothing is changed.
        """
        last = max(self._rounds(), default=0)
        adapter = self._load_adapter(plan, last) if last else None
        records = self._lines("metrics.jsonl", RoundRecord, last)
        timings = self._lines("timings.jsonl", RoundSeconds, last)
        if [record.round for record in records] != list(range(1, last + 1)):
            raise RunFolderError(
                f"{self.path}/metrics.jsonl must have one line for each of the rounds 1..{last}"
            )
        if adapter is not None and records[-1].adapter != adapter.digest().hex():
            raise RunFolderError(
                f"{self._checkpoint(last)} is not the adapter that metrics.jsonl names; "
                "delete it to go on from the round before"
            )
        self._rewrite("metrics.jsonl", records)
        self._rewrite("timings.jsonl", timings)
        return Progress(round=last, adapter=adapter, records=records, timings=timings)

    def adapters(self, plan: Plan) -> Iterator[Adapter]:
        """The adapters after all rounds so far, oldest first.

        Raises:
            RunFolderError: A checkpoint is damaged.
        """
        for number in sorted(self._rounds()):
            yield self._load_adapter(plan, number)

    def last_adapters(self, plan: Plan, count: int) -> list[Adapter]:
        """The adapters after the last rounds, oldest first; fewer where there were fewer.

        Raises:
            RunFolderError: A checkpoint is damaged.
        """
        return [self._load_adapter(plan, number) for number in sorted(self._rounds())[-count:]]

    def _rounds(self) -> list[int]:
        """The rounds whose checkpoints have their final names; other files are passed over."""
        names = (path.name for path in (self.path / "checkpoints").iterdir())
        return [int(match.group(1)) for match in map(_CHECKPOINT_NAME.fullmatch, names) if match]

    def _checkpoint(self, round_number: int) -> Path:
        return self.path / "checkpoints" / f"round-{round_number:04d}.safetensors"

    def _load_adapter(self, plan: Plan, round_number: int) -> Adapter:
        path = self._checkpoint(round_number)
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                adapter = Adapter(layout=plan.layout, rows=np.array(file.get_tensor("rows")))
        except (SafetensorError, AdapterError) as error:
            raise RunFolderError(
                f"{path} is damaged ({error}); delete it to go on from the round before"
            ) from None
        if (metadata.get("run"), metadata.get("plan")) != (self.run_id.hex(), plan.digest.hex()):
            raise RunFolderError(
                f"{path} was written under another plan: config.toml, run.json or base/ has changed since: restore it; "
                "if it was not, delete it to go on from the round before"
            )
        return adapter

    def _lines(self, name: str, kind: type[_Line], last: int) -> list[_Line]:
        found = []
        for number, line in enumerate(whole_lines(self.path / name), start=1):
            try:
                record = kind.model_validate_json(line)
            except ValidationError:
                raise RunFolderError(f"{self.path / name} line {number} is damaged") from None
            if record.round <= last:  # type: ignore[attr-defined]
                found.append(record)
        return found

    def _rewrite(self, name: str, records: list[_Line]) -> None:
        write_atomic(self.path / name, "".join(r.model_dump_json() + "\n" for r in records).encode())


def _may_be_filled(path: Path) -> bool:
    """Whether a folder is empty, or holds only what a creation that was cut short left behind."""
    own = {"run.json", ".run.json.tmp", FILE_NAME, f".{FILE_NAME}.tmp", ".config.toml.tmp", "checkpoints"}
    return all(entry.name in own for entry in path.iterdir())


def _decode_json(line: str) -> dict[str, object]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _read_run_id(path: Path) -> bytes:
    try:
        run_id = bytes.fromhex(str(_decode_json(path.read_text(encoding="utf-8"))["run"]))
    except (OSError, KeyError, ValueError):
        raise RunFolderError(f"{path} is missing or damaged") from None
    if len(run_id) != RUN_ID_SIZE:
        raise RunFolderError(f"{path}: the run's identity must have {RUN_ID_SIZE} bytes")
    return run_id


def _lock(path: Path) -> int | None:
    """Hold the folder until the process ends; the operating system lets go of it even after a kill."""
    if sys.platform == "win32":
        return None  # no such lock there: two processes on one folder go unnoticed
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise RunFolderError(f"{path.parent} is in use by another process") from None
    return descriptor
