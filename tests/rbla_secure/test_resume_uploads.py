"""In the clear a round has two entries, of uploads and of sums: a folder is taken as a crash between any two writes leaves it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rbla_secure.cli import main
from rbla_secure.privacy.ledger import FILE
from rbla_secure.privacy.sample_ledger import FILE as SAMPLES_FILE
from tests.support.folder_edits import entries as in_ledger
from tests.support.folder_edits import last_entry
from tests.support.refused_edits import leave_abort, leave_result
from tests.support.run_folders import die_before_the_log_of, keep_entries, snapshot
from tests.support.tiny_job import job, write_images

NOISY = {
    "noise_multiplier": 4,
    "privacy__colluders": 0,
    "dropout_rate": 0.1,
    "sample_level__noise_multiplier": 1.0,
    "training__steps": 2,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """By secure sum: a finished run of four rounds with noise at both levels, every file of it."""
    made = {}
    for mode in ("plain", "masking"):
        folder = tmp_path_factory.mktemp(mode)
        keys = job(write_images(folder), rounds=4, secure_sum=mode, **NOISY)
        assert main(["run", "--out", str(folder / "run"), *keys]) == 0
        made[mode] = snapshot(folder / "run")
    return made


def restored(tmp_path: Path, contents: dict[str, bytes]) -> Path:
    """The folder, anew."""
    for name, data in contents.items():
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "run"


def killed_at(ledger: str, entry: int = 0) -> Callable[[Path], None]:
    return lambda folder: die_before_the_log_of(folder, ledger, 3, entry=entry)


def entries(folder: Path) -> list[tuple[int, int, str]]:
    found = json.loads((folder / FILE).read_text())["entries"]
    return [(each["round"], each["attempt"], each["shown"]) for each in found]


@pytest.mark.parametrize(
    ("crash", "left"),
    [
        (killed_at(FILE, 0), ["uploads"]),
        (killed_at(SAMPLES_FILE), ["uploads"]),
        (killed_at(FILE, 1), ["uploads", "sums"]),
    ],
    ids=["uploads", "training", "sums"],
)
def test_a_run_goes_on_from_between_any_two_entries(
    tmp_path: Path, runs: dict[str, dict[str, bytes]], crash: Callable[[Path], None], left: list[str]
) -> None:
    """What was written counts, and the attempt after it has entries of its own, of both kinds."""
    folder = restored(tmp_path, runs["plain"])
    crash(folder)

    assert main(["resume", str(folder)]) == 0

    both = ["uploads", "sums"]
    attempts: dict[tuple[int, int], list[str]] = {
        (1, 1): both,
        (2, 1): both,
        (3, 1): left,
        (3, 2): both,
        (4, 2): both,
    }
    assert entries(folder) == [(*attempt, shown) for attempt, kinds in attempts.items() for shown in kinds]


def as_kind(kind: str) -> Callable[[Path], object]:
    return last_entry(FILE, lambda entry: entry.update(shown=kind))


def with_line(folder: Path) -> None:
    """The entry of the sums is gone from ledger and log, and the result of the round is there."""
    killed_at(FILE, 1)(folder)
    keep_entries(folder / FILE, 5)
    leave_result(folder)


def aborted_early(folder: Path) -> None:
    """No entry of the round at all, and the line of an abort: in the clear uploads come before any."""
    killed_at(FILE, 0)(folder)
    keep_entries(folder / FILE, 4)
    leave_abort(folder)


LIES: dict[str, tuple[str, list[Callable[[Path], Any]], str]] = {
    "sums before uploads": (
        "plain",
        [killed_at(FILE, 0), as_kind("sums")],
        "the entry of privacy.json that comes before it is not either",
    ),
    "uploads twice": (
        "plain",
        [killed_at(FILE, 1), as_kind("uploads")],
        "attempt 1 at round 3 has one of its uploads already",
    ),
    "sums without training": (
        "plain",
        [
            killed_at(SAMPLES_FILE),
            lambda folder: keep_entries(folder / SAMPLES_FILE, 2),
            in_ledger(FILE, lambda found: found.append({**found[-1], "shown": "sums"})),
        ],
        "the entry of privacy-samples.json that comes before it is not either",
    ),
    "of a part of those that are asked": (
        "plain",
        [killed_at(FILE, 0), last_entry(FILE, lambda entry: entry["clients"].pop())],
        "names 9 clients where it takes 10",
    ),
    "uploads behind masks": (
        "masking",
        [killed_at(FILE, 0), as_kind("uploads")],
        "counts uploads, of which its session has no entry",
    ),
    "other figures of uploads": (
        "plain",
        [killed_at(FILE, 0), last_entry(FILE, lambda entry: entry["server"].update(noise_multiplier=9.0))],
        "has other figures or clients",
    ),
    "a result of sums that nothing counts": (
        "plain",
        [with_line],
        "metrics.jsonl line 3 tells of a round whose entry of privacy.json is not in events.jsonl",
    ),
    "an abort of uploads that nothing counts": (
        "plain",
        [aborted_early],
        "metrics.jsonl line 3 tells of a round whose entry of privacy.json is not in events.jsonl",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_what_no_crash_leaves_is_refused(
    tmp_path: Path, runs: dict[str, dict[str, bytes]], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """By file name and reason, and nothing is written."""
    mode, edits, words = LIES[name]
    folder = restored(tmp_path, runs[mode])
    for edit in edits:
        edit(folder)
    before = snapshot(folder)
    capsys.readouterr()

    assert main(["resume", str(folder)]) == 1

    assert words in capsys.readouterr().err
    assert snapshot(folder) == before
