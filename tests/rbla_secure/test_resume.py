"""A run that is killed at any moment and resumed ends in the same bytes as one that was left alone."""

import json
import multiprocessing
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rbla_secure.cli import main
from rbla_secure.run_folder.audit_log import EventKind, read_events
from tests.support.run_folders import die_before_the_end_of, go_back_to
from tests.support.tiny_job import (
    adapter_sha256,
    die_after_write,
    die_at_sync,
    files,
    job,
    start,
    write_images,
)

ROUNDS = 4


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set."""
    return write_images(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def arguments(images: Path) -> list[str]:
    """A masked run with drop-outs, so that kills meet injected faults."""
    return job(images, rounds=ROUNDS, dropout_rate=0.1)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, arguments: list[str]) -> Path:
    """The same run, left alone."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    assert main(["run", "--out", str(folder), *arguments]) == 0
    return folder


def checkpoints(folder: Path) -> int:
    return len(list((folder / "checkpoints").glob("round-*.safetensors")))


def begun(folder: Path, arguments: list[str]) -> None:
    """Go on with what is there: resume a run, or begin it anew when the kill came before its folder."""
    command = ["resume", str(folder)] if folder.exists() else ["run", "--out", str(folder), *arguments]
    assert main(command) == 0


def check_same(folder: Path, reference: Path) -> None:
    assert adapter_sha256(folder) == adapter_sha256(reference)
    assert (folder / "metrics.jsonl").read_bytes() == (reference / "metrics.jsonl").read_bytes()
    assert files(folder) == files(reference)
    assert checkpoints(folder) == ROUNDS
    check_events(folder)


def check_events(folder: Path) -> None:
    """One chain from the creation to the end, in which no session, interruption or finished round is missing."""
    events = read_events(folder / "events.jsonl")

    def attempts(kind: EventKind) -> list[tuple[int | None, int | None]]:
        return [(event.round, event.attempt) for event in events if event.kind is kind]

    opened, resumed = attempts(EventKind.SESSION_OPENED), attempts(EventKind.RUN_RESUMED)
    numbered = [json.loads(line) for line in (folder / "attempts.jsonl").read_text().splitlines()]
    assert (events[0].kind, events[-1].kind) == (EventKind.RUN_CREATED, EventKind.RUN_FINISHED)
    assert attempts(EventKind.RUN_CREATED) == [(None, None)]
    # An attempt may be numbered whose session was never opened, for a kill came between.
    assert set(opened) <= {(line["round"], line["attempt"]) for line in numbered}
    assert len(set(opened)) == len(opened) >= ROUNDS
    assert resumed or len(opened) == ROUNDS
    assert set(attempts(EventKind.DROPPED) + attempts(EventKind.ROUND_FINISHED)) <= set(opened)
    # A round whose event a kill has cost is counted by the process that went on.
    counted = {event.details["rounds"] for event in events if event.kind is EventKind.RUN_RESUMED}
    assert {number for number, _ in attempts(EventKind.ROUND_FINISHED)} | counted >= set(range(1, ROUNDS + 1))
    assert events[-1].details == {"rounds": ROUNDS, "adapter_file": adapter_sha256(folder)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [
        lambda folder: folder.exists(),
        lambda folder: (folder / "metrics.jsonl").exists(),
        lambda folder: checkpoints(folder) >= 2,
    ],
    ids=["folder", "first metrics", "second checkpoint"],
)
def test_a_process_that_is_killed_goes_on(
    tmp_path: Path, arguments: list[str], reference: Path, moment: Callable[[Path], bool]
) -> None:
    """Killed from outside as soon as something shows on the disk, the run goes on to the same end."""
    folder = tmp_path / "run"
    process = start("run", "--out", str(folder), *arguments)
    while not moment(folder) and process.poll() is None:
        time.sleep(0.001)

    process.kill()
    process.wait()
    begun(folder, arguments)

    check_same(folder, reference)


