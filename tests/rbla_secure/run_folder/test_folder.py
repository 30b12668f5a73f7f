"""The run folder: what is durable comes back, what is damaged is refused by name, and nothing is lost on the way."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from rbla_secure.config import Config
from rbla_secure.errors import ConfigError, RblaSecureError, RunFolderError
from rbla_secure.lora.adapter import Adapter
from rbla_secure.run_folder.audit_log import Entry, EventKind, read_events
from rbla_secure.run_folder.folder import RunFolder
from tests.support.federations import make_adapter, make_config, make_plan, make_session
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
    folder.log.append(Entry.of_session(session, EventKind.SESSION_OPENED))
    if upcoming:
        following = make_session(
            PLAN,
            run=folder.run_id,
            round_number=number + 1,
            attempt=folder.next_attempt(number + 1),
        )
        folder.log.append(Entry.of_session(following, EventKind.SESSION_OPENED))
    folder.save(PLAN, session, adapter, record, make_seconds(round=number))


class CrashError(Exception):
    """Stands for the end of the process."""


def die_before_the_event(folder: RunFolder, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round whose line and checkpoint are on the disk, and whose end the log was not told of any more."""

    def crash(*_arguments: object, **_kept: object) -> Iterator[Entry]:
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr("rbla_secure.run_folder.folder.of_round", crash)
        with pytest.raises(CrashError):
            save_round(folder, number, upcoming=True)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    """A run folder with three rounds."""
    made = RunFolder.create(tmp_path / "run", make_config(rounds=20_000))
    for number in (1, 2, 3):
        save_round(made, number)
    yield made
    made.close()


def checkpoint(folder: RunFolder, number: int) -> Path:
    return folder.path / "checkpoints" / f"round-{number:04d}.safetensors"


def snapshot(folder: RunFolder) -> dict[str, bytes]:
    """Every file and its bytes."""
    return {str(path): path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}


def test_a_new_folder_is_whole(tmp_path: Path) -> None:
    """A folder has its configuration and its identity from the beginning, and no progress."""
    config = make_config(seed=5)

    made = RunFolder.create(tmp_path / "deep" / "run", config)

    assert made.config == config
    assert len(made.run_id) == 16
    progress = made.load(PLAN)
    assert (progress.round, progress.adapter, progress.records, progress.timings) == (0, None, [], [])


def test_every_run_has_its_own_identity(tmp_path: Path) -> None:
    """Two runs of one configuration are told apart, and one keeps its identity when opened again."""
    first, second = (RunFolder.create(tmp_path / name, make_config()) for name in ("a", "b"))
    first.close()

    again = RunFolder.open(tmp_path / "a")

    assert first.run_id == again.run_id != second.run_id


def test_the_last_round_comes_back(folder: RunFolder) -> None:
    """Adapter, metrics and timings are those of the last round that was saved."""
    progress = folder.load(PLAN)

    assert progress.round == 3
    assert progress.adapter is not None
    assert progress.adapter.to_bytes() == adapter_after(3).to_bytes()
    assert [record.round for record in progress.records] == [1, 2, 3]
    assert [line.round for line in progress.timings] == [1, 2, 3]


def test_the_adapters_of_all_rounds_are_there_in_order(folder: RunFolder) -> None:
    """Oldest first; and the last ones alone."""
    everything = list(folder.adapters(PLAN))
    last = folder.last_adapters(PLAN, 2)

    assert [each.digest() for each in everything] == [adapter_after(number).digest() for number in (1, 2, 3)]
    assert [each.digest() for each in last] == [adapter_after(number).digest() for number in (2, 3)]
    assert len(folder.last_adapters(PLAN, 5)) == 3


def test_a_new_run_has_no_adapters(tmp_path: Path) -> None:
    """Neither all nor the last."""
    made = RunFolder.create(tmp_path / "run", make_config(rounds=20_000))

    found = [*made.adapters(PLAN), *made.last_adapters(PLAN, 3)]

    made.close()
    assert found == []


