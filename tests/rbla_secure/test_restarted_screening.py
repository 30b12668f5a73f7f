"""Jobs under encryption whose updates are screened, interrupted after a round and resumed with services that are new."""

import json
from pathlib import Path
from typing import Any

import pytest

from protocols.homomorphic.services.operated import HomomorphicServices
from rbla_secure.cli import main as main  # noqa: PLC0414  # for a claim too
from rbla_secure.report.console import ConsoleReport
from rbla_secure.run_folder.audit_log import EventKind, read_events
from tests.support.run_folders import snapshot
from tests.support.tiny_job import adapter_sha256, job
from tests.support.tiny_job import write_images as write_images  # noqa: PLC0414  # for a claim too

SCREENED: dict[str, object] = {
    "rounds": 2,
    "secure_sum": "homomorphic",
    "homomorphic__screening": "verdicts",
    "homomorphic__min_cosine": 0.2,
}


def run(folder: Path, images: Path, *, verifier: bool) -> None:
    """A whole job, or its first round alone."""
    keys = job(images, **SCREENED, homomorphic__verifier=str(verifier).lower())
    main(["run", "--out", str(folder), *keys])


def interrupted(folder: Path, images: Path, monkeypatch: pytest.MonkeyPatch, *, verifier: bool) -> None:
    """A job that ends when its first round has."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ConsoleReport, "round_saved", stop)
        run(folder, images, verifier=verifier)


def screened_out(folder: Path) -> list[list[str]]:
    """Whose update was screened out for its direction, by round."""
    found: list[list[str]] = [[], []]
    for event in read_events(folder / "events.jsonl"):
        if event.kind is EventKind.REFUSAL and "cosine" in str(event.details["reason"]):
            found[(event.round or 0) - 1].append(str(event.details["client"]))
    return found


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """What was written down of the rounds."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("verifier", [True, False], ids=["verifier", "no verifier"])
def test_a_resumed_run_screens_as_one_that_was_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, verifier: bool
) -> None:
    """The same clients are screened out, and the same bytes come out; and the control, in which the services are told nothing."""
    images = write_images(tmp_path)
    whole, part, careless = (tmp_path / name for name in ("whole", "part", "careless"))
    run(whole, images, verifier=verifier)
    interrupted(part, images, monkeypatch, verifier=verifier)
    assert len(metrics_of(part)) == 1

    assert main(["resume", str(part)]) == 0

    assert screened_out(whole)[0] == []
    assert screened_out(whole)[1]
    assert screened_out(part) == screened_out(whole)
    assert (part / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert adapter_sha256(part) == adapter_sha256(whole)
    if verifier:
        monkeypatch.setattr(HomomorphicServices, "recall", lambda *_: None)
        interrupted(careless, images, monkeypatch, verifier=True)
        assert main(["resume", str(careless)]) == 0
        assert screened_out(careless) == [[], []]


def test_another_direction_is_refused_before_a_service_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By file name, in one line, and the folder is as the edit left it."""
    images, folder = write_images(tmp_path), tmp_path / "run"
    interrupted(folder, images, monkeypatch, verifier=True)
    path = folder / "checkpoints" / "round-0001.direction"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    before = snapshot(folder)
    capsys.readouterr()

    assert main(["resume", str(folder)]) == 1

    error = capsys.readouterr().err
    assert "round-0001.direction is not the one whose digest events.jsonl holds" in error
    assert error.count("\n") == 1
    assert snapshot(folder) == before
