"""What `account` tells before a run and after it, and what a run with noise says of itself."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from rbla_secure.cli import main
from rbla_secure.privacy.accounting import epsilon
from rbla_secure.privacy.noise import Release
from tests.support.run_folders import die_before_the_end_of
from tests.support.tiny_job import job, write_images

NOISY = ("--set", "noise-multiplier=3", "--set", "privacy.colluders=1")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set."""
    return write_images(tmp_path_factory.mktemp("data"))


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    """The object that a command ends with."""
    assert main([*arguments, "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def of_rounds(rounds: int) -> float:
    return epsilon([Release(noise_multiplier=3.0, slack=0.0, rho=math.nan)] * rounds, 1e-5)


@pytest.mark.parametrize("mode", ["plain", "masking", "homomorphic"])
def test_a_run_spends_what_account_foretold(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    """Without drop-outs the epsilon before, of the run, and after it are one, and in the sums' modes that of the noise."""
    keys = [*job(images, secure_sum=mode), *NOISY]
    before = told(capsys, "account", *keys)["epsilon"]

    run = told(capsys, "run", "--out", str(tmp_path / "run"), *keys)

    after = told(capsys, "account", str(tmp_path / "run"))
    assert before == pytest.approx(run["epsilon"], rel=1e-6)
    views = run["privacy"]["views"]  # type: ignore[index]
    assert run["epsilon"] == after["epsilon"] == max(views.values())
    assert list(views) == ["public-reader", "participant", "server", "server-with-clients"]
    assert views["participant"] > views["public-reader"]  # of ten shares, or four, it knows one
    if mode == "plain":
        assert float(str(run["epsilon"])) > 1.5 * of_rounds(3)  # every single upload is read, under one share
    else:
        assert run["epsilon"] == pytest.approx(of_rounds(3), rel=0.01)


@pytest.mark.parametrize("recovered", [0.25, 0.0])
def test_a_run_whose_drop_outs_are_made_good_spends_what_account_foretold(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], recovered: float
) -> None:
    """One of the four holders of the last rows falls silent: with recovery epsilon stays, without it grows; both say why."""
    keys = [*job(images, masking__profile="consistency", dropout_rate=0.05), *NOISY]
    keys += ["--set", f"privacy.recovered-dropout={recovered}"]
    before = told(capsys, "account", *keys)

    run = told(capsys, "run", "--out", str(tmp_path / "run"), *keys)

    assert run["dropouts"] == 2
    assert main(["account", str(tmp_path / "run")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert ("up to 2, 2, 1, 1 missing clients of a round, band by band, were made good" in said) == bool(
        recovered
    )
    foretold = " ".join(before["assumptions"])  # type: ignore[arg-type]
    assert ("privacy.recovered-dropout=0.25: 2 of 10 in rows 1-2" in foretold) == bool(recovered)
    if recovered:
        assert run["epsilon"] == pytest.approx(before["epsilon"], rel=1e-6)
        assert run["epsilon"] == pytest.approx(of_rounds(3), rel=0.01)
    else:
        assert float(str(run["epsilon"])) > 1.05 * float(str(before["epsilon"]))


def test_account_says_what_it_assumes(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Adjacency, observers, what is public, and a warning where ten clients drown."""
    assert main(["account", *job(images), *NOISY]) == 0

    text = " ".join(capsys.readouterr().out.split())
    assert "one client sends zeros" in text
    assert "against public-reader: whoever reads the adapters and knows nobody's noise" in text
    assert (
        "against participant: a client, which reads the adapters and knows the noise of 1 client, its own"
        in text
    )
    assert "against server: the server alone, with what the secure sum shows it" in text
    assert "against server-with-clients: the server together with 1 client, whose noise it knows" in text
    assert "who takes part, ranks and weights are public" in text
    assert "10 clients a round are few" in text
    assert "rows 9-16" in text


def test_account_compares_rounds_and_weights_of_bands(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fewer rounds at the plan's epsilon and what weights save, in words and figures; with weights, the weights."""
    weighted = ("--set", "privacy.band-weights=holders", "--set", "privacy.rank-decay=1")
    assert main(["account", *job(images), *NOISY]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "advice: privacy.band-weights=holders leaves 8.3% less noise energy" in text
    (target,) = re.findall(r"fewer rounds at epsilon (\S+):", text)
    assert float(target) == pytest.approx(of_rounds(3), rel=0.001)
    assert main(["account", *job(images), *NOISY, *weighted]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "rank bands are weighted (0.583 in rows 1-2, 0.825 in rows 3-4" in text

    found: Any = told(capsys, "account", *job(images), *NOISY, *weighted)["fewer_rounds"]

    assert [each["rounds"] for each in found["rounds"]] == [2, 3]
    assert found["rounds"][0]["noise_multiplier"] == pytest.approx(3 * math.sqrt(2 / 3), rel=1e-5)
    assert found["band_weights"] == pytest.approx([0.583, 0.825, 1.109, 1.598], abs=1e-3)
    assert found["least_noise_weights"]["noise_energy"] == pytest.approx(0.59, abs=1e-3)


def test_weights_of_bands_change_the_adapter_and_no_epsilon(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A whole run with weights spends what one without does; its model card names them."""
    keys = [*job(images, rounds=1, secure_sum="masking"), *NOISY, "--set", "privacy.simulation=true"]
    weighted = [*keys, "--set", "privacy.band-weights=holders"]

    runs = [
        told(capsys, "run", "--out", str(tmp_path / name), *each)
        for name, each in (("equal", keys), ("weighted", weighted))
    ]

    assert runs[0]["epsilon"] == runs[1]["epsilon"]
    adapters = [tmp_path / name / "adapter" for name in ("equal", "weighted")]
    first, second = ((folder / "adapter_model.safetensors").read_bytes() for folder in adapters)
    assert first != second
    assert "rank bands weighted: 0.716 in rows 1-2" in (adapters[1] / "README.md").read_text()


def test_without_noise_there_is_no_epsilon(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither before nor after: null, and a sentence that says why."""
    keys = job(images, rounds=1)

    assert told(capsys, "account", *keys) == {"epsilon": None}
    run = told(capsys, "run", "--out", str(tmp_path / "run"), *keys)

    assert (run["epsilon"], run["privacy"]) == (None, None)
    assert told(capsys, "account", str(tmp_path / "run")) == {"epsilon": None}
    assert not (tmp_path / "run" / "privacy.json").exists()


def test_a_budget_that_is_too_small_is_refused_before_training(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The refusal names the epsilon that the run would spend and the multiplier that would do; nothing was trained."""
    keys = [*job(images), *NOISY, "--set", "privacy.max-epsilon=1"]

    code = main(["run", "--out", str(tmp_path / "run"), *keys])

    error = capsys.readouterr().err
    assert code == 1
    assert "privacy.max-epsilon=1 must be >=" in error
    assert "would do" in error
    assert not (tmp_path / "run" / "checkpoints").exists() or not any(
        (tmp_path / "run" / "checkpoints").iterdir()
    )


def test_the_spent_privacy_of_a_run_cannot_be_argued_with(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Overrides on a run folder are refused: what was spent was spent."""
    told(capsys, "run", "--out", str(tmp_path / "run"), *job(images, rounds=1), *NOISY)

    code = main(["account", str(tmp_path / "run"), "--set", "privacy.delta=0.1"])

    assert code == 1
    assert "changes nothing that was spent" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["masking", "homomorphic"])
def test_a_run_with_noise_resumes_with_its_ledger(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    """Killed before the log held its last round, a run goes on; both attempts at that round are counted."""
    folder = tmp_path / "run"
    told(capsys, "run", "--out", str(folder), *job(images, secure_sum=mode), *NOISY)
    die_before_the_end_of(folder, 3)

    run = told(capsys, "resume", str(folder))

    assert run["privacy"]["attempts"] == 4  # type: ignore[index]
    assert run["epsilon"] == pytest.approx(of_rounds(4), rel=0.01)
