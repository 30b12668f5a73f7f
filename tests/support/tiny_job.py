"""A job of seconds' fractions: a few hundred images made of noise, and the command line in this or another process."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rbla_secure.cli import main

IMAGES = 300
REPOSITORY = Path(__file__).parents[2]


def write_images(folder: Path) -> Path:
    """An mnist.npz of noise, with one bright row of pixels that tells the class."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, IMAGES, dtype=np.uint8)
    images = generator.integers(0, 60, (IMAGES, 28, 28), dtype=np.uint8)
    images[np.arange(IMAGES), labels] = 255
    path = folder / "mnist.npz"
    half = IMAGES // 2
    np.savez(path, x_train=images[:half], y_train=labels[:half], x_test=images[half:], y_test=labels[half:])
    return path


def job(images: Path, **changes: object) -> list[str]:
    """The overrides of a small job, with keys changed: ``rounds=5``, ``tiers__phone__clients=3``."""
    keys: dict[str, object] = {
        "rounds": 3,
        "dropout-rate": 0.0,
        "task.data": "mnist",
        "task.root": str(images),
        "task.held-out": 60,
        "task.public": 60,
        "training.learning-rate": 0.01,
    }
    keys |= {name.replace("__", ".").replace("_", "-"): value for name, value in changes.items()}
    return [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]


def files(folder: Path) -> Mapping[str, bytes]:
    """What must be the same in every repetition: configuration, metrics, base and adapter."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in {"timings.jsonl", "run.json", "lock", "attempts.jsonl", "events.jsonl"}
        # Their header carries the identity of the run.
        and path.parent.name != "checkpoints"
    }


def metrics(folder: Path) -> list[dict[str, object]]:
    """The rounds that were written down."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def adapter_sha256(folder: Path) -> str:
    """Of the tensors' file."""
    return hashlib.sha256((folder / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


def command(*arguments: str) -> list[str]:
    """The command line in a process of its own."""
    return [sys.executable, "-m", "rbla_secure.cli", *arguments]


def environment() -> dict[str, str]:
    """The environment of such a process: it finds the packages from wherever it stands."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def start(*arguments: str, cwd: Path | None = None) -> subprocess.Popen[bytes]:
    """Begin a command in a process of its own."""
    return subprocess.Popen(
        command(*arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
        cwd=cwd,
    )


def finish(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own to its end."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, env=environment(), cwd=cwd
    )


def die_at_sync(number: int, arguments: list[str]) -> None:
    """Run a command, and be killed just before its `number`-th flush to the disk. For a process of its own."""
    sync, left = os.fsync, number

    def counting(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)

    os.fsync = counting  # type: ignore[assignment]
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    sys.exit(main(arguments))


def die_after_write(name: str, number: int, arguments: list[str]) -> None:
    """Run a command, and be killed when a file or folder of this name has been written for the `number`-th time.

    For a process of its own. A file that is appended to is killed for before it is flushed, one that is replaced, after
    it was renamed: what is written next is not there.
    """
    sync, left, last = os.fsync, number, ""

    def watching(descriptor: int) -> None:
        nonlocal left, last
        path = Path(f"/proc/self/fd/{descriptor}").readlink().name
        written = path == name or (last == f".{name}.tmp" and not path.startswith("."))
        left, last = left - written, path
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)

    os.fsync = watching  # type: ignore[assignment]
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    sys.exit(main(arguments))