def test_loading_changes_nothing(folder: RunFolder) -> None:
    """A folder in order is left as it is to the byte."""
    before = snapshot(folder)

    folder.load(PLAN)

    assert snapshot(folder) == before


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3"])
def test_a_checkpoint_of_numbers_that_numpy_has_not_is_refused(folder: RunFolder, kind: str) -> None:
    """By file name, as any damaged one."""
    path = folder.path / "checkpoints" / "round-0001.safetensors"
    size = 2 if kind == "BF16" else 1
    header = json.dumps({"rows": {"dtype": kind, "shape": [1, 1], "data_offsets": [0, size]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))

    with pytest.raises(RunFolderError, match=r"round-0001\.safetensors is damaged"):
        folder.load(PLAN)


def test_a_folder_whose_files_have_a_second_name_is_refused(folder: RunFolder, tmp_path: Path) -> None:
    """A copy by hard links is the same files: going on with one would write the other, and lose it."""
    before, copy = snapshot(folder), tmp_path / "copy"
    folder.close()
    shutil.copytree(folder.path, copy, copy_function=os.link)

    for path in (folder.path, copy):
        with pytest.raises(RunFolderError, match=r"has 2 names \(hard links\)"):
            RunFolder.open(path)

    shutil.rmtree(copy)
    again = RunFolder.open(folder.path)
    assert snapshot(again) == before
    again.close()


def identity_of(folder: RunFolder) -> dict[str, str]:
    """What a checkpoint says of the run and the plan it belongs to."""
    return {"run": folder.run_id.hex(), "plan": PLAN.digest.hex()}


def test_a_checkpoint_of_another_plan_is_refused(folder: RunFolder) -> None:
    """Whoever changes config.toml or base/ between two sessions is told so, and nothing is trained on."""
    other = make_plan(seed=PLAN.config.seed + 1)
    before = snapshot(folder)

    with pytest.raises(RunFolderError, match="another plan"):
        folder.load(other)

    assert snapshot(folder) == before


def test_a_round_beyond_four_digits_is_the_last(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds are compared as numbers and not as names."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    for number in range(4, 10001):
        save_round(folder, number)
    folder.close()

    again = RunFolder.open(folder.path)
    progress = again.load(PLAN)
    again.close()

    assert progress.round == 10000
    assert progress.adapter is not None
    assert progress.adapter.digest() == adapter_after(10000).digest()


@pytest.mark.parametrize("content", ["file", "folder", ".hidden"])
def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path, content: str) -> None:
    """A run never writes over what somebody else put there."""
    path = tmp_path / "run"
    path.mkdir()
    (path / content).write_text("mine")

    with pytest.raises(RunFolderError, match=r"must not exist or be empty; 'rbla-secure resume .*run'"):
        RunFolder.create(path, make_config())

    assert [each.name for each in path.iterdir()] == [content]
    assert (path / content).read_text() == "mine"


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    """A file of that name stays."""
    path = tmp_path / "run"
    path.write_text("mine")

    with pytest.raises(RunFolderError, match="must not exist or be empty"):
        RunFolder.create(path, make_config())

    assert path.read_text() == "mine"


def test_a_run_is_not_begun_over_another_one(folder: RunFolder) -> None:
    """The folder of a run is refused for a new one."""
    before = snapshot(folder)

    with pytest.raises(RunFolderError, match="must not exist or be empty"):
        RunFolder.create(folder.path, make_config())

    assert snapshot(folder) == before


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    """A folder made beforehand is as good as none."""
    path = tmp_path / "run"
    path.mkdir()

    made = RunFolder.create(path, make_config())

    assert made.config == make_config()


@pytest.mark.parametrize("flush", range(1, 7))
def test_a_crash_while_an_empty_folder_is_filled_does_not_block_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush: int
) -> None:
    """After a kill before the first round, the same command or a resume goes on without cleaning up by hand."""
    path = tmp_path / "run"
    path.mkdir()
    left = flush

    def crash(_descriptor: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", crash)
        with pytest.raises(CrashError):
            RunFolder.create(path, make_config())

    made = RunFolder.open(path) if (path / "config.toml").exists() else RunFolder.create(path, make_config())

    assert made.config == make_config()
    (created,) = read_events(path / "events.jsonl")
    assert created.details == {"run": made.run_id.hex(), "config": made.config.digest().hex()}


def test_a_log_that_was_tampered_with_is_refused_and_lets_go_of_the_folder(folder: RunFolder) -> None:
    """A changed line of events.jsonl is named when the folder is opened; put right, the folder opens in the same process."""
    folder.log.append(Entry.of_run(EventKind.STEP_CHECKED, reason="scaled"))
    folder.close()
    path = folder.path / "events.jsonl"
    good = path.read_bytes()
    path.write_bytes(good.replace(b"session-opened", b"dropped", 1))

    with pytest.raises(RunFolderError, match=r"events\.jsonl line 3: it does not follow the line before it"):
        RunFolder.open(folder.path)
    path.write_bytes(good)

    RunFolder.open(folder.path).close()


def test_a_folder_without_its_log_is_refused(folder: RunFolder) -> None:
    """Events that are gone are missed."""
    folder.close()
    (folder.path / "events.jsonl").unlink()

    with pytest.raises(RunFolderError, match=r"events\.jsonl is missing"):
        RunFolder.open(folder.path)


def test_a_folder_knows_whether_it_is_new(folder: RunFolder) -> None:
    """Made by this process, or opened again."""
    folder.close()

    again = RunFolder.open(folder.path)

    assert (folder.new, again.new) == (True, False)
    again.close()


def test_the_working_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder can be the run folder."""
    monkeypatch.chdir(tmp_path)

    made = RunFolder.create(Path(), make_config())

    assert made.config == make_config()


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_what_is_no_run_folder_is_refused(tmp_path: Path, kind: str) -> None:
    """Without config.toml there is no run."""
    path = tmp_path / "run"
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("text")

    with pytest.raises(RunFolderError, match=r"is no run folder: config\.toml is missing"):
        RunFolder.open(path)


def damage(folder: RunFolder, name: str, content: bytes | None) -> None:
    path = folder.path / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.mark.parametrize("content", [b"rounds = ", b"rounds = 0\n", b"roundz = 3\n", b"\xff\xfe"])
def test_a_damaged_configuration_is_refused(folder: RunFolder, content: bytes) -> None:
    """A configuration that cannot be read is named."""
    folder.close()
    damage(folder, "config.toml", content)

    with pytest.raises(ConfigError):
        RunFolder.open(folder.path)


def test_a_missing_configuration_is_refused(folder: RunFolder) -> None:
    """Without it the folder is none of ours."""
    folder.close()
    damage(folder, "config.toml", None)

    with pytest.raises(RunFolderError, match=r"config\.toml"):
        RunFolder.open(folder.path)


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"walk": "00"}',
        b'{"run": 5}',
        b'{"run": null}',
        b'{"run": "xyz"}',
        b'{"run": "00"}',
        b'{"run": "' + b"00" * 17 + b'"}',
        b'{"run":"' + b"00" * 16 + b'"}',
        b'{"run": "' + b"00" * 16 + b'"}\n',
        b'{"run": "' + b"AA" * 16 + b'"}',
        b'{"run": "11", "run": "' + b"00" * 16 + b'"}',
    ],
)
def test_a_damaged_identity_is_refused(folder: RunFolder, content: bytes | None) -> None:
    """A run whose identity is missing, malformed or of another length is named and not given a new one."""
    folder.close()
    damage(folder, "run.json", content)

    with pytest.raises(RunFolderError, match=r"run\.json"):
        RunFolder.open(folder.path)


def test_a_torn_metrics_line_of_an_unfinished_round_is_dropped(folder: RunFolder) -> None:
    """What a crash left of the line of the next round is cut away, and the round is done anew."""
    whole = (folder.path / "metrics.jsonl").read_bytes()
    with (folder.path / "metrics.jsonl").open("ab") as file:
        file.write(make_record(round=4).model_dump_json().encode()[:50])

    progress = folder.load(PLAN)
    folder.drop_left_over()

    assert progress.round == 3
    assert (folder.path / "metrics.jsonl").read_bytes() == whole


def test_a_metrics_line_too_many_is_cut_away(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round that the log does not hold did not happen: its files go, and saving it again gives one line."""
    metrics, timings = (folder.path / name for name in ("metrics.jsonl", "timings.jsonl"))
    whole = metrics.read_bytes()
    die_before_the_event(folder, 4, monkeypatch)
    left = snapshot(folder)

    progress = folder.load(PLAN)
    loaded = snapshot(folder)
    folder.drop_left_over()
    cut = metrics.read_bytes()
    gone = not checkpoint(folder, 4).exists()
    save_round(folder, 4)

    assert progress.round == 3
    assert loaded == left
    assert cut == whole
    assert gone
    assert len(timings.read_text().splitlines()) == len(metrics.read_text().splitlines()) == 4
    assert folder.load(PLAN).round == 4


def test_a_metrics_line_too_few_is_refused(folder: RunFolder) -> None:
    """A finished round without its metrics is damage, and nothing is changed."""
    lines = (folder.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder.path / "metrics.jsonl").write_text("".join(lines[:2]))
    before = snapshot(folder)

    with pytest.raises(RunFolderError, match=r"one line for each of the rounds 1\.\.3"):
        folder.load(PLAN)

    assert snapshot(folder) == before


@pytest.mark.parametrize("order", [[2, 1, 3], [1, 1, 2, 3], [1, 3], [2, 3], [1, 2, 2], []])
def test_metrics_out_of_order_are_refused(folder: RunFolder, order: list[int]) -> None:
    """There is one line per finished round, in order."""
    rule = (
        r"must have one line for each of the rounds 1\.\.3"
        if len(order) < 3
        else r"line [123] is not the one"
    )
    lines = (folder.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder.path / "metrics.jsonl").write_text("".join(lines[number - 1] for number in order))

    with pytest.raises(RunFolderError, match=rule):
        folder.load(PLAN)


@pytest.mark.parametrize("name", ["metrics.jsonl", "timings.jsonl"])
@pytest.mark.parametrize("line", ["", "{}", "[1]", "{", "\x00", "\ufffd"])
def test_a_damaged_line_is_named(folder: RunFolder, name: str, line: str) -> None:
    """Damage in the middle of a file is refused with file and line, and nothing is changed."""
    lines = (folder.path / name).read_text().splitlines()
    lines[1] = line
    (folder.path / name).write_text("".join(each + "\n" for each in lines))
    before = snapshot(folder)

    with pytest.raises(RunFolderError, match=rf"{name} line 2 is (damaged|not the one)"):
        folder.load(PLAN)

    assert snapshot(folder) == before


def rows_of_another_type() -> bytes:
    return save({"rows": adapter_after(3).rows.astype(np.float64)})


def not_finite() -> bytes:
    rows = adapter_after(3).rows.copy()
    rows[0, 0] = np.nan
    return save({"rows": rows})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 8,
        b"\xff" * 100,
        save({"rows": adapter_after(3).rows})[:-1],
        save({"rows": adapter_after(3).rows})[:40],
        save({"rows": adapter_after(3).rows}) + b"x",
        save({"other": adapter_after(3).rows}),
        save({"rows": adapter_after(3).rows[:, :10].copy()}),
        save({"rows": adapter_after(3).rows.reshape(-1).copy()}),
        save({"rows": np.zeros((0, 11), dtype=np.float32)}),
        save({"rows": np.zeros((), dtype=np.float32)}),
        rows_of_another_type(),
        not_finite(),
        save({"rows": adapter_after(3).rows[:2].copy()}),  # another rank
        save({"rows": adapter_after(2).rows}),  # another adapter
    ],
)
def test_a_damaged_checkpoint_is_named(folder: RunFolder, content: bytes) -> None:
    """A checkpoint that is torn, malformed or another adapter is refused, and the message says what to do."""
    checkpoint(folder, 3).write_bytes(content)
    before = snapshot(folder)

    with pytest.raises(RunFolderError, match=r"round-0003\.safetensors .*: restore it from a copy"):
        folder.load(PLAN)

    assert snapshot(folder) == before


