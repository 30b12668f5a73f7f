"""Every epsilon that `account` reads out of a real run, computed anew from the noise that was really drawn."""

import json
import math
from pathlib import Path

import pytest

from rbla_secure.cli import main
from tests.support.recorded_noise import Run, recording
from tests.support.tiny_job import job, write_images

# Ten clients in four tiers; one in five drops out, three times in four before its input counts.
DROPS = {"dropout-rate": 0.2, "training.steps": 1, "min-holders": 2}
MASKED = {"noise-multiplier": 2.0}
STRICT = {**MASKED, "masking.profile": "consistency"}

# By name: the keys, and how many clients collude.
CONFIGURATIONS: dict[str, tuple[dict[str, object], int]] = {
    "masked": (MASKED, 1),
    "masked, nobody colludes": ({**MASKED, "privacy.colluders": 0}, 0),
    "masked, two collude": ({**MASKED, "privacy.colluders": 2}, 2),
    "consistency": (STRICT, 1),
    "semi-honest": ({**MASKED, "masking.profile": "semi-honest", "privacy.colluders": 1}, 1),
    "drop-outs provided for": ({**MASKED, "privacy.expected-dropout": 0.2}, 1),
    "drop-outs made good": ({**STRICT, "privacy.recovered-dropout": 0.34}, 1),
    "drop-outs beyond what is made good": (
        {**STRICT, "privacy.recovered-dropout": 0.15, "dropout-rate": 0.15, "seed": 7},
        1,
    ),
    "padded": ({**MASKED, "upload": "padded"}, 1),
    "per layer": ({**MASKED, "privacy.clipping": "per-layer"}, 1),
    "adaptive": ({**MASKED, "privacy.clipping": "adaptive", "privacy.count-noise": 3.0}, 1),
    "in turns": ({**MASKED, "training.rows": "in-turns"}, 1),
    "lora_B alone": ({**MASKED, "lora.factors": "lora-b"}, 1),
    "rest dropped": ({**MASKED, "lora.rest": "dropped", "dropout-rate": 0.1, "seed": 4}, 1),
    "another delta": ({**MASKED, "privacy.delta": 1e-7}, 1),
    "a tiny delta": ({**MASKED, "privacy.delta": 1e-40}, 1),
    "little noise": ({"noise-multiplier": 0.7}, 1),
    "groups": (
        {"noise-multiplier": 3.0, "robustness.group-size": 2, "privacy.colluders": 0, "dropout-rate": 0.1},
        0,
    ),
    "encrypted": ({**MASKED, "secure-sum": "homomorphic"}, 1),
    "encrypted with verifier": ({**MASKED, "secure-sum": "homomorphic", "homomorphic.verifier": "true"}, 1),
    "groups, one colludes": ({"noise-multiplier": 3.0, "robustness.group-size": 2, "dropout-rate": 0.1}, 1),
    "plain": ({**MASKED, "secure-sum": "plain"}, 1),
    "plain, padded": ({**MASKED, "secure-sum": "plain", "upload": "padded"}, 1),
    "central": ({**MASKED, "privacy.mechanism": "central", "quantization.bits": 18}, 1),
    "central, plain, adaptive": (
        {
            **MASKED,
            "privacy.mechanism": "central",
            "secure-sum": "plain",
            "privacy.clipping": "adaptive",
            "privacy.count-noise": 3.0,
        },
        1,
    ),
    "add or remove": (
        {
            **MASKED,
            "privacy.mechanism": "central",
            "secure-sum": "plain",
            "privacy.adjacency": "add-or-remove",
        },
        1,
    ),
}
EXAMPLES: dict[str, dict[str, object]] = {
    "single examples": {"sample-level.noise-multiplier": 1.0, "sample-level.sample-rate": 0.1},
    "single examples, all of them in every step": {
        "sample-level.noise-multiplier": 3.0,
        "sample-level.sample-rate": 1,
    },
    "both levels": {
        **MASKED,
        "sample-level.noise-multiplier": 1.0,
        "sample-level.sample-rate": 0.1,
    },
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


def run(images: Path, folder: Path, keys: dict[str, object], patch: pytest.MonkeyPatch) -> Run:
    overrides = [part for key, value in (DROPS | keys).items() for part in ("--set", f"{key}={value}")]
    with recording(patch) as record:
        assert main(["run", "--out", str(folder), *job(images), *overrides]) == 0
    patch.undo()
    return Run(folder=folder, record=record)


def account(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    capsys.readouterr()
    assert main(["account", str(folder), "--json"]) == 0
    told: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return told


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_figures_of_every_view_follow_from_the_noise_that_was_drawn(
    name: str,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within a thousandth, drop-outs included, and never below."""
    keys, colluders = CONFIGURATIONS[name]

    made = run(images, tmp_path / "run", keys, monkeypatch)
    told = account(made.folder, capsys)["views"]

    assert isinstance(told, dict)
    for observer, ours in made.epsilons(colluders).items():
        figure = told[observer]
        if math.isinf(ours):
            assert figure is None
        else:
            assert figure == pytest.approx(ours, rel=1e-3), observer
            assert figure >= ours * (1 - 1e-6)
    # An attempt that is aborted after it was written down counts as if it had been opened.
    assert not any(line["aborted"] for line in made.rounds)
    assert any(line["dropped"] for line in made.rounds)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_figure_of_single_examples_follows_from_the_noise_that_was_drawn(
    name: str,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the client that took most steps."""
    made = run(images, tmp_path / "run", EXAMPLES[name], monkeypatch)
    told = account(made.folder, capsys)["sample_level"]

    assert isinstance(told, dict)
    assert told["epsilon"] == pytest.approx(made.epsilon_of_examples(), rel=1e-3)
