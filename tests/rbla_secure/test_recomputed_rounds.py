"""Epsilons of noise that cancels over rounds and of secret draws, computed anew from what the server of a real run really did."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols.session import ClientId, Session
from rbla_secure.cli import main
from rbla_secure.federation.secret_cohorts import Draws, SecretCohorts
from rbla_secure.federation.server.spending import Spending
from rbla_secure.planning import cohort
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.ledger import Shown
from rbla_secure.privacy.noise.banded_matrix import BandedMatrixGaussian, MatrixNoise
from rbla_secure.privacy.noise.central import CentralGaussian
from rbla_secure.seeding import derive_key
from tests.support.own_epsilon import composed
from tests.support.recorded_rounds import RecordedRounds, published_column, strategy_of, watching
from tests.support.tiny_job import job, write_images

TIERS = ("phone", "laptop", "workstation", "datacenter")
COMMON: dict[str, object] = {
    "noise_multiplier": 2.0,
    "rounds": 6,
    "training__steps": 1,
    "min_holders": 2,
    "quantization__bits": 18,
}


def in_turns(separation: int, **changes: object) -> dict[str, object]:
    """Two of each tier in every round, so many rounds apart."""
    tiers: dict[str, object] = {f"tiers__{tier}__clients": 2 * separation for tier in TIERS}
    tiers |= {f"tiers__{tier}__cohort": 2 for tier in TIERS}
    matrix = {"privacy__mechanism": "banded-matrix", "privacy__separation": separation, "secure_sum": "plain"}
    return COMMON | tiers | matrix | changes


def by_draws(**changes: object) -> dict[str, object]:
    """Ten clients, each in three rounds of ten."""
    central = {"privacy__mechanism": "central", "privacy__adjacency": "add-or-remove", "secure_sum": "plain"}
    return COMMON | central | {"privacy__sample_rate": 0.3} | changes


MATRICES: dict[str, dict[str, object]] = {
    "two apart": in_turns(2),
    "two apart, drop-outs": in_turns(2, dropout_rate=0.15),
    "two apart, masked, drop-outs": in_turns(2, dropout_rate=0.1, secure_sum="masking"),
    "three apart, lora_B alone, drop-outs": in_turns(3, dropout_rate=0.1, lora__factors="lora-b"),
    "three apart, little noise": in_turns(3, noise_multiplier=0.6),
    "a round begins anew, another delta": in_turns(2, dropout_rate=0.3, seed=3, privacy__delta=1e-7),
}
DRAWS: dict[str, dict[str, object]] = {
    "three of ten": by_draws(),
    "drop-outs": by_draws(dropout_rate=0.3),
    "half of them, little noise": by_draws(privacy__sample_rate=0.5, noise_multiplier=0.8, dropout_rate=0.1),
    "few, lora_B alone, another delta": by_draws(
        privacy__sample_rate=0.1, lora__factors="lora-b", privacy__delta=1e-7
    ),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


def run(images: Path, folder: Path, keys: dict[str, object], patch: pytest.MonkeyPatch) -> RecordedRounds:
    """A run, and what its server did; whatever was patched for it is taken back."""
    with watching(patch) as watched:
        assert main(["run", "--out", str(folder), *job(images, **keys)]) == 0
    patch.undo()
    return RecordedRounds(folder=folder, watched=watched)


def account(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, float | None]:
    """By observer, what `account` tells of a folder."""
    capsys.readouterr()
    assert main(["account", str(folder), "--json"]) == 0
    views: dict[str, float | None] = json.loads(capsys.readouterr().out.splitlines()[-1])["views"]
    return views


def entries(folder: Path) -> list[dict[str, Any]]:
    """Of the ledger, as they stand in its file."""
    found: list[dict[str, Any]] = json.loads((folder / "privacy.json").read_text())["entries"]
    return found


def check_views(views: dict[str, float | None], ours: float) -> None:
    """Readers and clients alike, never below; nothing is claimed against the server."""
    assert views["server"] is views["server-with-clients"] is None
    for observer in ("public-reader", "participant"):
        figure = views[observer]
        assert figure == pytest.approx(ours, rel=1e-3), observer
        assert figure is not None
        assert figure >= ours * (1 - 1e-6)


# --- noise that cancels over rounds ---


def began_anew(made: RecordedRounds, band: int) -> list[list[int]]:
    """The rounds that opened a band, parted where a round between them did not."""
    rounds = [each.round for each in made.watched.opened if band in each.published]
    breaks = [at for at in range(1, len(rounds)) if rounds[at] != rounds[at - 1] + 1]
    return [list(part) for part in np.split(np.array(rounds), breaks)]


def check_strategy(made: RecordedRounds) -> int:
    """Noise was mixed by the banded square root of prefix sums, anew after a round that left a band closed; how many bands that were."""
    count, width, parted = len(made.lines), made.config["privacy"]["separation"], 0
    for band in made.bands:
        expected = np.zeros((count, count))
        parts = began_anew(made, band)
        parted += len(parts) > 1
        for part in parts:
            for row in part:
                for back, entry in enumerate(published_column(width)):
                    expected[row - 1, row - 1 - back] += entry * (row - back in part)
        found, _ = strategy_of(made.watched.opened, band, count)
        assert np.abs(found - expected).max() < 1e-6
    return parted


@pytest.mark.parametrize("name", MATRICES)
def test_rounds_of_a_matrix_cost_what_their_noise_and_turns_say(
    name: str,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Account, ledger and metrics, to a thousandth; the strategy that the noise followed is the published one."""
    made = run(images, tmp_path / "run", MATRICES[name], monkeypatch)

    check_views(account(made.folder, capsys), made.epsilon())
    lines, ledger = made.lines, entries(made.folder)
    assert [entry["clients"] for entry in ledger] == [line["survivors"] for line in lines]
    delta = made.config["privacy"]["delta"]
    for observer in ("public", "participant"):
        told = [(entry["clients"], entry[observer]["noise_multiplier"]) for entry in ledger]
        assert composed(told, delta) == pytest.approx(made.epsilon(), rel=1e-3)
    assert any(line["dropped"] for line in lines) == ("dropout_rate" in MATRICES[name])
    assert bool(check_strategy(made)) == any(line["refused_bands"] for line in lines)
    assert bool(check_strategy(made)) or "anew" not in name


