"""A damaged run folder is refused by a named error, and a crash costs at most its round."""

import json
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from rbla_secure.errors import ConfigError, RblaSecureError, RunFolderError
from rbla_secure.run_folder.audit_log import LogEntry
from rbla_secure.run_folder.folder import RunFolder
from tests.rbla_secure.run_folder.folders import (
    PLAN,
    CrashError,
    adapter_after,
    attempts,
    save_round,
    snapshot,
)
from tests.support.records import make_record


def die_before_the_event(folder: RunFolder, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round whose line and checkpoint are on the disk, and whose end the log was not told of any more."""

    def crash(*_arguments: object, **_kept: object) -> Iterator[LogEntry]:
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr("rbla_secure.run_folder.folder.of_round", crash)
        with pytest.raises(CrashError):
            save_round(folder, number, upcoming=True)


def checkpoint(folder: RunFolder, number: int) -> Path:
    return folder.path / "checkpoints" / f"round-{number:04d}.safetensors"


def identity_of(folder: RunFolder) -> dict[str, str]:
    """What a checkpoint says of the run and the plan it belongs to."""
    return {"run": folder.run_id.hex(), "plan": PLAN.digest.hex()}


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


def test_a_torn_attempt_does_not_swallow_the_next_one(empty: RunFolder) -> None:
    """A line that a crash cut short never opened a session; it goes, and the next line stands by itself."""
    folder = empty
    folder.next_attempt(1)
    with (folder.path / "attempts.jsonl").open("ab") as file:
        file.write(b'{"round": 1, "atte')

    number = folder.next_attempt(1)

    assert number == 2
    assert attempts(folder) == [{"round": 1, "attempt": 1}, {"round": 1, "attempt": 2}]
