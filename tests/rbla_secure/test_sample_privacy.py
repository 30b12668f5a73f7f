"""Privacy of single examples as a user meets it: run, resume, account, refusals, and together with the other level."""

import json
from pathlib import Path

import numpy as np
import pytest

from rbla_secure.cli import main
from rbla_secure.config import load_config
from rbla_secure.errors import PlanError
from rbla_secure.planning.checks import check_config
from rbla_secure.planning.parameters import sample_level
from rbla_secure.privacy import accounting
from rbla_secure.privacy.accounting import SampledSteps, epsilon_of_steps
from rbla_secure.privacy.sample_ledger import FILE, SampleLedger
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.tasks.configured_training import private_descent
from rbla_secure.tasks.training import Losses
from tests.support.tiny_job import job, write_images

STEPS = 4
NOISY = (
    "--set", f"training.steps={STEPS}", "--set", "sample-level.noise-multiplier=2", "--set", "sample-level.sample-rate=0.2",
)  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set."""
    return write_images(tmp_path_factory.mktemp("data"))


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main([*arguments, "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def of_rounds(rounds: int) -> float:
    return epsilon_of_steps([SampledSteps(noise_multiplier=2.0, sample_rate=0.2, steps=STEPS * rounds)], 1e-5)


@pytest.mark.parametrize("mode", ["plain", "masking", "homomorphic"])
def test_a_run_spends_what_account_foretold(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    """The same in every secure sum: the noise is inside the clients. Client level claims nothing here."""
    keys = [*job(images, secure_sum=mode), *NOISY]
    before = told(capsys, "account", *keys)

    run = told(capsys, "run", "--out", str(tmp_path / "run"), *keys)

    after = told(capsys, "account", str(tmp_path / "run"))
    assert run["epsilon"] is None
    assert (
        before["sample_level"]["epsilon"]
        == run["sample_privacy"]["epsilon"]
        == pytest.approx(of_rounds(3), abs=1e-9)
    )  # type: ignore[index]
    assert after["sample_level"] == run["sample_privacy"]
    card = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert "privacy of single examples (one is there, or not, or counts as zero) spent in 3 attempts" in card
    assert "everyone outside of their client who does not measure how long it trains" in card


def test_what_the_claim_rests_on_is_printed(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who is a neighbour and what is not covered; the number of examples is not among what must be public."""
    assert main(["account", *job(images), *NOISY]) == 0

    printed = capsys.readouterr().out

    assert "one example of one client is not there or counts as zero" in printed
    assert "nobody outside of a client measures how long it trains" in printed
    assert "how many examples" not in printed


def test_both_levels_together_have_both_ledgers(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [*job(images), *NOISY, "--set", "noise-multiplier=3", "--set", "privacy.colluders=0"]

    run = told(capsys, "run", "--out", str(tmp_path / "run"), *keys)

    assert run["sample_privacy"]["epsilon"] == of_rounds(3)  # type: ignore[index]
    assert float(str(run["epsilon"])) > 0
    assert (tmp_path / "run" / "privacy.json").exists()


def test_a_resumed_run_forgets_nothing(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the second round was written down as trained, and before its result was: it counts twice."""
    config = load_config(None, [a for a in [*job(images), *NOISY] if a != "--set"])
    save, saved = RunFolder.save, []

    def dies(self: RunFolder, *arguments: object, **more: object) -> None:
        saved.append(1)
        if len(saved) == 2:
            raise KeyboardInterrupt
        save(self, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(RunFolder, "save", dies)
    keys = [*job(images), *NOISY]
    assert main(["run", "--out", str(tmp_path / "run"), *keys]) == 1
    monkeypatch.setattr(RunFolder, "save", save)
    capsys.readouterr()

    resumed = told(capsys, "resume", str(tmp_path / "run"))

    assert config.rounds == 3
    assert resumed["sample_privacy"]["epsilon"] == of_rounds(4)  # type: ignore[index]
    assert [entry.round for entry in SampleLedger.read(tmp_path / "run").entries] == [1, 2, 2, 3]


def test_a_lost_ledger_stops_a_run(tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = [*job(images), *NOISY]
    told(capsys, "run", "--out", str(tmp_path / "run"), *keys)
    (tmp_path / "run" / FILE).unlink()

    assert main(["resume", str(tmp_path / "run")]) == 1

    assert "spent privacy would be forgotten" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.steps=0"], "training.steps=0 must be above 0"),
        (["weights=examples"], "weights=examples must be uniform with sample-level"),
        (["sample-level.noise-multiplier=0", "sample-level.max-epsilon=3"], "must have sample-level.noise-multiplier above 0"),
        (["sample-level.noise-multiplier=1e-7"], "sample-level: noise_multiplier=1e-07 must be >="),
        (["sample-level.noise-multiplier=0.01"], "sample-level.noise-multiplier=0.01 must be 0 or at least 0.1"),
        (["training.steps=10000001"], "training.steps=10000001 must be <= 10000000 with sample-level.noise-multiplier"),
        (["sample-level.max-epsilon=1"], r"sample-level.max-epsilon=1 must be >= .* noise-multiplier=\d+\.\d+ would do"),
    ],
)  # fmt: skip
def test_what_could_not_keep_its_claim_is_refused(settings: list[str], message: str) -> None:
    base = ["training.steps=5", "sample-level.noise-multiplier=1"]
    with pytest.raises(PlanError, match=message):
        check_config(load_config(None, base + settings))


def test_the_noise_multiplier_that_a_refusal_names_would_do() -> None:
    base = ["training.steps=5", "sample-level.noise-multiplier=1", "sample-level.max-epsilon=1"]
    with pytest.raises(PlanError) as refusal:
        check_config(load_config(None, base))
    named = str(refusal.value).split("noise-multiplier=")[-1].split()[0]

    check_config(load_config(None, [*base, f"sample-level.noise-multiplier={named}"]))


def test_noise_is_fresh_unless_the_run_is_a_simulation() -> None:
    """The same seed trains twice: equal only where the run says that its noise is worthless."""
    import torch  # noqa: PLC0415

    def trained(*settings: str) -> np.ndarray:
        config = load_config(None, ["training.steps=2", "sample-level.noise-multiplier=1", *settings])
        descent = private_descent(config, sample_level(config))
        assert descent is not None
        layer = torch.nn.Linear(3, 2)
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        inputs = torch.ones(20, 3)
        optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
        losses = Losses(
            of=lambda chosen: layer(inputs[chosen]).square().sum(),
            made_up=lambda: layer(torch.ones(1, 3)).square().sum(),
            count=20,
        )
        descent(layer, optimizer, losses, 7)
        return layer.weight.detach().numpy()

    assert not np.array_equal(trained(), trained())
    assert np.array_equal(trained("privacy.simulation=true"), trained("privacy.simulation=true"))
    assert private_descent(load_config(), sample_level(load_config())) is None


def test_steps_that_cannot_be_accounted_for_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The distribution of what a billion steps of little noise spend fits no memory: that is no accident of a run."""

    def too_large(*_: object) -> float:
        raise MemoryError

    monkeypatch.setattr(accounting, "epsilon_of_steps", too_large)
    settings = ["training.steps=5", "sample-level.noise-multiplier=1", "sample-level.max-epsilon=8"]

    with pytest.raises(
        PlanError, match="100 steps of a client take more memory to account for than there is"
    ):
        check_config(load_config(None, settings))