def respelt(content: bytes, change: Callable[[dict[str, Any]], object], *, after: bytes = b"") -> bytes:
    """A checkpoint with another header, its values as they were."""
    size = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:size])
    change(header)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8) + after
    return len(text).to_bytes(8, "little") + text + content[size:]


def with_another_tensor(header: dict[str, Any]) -> None:
    """Of no values, so that those of the rows stay where they are."""
    end = header["rows"]["data_offsets"][1]
    header["hidden"] = {"dtype": "F32", "shape": [0], "data_offsets": [end, end]}


@pytest.mark.parametrize(
    "change",
    [
        lambda good: respelt(good, lambda header: header["__metadata__"].update(note="edited")),
        lambda good: respelt(good, with_another_tensor),
        lambda good: respelt(good, lambda _header: None, after=b" " * 8),
        lambda good: good.replace(b'{"__metadata__":{', b'{"__metadata__":{"round":"9",', 1),
    ],
    ids=["more metadata", "more tensors", "more spaces", "a key twice"],
)
def test_a_checkpoint_that_says_more_than_a_run_writes_is_named(
    folder: RunFolder, change: Callable[[bytes], bytes]
) -> None:
    """The rows are those of the round, and the bytes are not: refused, and nothing is changed."""
    good = checkpoint(folder, 3).read_bytes()
    checkpoint(folder, 3).write_bytes(change(good))
    before = snapshot(folder)

    with pytest.raises(RunFolderError, match=r"round-0003\.safetensors .*: restore it from a copy"):
        folder.load(PLAN)

    assert snapshot(folder) == before
    assert checkpoint(folder, 3).read_bytes() != good


