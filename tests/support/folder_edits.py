"""One edit of a run folder each: what whoever can write to it may do."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from rbla_secure.run_folder.audit_log import read_events
from tests.support.run_folders import (
    as_ledger,
    die_before_the_end_of,
    die_before_the_log_of,
    keep_entries,
    keep_events,
    keep_lines,
    rewrite_events,
)

Edit = Callable[[Path], object]


def text_of(name: str, change: Callable[[str], str]) -> Edit:
    def edit(folder: Path) -> None:
        before = (folder / name).read_text()
        (folder / name).write_text(change(before))
        assert (folder / name).read_text() != before, f"{name} is as it was: this edits nothing"

    return edit


def lines_of(name: str, change: Callable[[list[str]], list[str]]) -> Edit:
    return text_of(name, lambda text: "".join(line + "\n" for line in change(text.splitlines())))


def replaced(name: str, before: str, after: str) -> Edit:
    return text_of(name, lambda text: text.replace(before, after, 1))


def without(name: str) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return edit


def from_run(name: str, run: str) -> Edit:
    return lambda folder: shutil.copy(folder.parent / run / name, folder / name)


def both(*edits: Edit) -> Edit:
    def edit(folder: Path) -> None:
        for each in edits:
            each(folder)

    return edit


def shaped(line: str, **changes: object) -> str:
    """A line of metrics with fields changed, in the spelling of a line of metrics."""
    return json.dumps({**json.loads(line), **changes}, separators=(",", ":"))


def figures(number: int, **changes: object) -> Edit:
    return lines_of(
        "metrics.jsonl",
        lambda lines: [*lines[: number - 1], shaped(lines[number - 1], **changes), *lines[number:]],
    )


def at(number: int) -> str:
    return f"checkpoints/round-{number:04d}.safetensors"


def poison(folder: Path, number: int) -> str:
    """Move every row of a checkpoint, its metadata as they were; gives the digest of the rows."""
    path = folder / at(number)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    rows = load_file(path)["rows"] + np.float32(0.25)
    save_file({"rows": rows}, path, metadata=metadata)
    shape = np.asarray(rows.shape, dtype="<u8").tobytes()
    return hashlib.sha256(b"rbla-secure adapter\x00" + shape + rows.astype("<f4").tobytes()).hexdigest()


def poison_with_figures(number: int) -> Edit:
    """With fitting metrics: the adapter's digest in the round's line is that of the poisoned rows."""
    return lambda folder: figures(number, adapter=poison(folder, number))(folder)


def exchange(first: str, second: str) -> Edit:
    def edit(folder: Path) -> None:
        one, other = folder / first, folder / second
        one.rename(folder / "aside")
        other.rename(one)
        (folder / "aside").rename(other)

    return edit


def to_link(name: str, *, empty: bool = False) -> Edit:
    """Put the file elsewhere and a link in its place."""

    def edit(folder: Path) -> None:
        elsewhere = folder.parent / "elsewhere"
        (folder / name).rename(elsewhere)
        if empty:
            elsewhere.unlink()
        (folder / name).symlink_to(elsewhere)

    return edit


def edit_base(folder: Path) -> None:
    path = folder / "base" / "model.safetensors"
    weights = load_file(path)
    name = min(weights)
    save_file(weights | {name: weights[name] + np.float32(0.01)}, path, metadata={"format": "pt"})


def drop_a_layer(folder: Path) -> None:
    """A base without one of its ReLUs has the same weights."""
    path = folder / "base" / "architecture.json"
    content = json.loads(path.read_text())
    content["layers"] = [layer for layer in content["layers"] if layer["name"] != "relu1"]
    path.write_text(json.dumps(content))


def entries(name: str, change: Callable[[list[dict[str, Any]]], object]) -> Edit:
    def edit(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content["entries"])
        (folder / name).write_bytes(as_ledger(content))

    return edit


def chain(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Edit:
    return lambda folder: rewrite_events(folder, change)


def told(kind: str, number: int | None = None, **details: object) -> Callable[[list[dict[str, Any]]], Any]:
    """Events with the details of one changed."""

    def change(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        event = next(each for each in events if each["kind"] == kind and number in {None, each["round"]})
        event["details"] |= details
        return events

    return change


def left_out(kind: str, number: int | None = None) -> Callable[[list[dict[str, Any]]], Any]:
    """Events without one."""

    def change(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        event = next(each for each in events if each["kind"] == kind and number in {None, each["round"]})
        return [each for each in events if each is not event]

    return change


def rollback(*, of: int, to: int, ledgers: bool = False) -> Edit:
    """Everything but the log goes back to an earlier round."""

    def edit(folder: Path) -> None:
        for number in range(to + 1, of + 1):
            (folder / at(number)).unlink()
        keep_lines(folder / "metrics.jsonl", to)
        keep_lines(folder / "timings.jsonl", to)
        if ledgers:
            for name in ("privacy.json", "privacy-samples.json"):
                keep_entries(folder / name, to)

    return edit


def log_ends(*, after: str, number: int, keep: int = 1) -> Edit:
    """The log without what came after an event of a round."""

    def edit(folder: Path) -> None:
        events = read_events(folder / "events.jsonl")
        place = next(i for i, each in enumerate(events) if str(each.kind) == after and each.round == number)
        keep_events(folder, place + keep)

    return edit


def unfinished(edit: Edit, *, after: int) -> Edit:
    """The edit on a run that was killed just before the log held the round after this one."""
    return both(lambda folder: die_before_the_end_of(folder, after + 1), edit)


def unlogged(name: str, edit: Edit = lambda _: None, *, number: int = 3) -> Edit:
    """The edit on a run that was killed between the entry of a ledger for this round and the log's line of it."""
    return both(lambda folder: die_before_the_log_of(folder, name, number), edit)


def last_entry(name: str, change: Callable[[dict[str, Any]], object]) -> Edit:
    """The last entry of a ledger changed, in the ledger's own spelling."""
    return entries(name, lambda found: change(found[-1]))


def deep_link(name: str) -> Edit:
    """A link in a folder inside a folder."""

    def edit(folder: Path) -> None:
        (folder / name / "more").mkdir()
        (folder / name / "more" / "link").symlink_to(folder / "config.toml")

    return edit


def one_byte(name: str) -> Edit:
    """The last byte of a file changed."""

    def edit(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[-1] ^= 0x40
        (folder / name).write_bytes(data)

    return edit


def with_hidden_tensor(name: str) -> Edit:
    """Another tensor beside those of a safetensors file, its metadata as they were."""

    def edit(folder: Path) -> None:
        path = folder / name
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
        save_file(load_file(path) | {"hidden": np.zeros(3, dtype=np.float32)}, path, metadata=metadata)

    return edit


def with_metadata(name: str) -> Edit:
    """Another key in the metadata of a safetensors file, its tensors as they were."""

    def edit(folder: Path) -> None:
        path = folder / name
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
        save_file(load_file(path), path, metadata=metadata | {"note": "edited"})

    return edit