# A run of four rounds flushes 61 times: 8 for the new folder, 6 for the base and 1 for its event, 3 and 2 for the attempts at
# rounds 1 and 2 with their events, 7 for round 1 (2 each for the files of metrics and timings, which are new, 2 for its
# checkpoint, 1 for its event) and 5 for every other, after each but the last two 2 for the attempt at the round after the
# next, stages in which somebody dropped out, 8 for the result and 1 for the last event.
@pytest.mark.slow
@pytest.mark.parametrize(
    "sync",
    [1, 3, 5, 7, 8, 9, 10, *range(13, 21), 22, 23, 24, 25, 27, 28, 29, 30, 31, 34, 36, 38, 52, 53, 60, 61],
)
def test_a_kill_at_a_flush_costs_nothing(
    tmp_path: Path, arguments: list[str], reference: Path, sync: int
) -> None:
    """Killed just before any one flush to the disk, the run goes on to the same end."""
    folder = tmp_path / "run"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rbla_secure.job", "tests.support.tiny_job"])
    process = context.Process(target=die_at_sync, args=(sync, ["run", "--out", str(folder), *arguments]))
    process.start()
    process.join()

    begun(folder, arguments)

    assert process.exitcode == -signal.SIGKILL
    check_same(folder, reference)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.fixture(scope="module")
def noisy(images: Path) -> list[str]:
    """A run of two rounds with noise at both levels, so that both ledgers are written."""
    noise = {
        "noise_multiplier": 4,
        "privacy__colluders": 0,
        "training__steps": 3,
        "sample_level__noise_multiplier": 2,
        "sample_level__sample_rate": 0.2,
    }
    return job(images, rounds=2, **noise)