@pytest.mark.parametrize("order", list(permutations(["run", "plan", "round"])))
def test_metadata_of_an_earlier_version_are_taken_in_any_order(
    folder: RunFolder, order: tuple[str, ...]
) -> None:
    """The library writes them in a random one; every reader of the format reads what is written now."""
    good = checkpoint(folder, 3).read_bytes()
    metadata = identity_of(folder) | {"round": "3"}

    def arrange(header: dict[str, Any]) -> None:
        header["__metadata__"] = {key: metadata[key] for key in order}

    checkpoint(folder, 3).write_bytes(respelt(good, arrange))

    assert folder.load(PLAN).round == 3
    assert good == respelt(good, lambda header: header.update(__metadata__=dict(sorted(metadata.items()))))
    assert list(load(good)) == ["rows"]
    assert np.array_equal(load(good)["rows"], adapter_after(3).rows)


def test_the_advice_for_a_damaged_checkpoint_helps(folder: RunFolder) -> None:
    """The file from a copy is taken; without one the run does not go back."""
    good = checkpoint(folder, 3).read_bytes()
    checkpoint(folder, 3).write_bytes(b"damaged")
    with pytest.raises(RunFolderError):
        folder.load(PLAN)
    checkpoint(folder, 3).unlink()
    with pytest.raises(
        RunFolderError, match=r"round-0003\.safetensors is missing, but events\.jsonl holds round 3"
    ):
        folder.load(PLAN)

    checkpoint(folder, 3).write_bytes(good)
    progress = folder.load(PLAN)

    assert progress.round == 3
    assert progress.adapter is not None
    assert progress.adapter.digest() == adapter_after(3).digest()