def scaled_noise(patch: pytest.MonkeyPatch) -> None:
    """A tenth less noise than the ledger counts."""
    for mechanism in (CentralGaussian, BandedMatrixGaussian):
        stds: Any = mechanism.component_stds

        def less(self: Any, band: int, stds: Any = stds) -> tuple[float, ...]:
            return tuple(0.9 * each for each in stds(self, band))

        patch.setattr(mechanism, "component_stds", less)


def norm_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Noise scaled for the first entry of a column."""
    patch.setattr(
        BandedMatrixGaussian, "component_stds", lambda self, _: (self.column[0] * math.sqrt(self.variance()),)
    )


def turns_next_to_each_other(patch: pytest.MonkeyPatch) -> None:
    """The schedule goes forward by half a cohort, and nobody checks."""

    def scheduled(tiers: Any, *, seed: int, round_number: int) -> tuple[ClientId, ...]:
        assert seed == 0
        chosen = []
        for name, tier in sorted(tiers.items()):
            names = cohort.tier_clients(name, tier)
            chosen += [names[(round_number + place) % len(names)] for place in range(tier.cohort)]
        return tuple(sorted(chosen))

    patch.setattr(cohort, "scheduled_cohort", scheduled)
    patch.setattr(MatrixNoise, "_check_apart", lambda *_: None)


def a_participation_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Every client takes part in one round more than the ledger counts."""
    spend = Spending.before_reveal

    def careless(self: Spending, session: Session, part: Shown, contributors: tuple[ClientId, ...]) -> None:
        counted = [c for at, c in enumerate(sorted(contributors)) if at % 3 != session.round // 2 % 3]
        spend(self, session, part, tuple(counted))

    patch.setattr(Spending, "before_reveal", careless)


def noise_drawn_short(patch: pytest.MonkeyPatch) -> None:
    """What is published has a tenth of its noise taken off."""
    add = MatrixNoise.add

    def less(self: MatrixNoise, sums: Any, *rest: Any, **named: Any) -> Any:
        found = add(self, sums, *rest, **named)
        return {band: 0.9 * each + 0.1 * sums[band] for band, each in found.items()}

    patch.setattr(MatrixNoise, "add", less)


@pytest.mark.parametrize(
    "fault",
    [scaled_noise, norm_forgotten, turns_next_to_each_other, a_participation_forgotten, noise_drawn_short],
)
def test_a_fault_in_the_matrix_shows(
    fault: Callable[[pytest.MonkeyPatch], None],
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The controls: with each what is printed is too small."""
    fault(monkeypatch)
    made = run(images, tmp_path / "run", MATRICES["two apart"], monkeypatch)

    printed = account(made.folder, capsys)["public-reader"]
    assert printed is not None
    assert printed < 0.97 * made.epsilon()


# --- secret draws ---


@pytest.mark.parametrize("name", DRAWS)
def test_rounds_of_secret_draws_cost_what_noise_and_keys_say(
    name: str,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Account, ledger and metrics, to a thousandth, for an example that is added as for one that is removed."""
    made = run(images, tmp_path / "run", DRAWS[name], monkeypatch)

    above, below = made.epsilon_of_draws(), made.epsilon_of_draws(upper=False)
    assert above == pytest.approx(below, rel=2e-3)
    check_views(account(made.folder, capsys), (above + below) / 2)
    everybody = made.lines[0]["cohort"]
    ledger = entries(made.folder)
    assert [entry["clients"] for entry in ledger] == [everybody] * len(made.lines)
    wanted = made.config["privacy"]["sample-rate"], made.config["noise-multiplier"]
    for entry in ledger:
        for observer in ("public", "participant"):
            assert entry[observer]["sample_rate"] == wanted[0]
            assert entry[observer]["noise_multiplier"] == pytest.approx(wanted[1], rel=1e-6)
    for line in made.lines:
        assert set(line["survivors"]) | set(line["dropped"]) == made.watched.asked[line["round"]]


def divided_by_who_came(patch: pytest.MonkeyPatch) -> None:
    """The adapter tells how many were drawn."""

    def told(self: Plan, session: Session, index: int, survivors: Any) -> float:
        assert self.config.privacy.sample_rate < 1
        return float(max(1, len(set(session.segments[index].holders) & set(survivors))))

    patch.setattr(Plan, "denominator", told)


def draws_from_the_seed(patch: pytest.MonkeyPatch) -> None:
    """Whoever knows the configuration knows them."""

    def of(cls: type[SecretCohorts], plan: Plan) -> SecretCohorts:
        return cls(derive_key(plan.config.seed, "draws"), rate=plan.config.privacy.sample_rate)

    patch.setattr(SecretCohorts, "of", classmethod(of))


def drawn_more_often(patch: pytest.MonkeyPatch) -> None:
    """By a fifth more than the ledger counts."""
    takes_part = Draws.takes_part
    patch.setattr(
        Draws,
        "takes_part",
        lambda self, number: takes_part(Draws(key=self.key, rate=1.2 * 0.3), number),
    )


@pytest.mark.parametrize("fault", [divided_by_who_came, draws_from_the_seed, drawn_more_often, scaled_noise])
def test_a_fault_in_the_draws_shows(
    fault: Callable[[pytest.MonkeyPatch], None],
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The controls: a draw that is public, one that is made too often, and too little noise."""
    fault(monkeypatch)
    made = run(images, tmp_path / "run", DRAWS["three of ten"], monkeypatch)

    printed = account(made.folder, capsys)["public-reader"]
    assert printed is not None
    assert printed < 0.97 * made.epsilon_of_draws(upper=False)
