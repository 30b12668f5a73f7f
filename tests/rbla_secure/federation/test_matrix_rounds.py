"""Noise that cancels over rounds, through plans, clients and coordinators: what is refused, spent, shown and begun anew."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from protocols.interface import SumResult
from rbla_secure.errors import PlanError, PrivacyError, RefusalError
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.server.opened_totals import release
from rbla_secure.federation.step_bound import average_limits
from rbla_secure.lora.adapter import AdapterLayout, LinearShape
from rbla_secure.planning.budget import participations
from rbla_secure.planning.forecast import forecast
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.accounting import epsilon
from rbla_secure.privacy.auditing import Audit, audit
from rbla_secure.privacy.ledger import Ledger, Observer
from rbla_secure.privacy.noise import Release
from rbla_secure.privacy.noise.banded_matrix import (
    BandedMatrixGaussian,
    MatrixNoise,
    banded_root,
    column_norm,
)
from rbla_secure.run_folder.folder import RunFolder
from tests.rbla_secure.federation.test_private_rounds import LAYOUT, Run, people, zeros
from tests.support.federations import RUN, InMemory, WhenSaved, beginning_with, make_config
from tests.support.noise_law import has_std

TIERS = {
    "large": {"rank": 3, "clients": 8, "cohort": 3},
    "small": {"rank": 1, "clients": 6, "cohort": 3},
}
MATRIX = {"mechanism": "banded-matrix", "separation": 2}
SETTINGS: dict[str, Any] = {
    "noise_multiplier": 1.5,
    "clip_norm": 1.0,
    "tiers": TIERS,
    "privacy": MATRIX,
    "rounds": 6,
}


def make_plan(**changes: Any) -> Plan:
    plan = Plan.build(make_config(**{**SETTINGS, **changes}), layout=LAYOUT, base_digest=bytes(32))
    return beginning_with(plan, zeros(plan))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_multiplier": 0.0}, "noise-multiplier above 0"),
        ({"privacy": {**MATRIX, "adjacency": "add-or-remove"}}, "privacy.adjacency=zero-out"),
        ({"privacy": {**MATRIX, "clipping": "adaptive", "count_noise": 1.0}}, "a fixed clip"),
        ({"privacy": {"mechanism": "banded-matrix"}}, "privacy.separation=0 must lie in 2..6"),
        ({"privacy": {**MATRIX, "separation": 7}}, "privacy.separation=7 must lie in 2..6"),
        ({"privacy": {**MATRIX, "separation": 3}}, "tiers.large.cohort=3 must be 1..2"),
        ({"tiers": {"one": {"rank": 1, "clients": 6}}}, "tiers.one.cohort=0 must be 1..3"),
        ({"privacy": {"mechanism": "central", "separation": 2}}, "privacy.separation=2 must be 0"),
        ({"quantization": {"bits": 27, "bound": 0.1}}, "the most that is drawn"),
    ],
)
def test_what_the_noise_does_not_cover_is_refused(changes: dict[str, Any], message: str) -> None:
    """By the plan, with the setting, its value and the rule."""
    with pytest.raises(PlanError) as refusal:
        make_plan(**changes)

    assert message in str(refusal.value)


def test_a_client_takes_part_in_its_own_rounds_alone() -> None:
    """A server that asks it again before its next turn, with the cohort of its last one, is refused."""
    plan = make_plan()
    first, second = plan.cohort(1), plan.cohort(2)

    assert not set(first) & set(second)
    assert participations(plan.config) == 3
    with pytest.raises(RefusalError, match="the cohort of round 2 is not the plan's"):
        plan.session(run=RUN, round_number=2, attempt=1, cohort=first)
    session = plan.session(run=RUN, round_number=2, attempt=1)
    stranger: Participant = people(plan, None)[first[0]]
    with pytest.raises(RefusalError, match=f"{first[0]} is not in the cohort of round 2"):
        stranger._planned(session)


# --- what a run spends and shows ---


class Rounds(Run):
    """A run whose noise cancels over rounds."""

    def __init__(self, path: Path, **changes: Any) -> None:
        self.plan = make_plan(secure_sum="masking", **changes)
        self.folder = RunFolder.create(path, self.plan.config)
        self.seen: list[tuple[int, int]] = []


def spent(rounds: int) -> float:
    return epsilon([Release(noise_multiplier=1.5, slack=0.0, rho=math.nan)] * rounds, 1e-5)


def test_the_ledger_counts_the_rounds_of_a_client(tmp_path: Path) -> None:
    """Six rounds of three each: as three releases of the multiplier, in the ledger as in the forecast."""
    run = Rounds(tmp_path / "run")
    run.go_on()

    found = Ledger.read(run.folder.path)

    assert found.epsilon(Observer.PUBLIC) == pytest.approx(spent(3), rel=1e-6)
    assert found.epsilon(Observer.PUBLIC) >= spent(3)
    assert run.plan.mechanism is not None
    told = forecast(run.plan, run.plan.mechanism)
    assert told.views[Observer.PUBLIC] == pytest.approx(spent(3), rel=1e-6)
    assert any("its turns are public" in text for text in told.assumptions)


def test_a_release_has_the_slack_of_every_row_that_shows_it() -> None:
    """A round of a client is in as many released vectors as its column is long, each with errors of its own."""
    plan, alone = make_plan(), make_plan(privacy={"mechanism": "central"})
    assert plan.mechanism is not None
    assert alone.mechanism is not None

    here, there = (each.mechanism.event({0: 6, 1: 3}) for each in (plan, alone))  # type: ignore[union-attr]

    assert here.slack == pytest.approx(2 * there.slack)
    assert (here.noise_multiplier, here.rho) == (there.noise_multiplier, there.rho)


def rows_after(run: Run, number: int) -> npt.NDArray[np.float64]:
    """Of the band that six clients hold, times six: the noise of all sums so far, in integer units."""
    adapter = dict(enumerate(run.folder.adapters(run.plan), start=1))[number]
    return adapter.rows[:1].astype(np.float64).ravel() * 6 * run.plan.quantizer.scale


def stds(plan: Plan) -> tuple[float, float]:
    """Of g over a_0, and of independent noise of the same multiplier."""
    mechanism = plan.mechanism
    assert isinstance(mechanism, BandedMatrixGaussian)
    return mechanism.component_stds(0)[0] / mechanism.column[0], math.sqrt(mechanism.variance())


def test_noise_of_rounds_cancels_in_the_adapter(tmp_path: Path) -> None:
    """After two rounds it is (1, 1/2) of g, not (1, 1): below that of independent noise, and told from it."""
    run = Rounds(tmp_path / "run", rounds=2)
    run.go_on()

    noise, (std, independent) = rows_after(run, 2), stds(run.plan)

    assert has_std(rows_after(run, 1), std)
    assert has_std(noise, std * math.hypot(1, 1 / 2))
    assert not has_std(noise, std * math.hypot(1, 1))
    assert not has_std(noise, independent * math.sqrt(2))


def test_whoever_goes_on_with_a_run_begins_a_new_matrix(tmp_path: Path) -> None:
    """The sums of the rounds before are nowhere in the folder, so their noise stays and new noise comes beside it."""
    run = Rounds(tmp_path / "run", rounds=2)

    def killed(*_: object) -> None:
        raise InterruptedError

    coordinator = run.coordinator()
    object.__setattr__(coordinator, "observers", [WhenSaved(killed)])
    with pytest.raises(InterruptedError):
        coordinator.run(run.folder.load(run.plan))
    run.go_on()

    noise, (std, _) = rows_after(run, 2), stds(run.plan)
    assert has_std(noise, std * math.hypot(1, 1))
    assert not has_std(noise, std * math.hypot(1, 1 / 2))
    assert Ledger.read(run.folder.path).epsilon(Observer.PUBLIC) == pytest.approx(spent(1), rel=1e-6)


def test_an_aborted_round_begins_a_new_matrix(tmp_path: Path) -> None:
    """Nothing of it is released, and the next round is noised like a first one."""
    run = Rounds(tmp_path / "run", rounds=3)
    silent = {(2, client): "mask_input" for client in run.plan.cohort(2)[:4]}

    run.go_on(InMemory(people(run.plan, None), silent_in=silent))

    records, (std, _) = run.folder.load(run.plan).records, stds(run.plan)
    assert [bool(record.aborted) for record in records] == [False, True, False]
    assert has_std(rows_after(run, 3) - rows_after(run, 1), std)
    assert has_std(rows_after(run, 3), std * math.sqrt(2))


def test_a_clients_limit_of_honest_steps_has_room_for_the_noise() -> None:
    """The growth over rounds and the norm of a column are in it, and no more: against independent noise of the same multiplier."""
    here, there = make_plan(), make_plan(privacy={"mechanism": "central"})
    ratio = (average_limits(here).bands[0] - 1) / (average_limits(there).bands[0] - 1)

    assert ratio == pytest.approx(
        column_norm((2, 1)) / 2 * math.sqrt(sum(0.25**k for k in range(6))), rel=0.02
    )


# --- the claim under attack ---

RUNS = 30_000
BOUND = 1.0
PLAYED = 8


@dataclass(frozen=True)
class Design:
    """A pipeline under attack: width of the band, rounds of the canary, and by how much noise is scaled."""

    column: tuple[int, ...] = banded_root(2)
    rounds: tuple[int, ...] = (1, 3, 5)
    scale: float = 1.0


def wide_plan(seed: int) -> Plan:
    """One row; every run of the attack is a coordinate of its own, and the noise of another seed another."""
    config = make_config(
        tiers={"all": {"rank": 1, "clients": 8, "cohort": 4}},
        seed=seed,
        rounds=PLAYED,
        noise_multiplier=1.5,
        clip_norm=BOUND,
        quantization={"bits": 16, "bound": BOUND},
        privacy={**MATRIX, "simulation": True},
    )
    layer = LinearShape(name="runs", in_features=RUNS - 1, out_features=1)
    return Plan.build(config, layout=AdapterLayout(layers=(layer,), scaling=1.0), base_digest=bytes(32))


class Scaled(MatrixNoise):
    """With a planted fault: noise of another spread, and nobody checks whose rounds are close."""

    def __init__(self, design: Design) -> None:
        super().__init__(design.column)
        self._scale = design.scale

    def _check_apart(self, *_: Any) -> None:
        pass

    def add(self, sums: Any, stds: Mapping[int, float], stream: Any, **given: Any) -> Any:
        return super().add(sums, {i: std * self._scale for i, std in stds.items()}, stream, **given)


def scores(plan: Plan, design: Design, *, canary: bool) -> npt.NDArray[np.float64]:
    """The best test there is: what the canary adds to the combined sums, times what was released of them."""
    mechanism, noise = plan.mechanism, Scaled(design)
    assert mechanism is not None
    published = []
    for number in range(1, PLAYED + 1):
        value = plan.quantizer.levels if canary and number in design.rounds else 0
        sums = {0: np.full(RUNS, value, dtype=np.int64)}
        session = plan.session(run=RUN, round_number=number, attempt=1)
        result = SumResult(survivors=session.members, sums=sums, refused={})
        total = release(plan, session, mechanism, result, noise).totals[0]
        published.append(total.weighted_sum)
    combining = np.zeros((PLAYED, PLAYED))
    for back, entry in enumerate(design.column):
        combining += entry * np.eye(PLAYED, k=-back)
    there = combining[:, [number - 1 for number in design.rounds]].sum(axis=1)
    found: npt.NDArray[np.float64] = there @ (combining @ np.array(published))
    return found


def attacked(design: Design) -> tuple[Audit, Release]:
    """What the attack shows, and what three rounds of one client are said to spend."""
    there, absent = wide_plan(1), wide_plan(2)
    assert there.mechanism is not None
    one = there.mechanism.event({0: 4})
    result = audit(scores(there, design, canary=True), scores(absent, design, canary=False))
    multiplier = one.noise_multiplier / math.sqrt(3)
    return result, Release(noise_multiplier=multiplier, slack=3 * one.slack, rho=3 * one.rho)


def test_the_pipeline_keeps_its_claim_over_rounds_and_the_claim_is_tight() -> None:
    """The best attack on three rounds of a client shows nine tenths of what is claimed, and no more than it."""
    result, claimed = attacked(Design())

    result.check(claimed)
    assert result.mu > 0.9 / claimed.noise_multiplier


@pytest.mark.parametrize(
    "design",
    [
        Design(column=banded_root(4), scale=column_norm(banded_root(4)) / column_norm(banded_root(2))),
        Design(scale=16 / column_norm(banded_root(2))),
        Design(rounds=(1, 2, 3)),
        Design(rounds=tuple(range(1, PLAYED + 1))),
    ],
    ids=[
        "a band wider than rounds are apart",
        "the norm of a column forgotten",
        "rounds next to each other",
        "every round",
    ],
)
def test_a_planted_fault_is_refuted(design: Design) -> None:
    """Each shows more than three rounds of one client are said to."""
    result, claimed = attacked(design)

    with pytest.raises(PrivacyError, match="the audit shows mu >="):
        result.check(claimed)


def test_without_the_rounds_before_nothing_is_released() -> None:
    """A plan of a matrix has its state; one of independent noise has none."""
    plan = make_plan()
    assert plan.mechanism is not None
    session = plan.session(run=RUN, round_number=1, attempt=1)
    sums = {segment.index: np.zeros(segment.length, dtype=np.int64) for segment in session.segments}

    with pytest.raises(AssertionError, match="the rounds before"):
        release(plan, session, plan.mechanism, SumResult(survivors=session.members, sums=sums, refused={}))
    assert make_plan(privacy={"mechanism": "central"}).correlated_noise() is None
    assert isinstance(plan.correlated_noise(), MatrixNoise)