def test_a_checkpoint_that_was_never_renamed_does_not_count(folder: RunFolder) -> None:
    """What a crash left under a temporary name is no round."""
    rows = save({"rows": adapter_after(4).rows})
    (folder.path / "checkpoints" / ".round-0004.safetensors.tmp").write_bytes(rows)

    progress = folder.load(PLAN)

    assert progress.round == 3


@pytest.mark.parametrize(
    "name", ["round-0003 (copy).safetensors", "round-x.safetensors", "round-.safetensors"]
)
def test_a_stray_file_among_the_checkpoints_ends_in_a_named_error(folder: RunFolder, name: str) -> None:
    """A copy that somebody left there is passed over or refused by name."""
    checkpoint(folder, 3).with_name(name).write_bytes(checkpoint(folder, 3).read_bytes())

    try:
        found = folder.load(PLAN).round
    except RblaSecureError:
        found = 3

    assert found == 3


def test_a_crash_before_the_checkpoint_costs_the_round_alone(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics come first, so that a crash in between leaves a line too many, which the next start cuts away."""
    whole = (folder.path / "metrics.jsonl").read_bytes()

    def crash(_path: Path, _data: bytes) -> None:
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr("rbla_secure.run_folder.folder.write_atomic", crash)
        with pytest.raises(CrashError):
            save_round(folder, 4, upcoming=True)
    too_many = (folder.path / "metrics.jsonl").read_bytes()
    progress = folder.load(PLAN)
    folder.drop_left_over()

    assert too_many.startswith(whole)
    assert too_many != whole
    assert progress.round == 3
    assert (folder.path / "metrics.jsonl").read_bytes() == whole


def attempts(folder: RunFolder) -> list[dict[str, int]]:
    return [json.loads(line) for line in (folder.path / "attempts.jsonl").read_text().splitlines()]


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[RunFolder]:
    """A run folder without rounds."""
    made = RunFolder.create(tmp_path / "empty", make_config())
    yield made
    made.close()


def test_attempts_are_numbered_round_by_round(empty: RunFolder) -> None:
    """Each attempt at a round has the next number, and is on the disk before it begins."""
    folder = empty
    numbers = [folder.next_attempt(number) for number in (1, 1, 2, 1, 2)]

    assert numbers == [1, 2, 1, 3, 2]
    assert attempts(folder)[-1] == {"round": 2, "attempt": 2}
    assert len(attempts(folder)) == 5


def test_attempts_go_on_after_the_folder_is_opened_again(folder: RunFolder) -> None:
    """A process that died inside an attempt has used its number up."""
    folder.next_attempt(4)
    folder.close()

    again = RunFolder.open(folder.path)
    number = again.next_attempt(4)
    again.close()

    assert number == 2


def test_a_torn_attempt_does_not_swallow_the_next_one(empty: RunFolder) -> None:
    """A line that a crash cut short never opened a session; it goes, and the next line stands by itself."""
    folder = empty
    folder.next_attempt(1)
    with (folder.path / "attempts.jsonl").open("ab") as file:
        file.write(b'{"round": 1, "atte')

    number = folder.next_attempt(1)

    assert number == 2
    assert attempts(folder) == [{"round": 1, "attempt": 1}, {"round": 1, "attempt": 2}]


def test_a_folder_in_use_is_refused(folder: RunFolder) -> None:
    """A second holder is turned away as long as the first one works, and let in afterwards."""
    with pytest.raises(RunFolderError, match="in use by another process"):
        RunFolder.open(folder.path)
    folder.close()

    again = RunFolder.open(folder.path)

    assert again.run_id == folder.run_id
    again.close()


def test_another_process_is_refused(folder: RunFolder) -> None:
    """The lock holds across processes, and a process that ends, in whatever way, lets go of it."""
    program = (
        "import sys; from pathlib import Path; from rbla_secure.run_folder.folder import RunFolder\n"
        "RunFolder.open(Path(sys.argv[1])); import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", program, str(folder.path)]

    refused = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    folder.close()
    killed = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    again = RunFolder.open(folder.path)

    assert refused.returncode == 1
    assert "in use by another process" in refused.stderr
    assert killed.returncode < 0
    assert again.run_id == folder.run_id
    again.close()


def test_letting_go_twice_is_harmless(tmp_path: Path) -> None:
    """Closing is repeatable and does not close somebody else's file."""
    made = RunFolder.create(tmp_path / "run", Config())

    made.close()
    with (tmp_path / "other").open("w") as other:
        made.close()
        other.write("still open")

    assert (tmp_path / "other").read_text() == "still open"