# The session of round 2, each ledger of round 1 with its event, and the event that ends the round.
@pytest.mark.parametrize("sync", [20, *range(21, 27), 33])
def test_a_kill_around_a_ledger_forgets_nothing(
    tmp_path: Path, noisy: list[str], sync: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed just before any one flush, and again while it resumes, a run with ledgers goes on, and every entry stays."""
    folder = tmp_path / "run"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rbla_secure.job", "tests.support.tiny_job"])
    kept: list[int] = []
    for number, command in ((sync, ["run", "--out", str(folder), *noisy]), (3, ["resume", str(folder)])):
        process = context.Process(target=die_at_sync, args=(number, command))
        process.start()
        process.join()
        kept.append(entries_of(folder))

    assert main(["resume", str(folder)]) == 0

    kept.append(entries_of(folder))
    assert process.exitcode == -signal.SIGKILL
    assert kept == sorted(kept)
    assert kept[-1] >= 4
    spent = [e.details for e in read_events(folder / "events.jsonl") if e.kind is EventKind.PRIVACY_SPENT]
    assert len(spent) == kept[-1]
    assert main(["account", str(folder)]) == 0
    assert "privacy spent in" in capsys.readouterr().out


def entries_of(folder: Path) -> int:
    """How many entries both ledgers have."""
    ledgers = [folder / name for name in ("privacy.json", "privacy-samples.json")]
    return sum(len(json.loads(path.read_bytes())["entries"]) for path in ledgers if path.exists())


def killed(target: Callable[..., None], *arguments: object) -> int | None:
    """The exit code of a process that is to be killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rbla_secure.job", "tests.support.tiny_job"])
    process = context.Process(target=target, args=arguments)
    process.start()
    process.join()
    return process.exitcode


# Every file that is written before the log is told of it, at its first, a middle and its last time.
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks the system for the names of open files")
@pytest.mark.parametrize(
    ("name", "number"),
    [
        *[("attempts.jsonl", number) for number in (1, 2, 3, 4)],
        *[("metrics.jsonl", number) for number in (1, 3, 4)],
        *[("timings.jsonl", number) for number in (1, 3, 4)],
        *[(f"round-{number:04d}.safetensors", 1) for number in (1, 3, 4)],
        ("base", 1),
        ("adapter", 1),
    ],
)
def test_a_kill_after_a_write_costs_nothing(
    tmp_path: Path, arguments: list[str], reference: Path, name: str, number: int
) -> None:
    """Killed between the file and the log's line, a run is taken for what it is and goes on to the same end."""
    folder = tmp_path / "run"

    code = killed(die_after_write, name, number, ["run", "--out", str(folder), *arguments])
    begun(folder, arguments)

    assert code == -signal.SIGKILL
    check_same(folder, reference)


# The checkpoint that was left and the folder it was in, timings and metrics with theirs, and the log.
@pytest.mark.parametrize("sync", range(1, 8))
def test_a_kill_while_what_is_left_is_taken_away_costs_nothing(
    tmp_path: Path, reference: Path, sync: int
) -> None:
    """What is left of the leavings is what a first crash could have left."""
    folder = tmp_path / "run"
    shutil.copytree(reference, folder)
    die_before_the_end_of(folder, 3)

    code = killed(die_at_sync, sync, ["resume", str(folder)])
    begun(folder, [])

    assert code == -signal.SIGKILL
    check_same(folder, reference)


@pytest.fixture(scope="module")
def simulated(images: Path) -> list[str]:
    """A run of three rounds with noise at both levels that follows from the seed, so that runs can be compared."""
    noise = {
        "noise_multiplier": 4,
        "privacy__colluders": 0,
        "privacy__simulation": "true",
        "training__steps": 3,
        "sample_level__noise_multiplier": 2,
        "sample_level__sample_rate": 0.2,
    }
    return job(images, rounds=3, **noise)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, simulated: list[str]) -> Path:
    """The same run, left alone."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert main(["run", "--out", str(folder), *simulated]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks the system for the names of open files")
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("name", ["privacy.json", "privacy-samples.json"])
def test_a_kill_after_a_ledger_is_written_costs_an_attempt(
    tmp_path: Path, simulated: list[str], undisturbed: Path, name: str, number: int
) -> None:
    """The entry that the log does not hold is the one that its session was about to spend: it counts, and the run goes on."""
    folder = tmp_path / "run"

    code = killed(die_after_write, name, number, ["run", "--out", str(folder), *simulated])
    left = json.loads((folder / name).read_bytes())["entries"]
    assert main(["account", str(folder)]) == 0
    assert main(["resume", str(folder)]) == 0

    found = json.loads((folder / name).read_bytes())["entries"]
    assert code == -signal.SIGKILL
    assert [len(left), len(found)] == [number, 4]
    assert found[:number] == left
    assert [(entry["round"], entry["attempt"]) for entry in found[number - 1 : number + 1]] == [
        (number, 1),
        (number, 2),
    ]
    assert (folder / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
    assert adapter_sha256(folder) == adapter_sha256(undisturbed)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_arrives(
    tmp_path: Path, arguments: list[str], reference: Path
) -> None:
    """Every attempt gets a little further, by a round of its own, and the end is the same."""
    folder = tmp_path / "run"
    context = multiprocessing.get_context("forkserver")
    kills = 0

    for _ in range(20):
        command = ["resume", str(folder)] if folder.exists() else ["run", "--out", str(folder), *arguments]
        process = context.Process(target=die_at_sync, args=(22, command))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        kills += 1

    assert process.exitcode == 0
    assert kills > 2
    check_same(folder, reference)


class CrashError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("number", [1, 3, ROUNDS])
def test_a_crash_between_metrics_and_checkpoint_costs_one_round(
    tmp_path: Path, arguments: list[str], reference: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The line that was written too early is cut away and written again, once."""
    folder = tmp_path / "run"

    def crash(path: Path, data: bytes) -> None:
        if path.name == f"round-{number:04d}.safetensors":
            raise CrashError
        path.write_bytes(data)

    with monkeypatch.context() as patch:
        patch.setattr("rbla_secure.run_folder.folder.write_atomic", crash)
        with pytest.raises(CrashError):
            main(["run", "--out", str(folder), *arguments])
    too_many = (folder / "metrics.jsonl").read_text().splitlines()
    begun(folder, arguments)

    assert len(too_many) == number
    check_same(folder, reference)


@pytest.mark.parametrize("number", range(1, ROUNDS + 1))
@pytest.mark.parametrize("leave", [die_before_the_end_of, go_back_to])
def test_from_the_end_of_any_round_the_run_goes_on(
    tmp_path: Path, reference: Path, number: int, leave: Callable[[Path, int], None]
) -> None:
    """Killed just before or just after the log is told of a round's end, with its line and checkpoint on the disk."""
    folder = tmp_path / "run"
    shutil.copytree(reference, folder)
    leave(folder, number)

    begun(folder, [])

    check_same(folder, reference)


def test_a_result_that_is_lost_is_made_again(tmp_path: Path, reference: Path) -> None:
    """A finished run whose adapter folder went missing writes it once more."""
    folder = tmp_path / "run"
    shutil.copytree(reference, folder)
    shutil.rmtree(folder / "adapter")

    begun(folder, [])

    check_same(folder, reference)
