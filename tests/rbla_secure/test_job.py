"""Whole runs: the same bytes in every repetition and in both modes, and refused bands that do not move."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from rbla_secure.cli import main
from rbla_secure.config import load_config
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.tasks.splits import load_data
from tests.support.tiny_job import adapter_sha256, files, job, metrics, write_images

BANDS = {"rows 1-2": (0, 2), "rows 3-4": (2, 4), "rows 5-8": (4, 8), "rows 9-16": (8, 16)}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set."""
    return write_images(tmp_path_factory.mktemp("data"))


def run(folder: Path, images: Path, **changes: object) -> Path:
    assert main(["run", "--out", str(folder), *job(images, **changes)]) == 0
    return folder


def rows_after(folder: Path, number: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    rows: np.ndarray[Any, np.dtype[np.float32]] = load_file(
        folder / "checkpoints" / f"round-{number:04d}.safetensors"
    )["rows"]
    return rows


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gamma": 1.0, "weights": "examples", "examples_cap": 20},
        {"average": "zero-pad", "task__partition": "iid", "training__optimizer": "sgd"},
        {"masking__profile": "semi-honest", "quantization__bits": 15, "quantization__ring_bits": 20},
        {"masking__profile": "consistency", "upload": "padded"},
    ],
)
def test_masked_and_plain_runs_end_in_the_same_adapter(
    tmp_path: Path, images: Path, changes: dict[str, object]
) -> None:
    """Masks cancel exactly: when nobody drops out, both modes write the same adapter file byte for byte."""
    masked = run(tmp_path / "masking", images, secure_sum="masking", **changes)
    plain = run(tmp_path / "plain", images, secure_sum="plain", **changes)

    for name in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json"):
        assert (masked / name).read_bytes() == (plain / name).read_bytes()
    assert [rows_after(masked, n).tobytes() for n in (1, 2, 3)] == [
        rows_after(plain, n).tobytes() for n in (1, 2, 3)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("dropout_rate", [0.0, 0.12])
def test_all_secure_sums_end_in_the_same_adapter(tmp_path: Path, images: Path, dropout_rate: float) -> None:
    """At their common capacity plain, masking and homomorphic write the same bytes, drop-outs and refused bands included."""
    changes: dict[str, object] = {
        "rounds": 6,
        "quantization__bits": 15,
        "quantization__ring_bits": 20,
        "masking__profile": "semi-honest",
        "min_holders": 4,
        "dropout_rate": dropout_rate,
    }

    folders = [
        run(tmp_path / mode, images, secure_sum=mode, **changes)
        for mode in ("plain", "masking", "homomorphic")
    ]

    plain, *others = folders
    names = ("adapter/adapter_model.safetensors", "adapter/adapter_config.json")
    for folder in others:
        for name in names:
            assert (folder / name).read_bytes() == (plain / name).read_bytes()
        for number in range(1, 7):
            assert rows_after(folder, number).tobytes() == rows_after(plain, number).tobytes()
        assert [record["refused_bands"] for record in metrics(folder)] == [
            record["refused_bands"] for record in metrics(plain)
        ]
    assert any(record["refused_bands"] for record in metrics(plain)) == (dropout_rate > 0)


@pytest.mark.parametrize("verifier", [False, True])
def test_an_encrypted_run_tells_the_cost_of_its_services(
    tmp_path: Path,
    images: Path,
    capsys: pytest.CaptureFixture[str],
    verifier: bool,  # noqa: FBT001
) -> None:
    """Decryptor, worker and verifier are listed with what they were sent; the verifier gets every client's upload."""
    folder = tmp_path / "run"
    keys = job(images, secure_sum="homomorphic", homomorphic__verifier=str(verifier).lower())
    assert main(["run", "--json", "--out", str(folder), *keys]) == 0

    summary = json.loads(capsys.readouterr().out.splitlines()[-1])

    costs = {cost["service"]: cost for cost in summary["services"]}
    assert set(costs) == {"decryptor", "worker"} | ({"verifier"} if verifier else set())
    uploads = summary["bytes_up_per_client"] * 10 * 3
    assert all(cost["seconds"] > 0 for cost in costs.values())
    assert 0.9 * uploads < costs["worker"]["bytes_to"] < 1.2 * uploads
    assert 0 < costs["decryptor"]["bytes_to"] < 0.2 * uploads
    if verifier:
        assert uploads < costs["verifier"]["bytes_to"] < 1.3 * uploads


@pytest.mark.slow
@pytest.mark.parametrize("verifier", ["false", "true"])
def test_screening_lets_an_honest_run_pass(tmp_path: Path, images: Path, verifier: str) -> None:
    """With every update screened for norm and direction, nobody is turned away and the adapter is the same."""
    keys: dict[str, object] = {"secure_sum": "homomorphic", "training__learning_rate": 0.003}
    plain = run(tmp_path / "plain", images, **keys)

    screened = run(
        tmp_path / "screened",
        images,
        homomorphic__screening="verdicts",
        homomorphic__min_cosine=-0.9,
        homomorphic__verifier=verifier,
        **keys,
    )

    assert not any(record["refusals"] for record in metrics(screened))
    assert adapter_sha256(screened) == adapter_sha256(plain)


def test_a_run_repeats(tmp_path: Path, images: Path) -> None:
    """The same configuration gives the same metrics, base and adapter, drop-outs included; only seconds differ."""
    first = files(run(tmp_path / "first", images, dropout_rate=0.2))

    second = files(run(tmp_path / "second", images, dropout_rate=0.2))

    assert first == second
    assert {
        "metrics.jsonl",
        "config.toml",
        "base/model.safetensors",
        "adapter/adapter_model.safetensors",
    } <= set(first)


def test_another_seed_is_another_run(tmp_path: Path, images: Path) -> None:
    """Everything that is drawn follows from the seed."""
    first = run(tmp_path / "first", images, rounds=1)

    second = run(tmp_path / "second", images, rounds=1, seed=1)

    for name in ("base/model.safetensors", "adapter/adapter_model.safetensors", "metrics.jsonl"):
        assert (first / name).read_bytes() != (second / name).read_bytes()


@pytest.mark.parametrize("mode", ["plain", "masking", "homomorphic"])
def test_a_refused_band_keeps_its_rows(tmp_path: Path, images: Path, mode: str) -> None:
    """With many drop-outs, rows of a band that stayed closed are bit-identical in consecutive checkpoints."""
    folder = run(tmp_path / "run", images, dropout_rate=0.3, rounds=6, secure_sum=mode, max_aborted_rounds=9)

    seen = {"closed": 0, "opened": 0, "aborted": 0}
    for number, record in enumerate(metrics(folder)[1:], start=2):
        before, after = rows_after(folder, number - 1), rows_after(folder, number)
        refused: Any = record["refused_bands"]
        for band, (start, stop) in BANDS.items():
            same = before[start:stop].tobytes() == after[start:stop].tobytes()
            assert same == (band in refused or bool(record["aborted"]))
            seen["opened" if not same else "aborted" if record["aborted"] else "closed"] += 1
    assert seen["closed"] > 0
    assert seen["opened"] > 0


def test_training_helps(tmp_path: Path, images: Path) -> None:
    """After a few rounds the adapted model has a lower loss than after the first one."""
    folder = run(tmp_path / "run", images, rounds=6)

    losses: list[Any] = [record["loss"] for record in metrics(folder)]

    assert losses[-1] < losses[0]


def test_the_folder_has_what_its_docstring_lists(tmp_path: Path, images: Path) -> None:
    """Configuration, identity, attempts, events, metrics, timings, checkpoints, base and adapter stand there, and no leftovers."""
    folder = run(tmp_path / "run", images)

    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

    assert names == [
        "adapter/README.md",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "attempts.jsonl",
        "base/architecture.json",
        "base/model.safetensors",
        "checkpoints/round-0001.safetensors",
        "checkpoints/round-0002.safetensors",
        "checkpoints/round-0003.safetensors",
        "config.toml",
        "events.jsonl",
        "lock",
        "metrics.jsonl",
        "run.json",
        "timings.jsonl",
    ]
    assert not [path for path in tmp_path.iterdir() if path != folder]


def test_the_written_configuration_is_the_one_that_ran(tmp_path: Path, images: Path) -> None:
    """config.toml, given to another run, repeats it."""
    first = run(tmp_path / "first", images, gamma=0.5, secure_sum="plain")

    code = main(["run", str(first / "config.toml"), "--out", str(tmp_path / "second")])

    assert code == 0
    assert adapter_sha256(tmp_path / "second") == adapter_sha256(first)
    assert (tmp_path / "second" / "config.toml").read_bytes() == (first / "config.toml").read_bytes()


def test_nobody_shares_an_example(images: Path) -> None:
    """Held-out, public and every client's examples are disjoint parts of the data set."""
    overrides = [part for part in job(images) if part != "--set"]

    data = load_data(load_config(None, overrides))

    parts = [data.held_out, data.public, *data.clients]
    seen = [image.tobytes() for part in parts for image in part.images]
    assert len(seen) == len(set(seen)) == 300
    assert (len(data.held_out), len(data.public), len(data.clients)) == (60, 60, 10)


def test_a_damaged_base_is_not_trained_over(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A base whose file was torn is refused by name and left for somebody to look at."""
    folder = run(tmp_path / "run", images, rounds=1)
    weights = folder / "base" / "model.safetensors"
    torn = weights.read_bytes()[:-10]
    weights.write_bytes(torn)

    code = main(["resume", str(folder)])

    assert code == 1
    assert f"base={folder / 'base'} is damaged" in capsys.readouterr().err
    assert weights.read_bytes() == torn


def test_a_run_lets_go_of_its_folder(tmp_path: Path, images: Path) -> None:
    """After a run, and after a refusal, the folder can be opened."""
    folder = run(tmp_path / "run", images, rounds=1)

    opened = RunFolder.open(folder)

    assert opened.config.rounds == 1
    opened.close()
