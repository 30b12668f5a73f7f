"""A budget is held against what the plan's own mechanism spends, on its own grid: before the run, as `account` and ledgers count."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rbla_secure.config import PrivacyConfig
from rbla_secure.errors import BudgetError, PlanError
from rbla_secure.federation.server.spending import Spending, terms_of
from rbla_secure.planning import plan as plans
from rbla_secure.planning.budget import noise_for
from rbla_secure.planning.checks import check_config
from rbla_secure.planning.forecast import forecast
from rbla_secure.planning.plan import Plan
from rbla_secure.planning.round_costs import round_costs
from rbla_secure.privacy import accounting
from rbla_secure.privacy.accounting import epsilon, noise_multiplier_for
from rbla_secure.privacy.figures import rounded_up
from rbla_secure.privacy.ledger import Ledger
from rbla_secure.privacy.noise import Release
from rbla_secure.run_folder.audit_log import FILE_NAME, AuditLog, EventKind, LogEntry
from tests.support.federations import RUN, make_plan, make_session

# So coarse a grid that sigma is 5 units: the ledger counts a variance of 4 square units less, a multiplier of 2.74 instead of 3.
COARSE: dict[str, Any] = {
    "tiers": {"a": {"rank": 1, "clients": 5}},
    "clip_norm": 0.001,
    "noise_multiplier": 3.0,
    "quantization": {"bits": 2, "bound": 1.0},
    "rounds": 3,
}
CENTRAL = {"mechanism": "central"}
DRAWS = {"adjacency": "add-or-remove", "sample_rate": 0.5, "colluders": 0}
# Shares of clients on the finest grid that their ring holds: the same, by far less.
SHARES: dict[str, Any] = {"noise_multiplier": 2.0, "secure_sum": "masking", "rounds": 20}


def coarse(*, limit: float = 0.0, privacy: dict[str, Any] | None = None, **changes: Any) -> Plan:
    return make_plan(**{**COARSE, "privacy": {**CENTRAL, "max_epsilon": limit, **(privacy or {})}, **changes})


def shares(*, limit: float = 0.0, privacy: dict[str, Any] | None = None, **changes: Any) -> Plan:
    return make_plan(
        **{**SHARES, "privacy": {"colluders": 1, "max_epsilon": limit, **(privacy or {})}, **changes}
    )


def with_limit(plan: Plan, limit: float) -> PrivacyConfig:
    return plan.config.privacy.model_copy(update={"max_epsilon": limit})


def foretold(plan: Plan) -> float:
    """What `account` prints against the claimed observer that learns most."""
    assert plan.mechanism is not None
    found = forecast(plan, plan.mechanism).views
    return max(found[observer] for observer in plan.promises.claimed)


def run_rounds(plan: Plan, folder: Path) -> int:
    """How many rounds of a plan its ledger lets be trained and spent."""
    log = AuditLog.create(folder / FILE_NAME, LogEntry.of_run(EventKind.RUN_CREATED))
    spending = Spending(plan, Ledger.open(folder, terms_of(plan, RUN)), log)
    for done in range(plan.config.rounds):
        session = make_session(plan, round_number=done + 1)
        try:
            spending.before_round(session, plan.initial_adapter)
            for part in plan.promises.shown:
                spending.before_reveal(session, part, session.members)
        except BudgetError:
            return done
    return plan.config.rounds


def ideal(multiplier: float, rounds: int) -> float:
    """What ideal noise of a configured multiplier would spend."""
    return epsilon([Release(noise_multiplier=multiplier, slack=0.0, rho=0.0)] * rounds, 1e-5)


@pytest.mark.parametrize("make", [coarse, shares])
def test_a_budget_below_the_plans_own_figure_is_refused(make: Callable[..., Plan]) -> None:
    """Between what ideal noise spends and what the mechanism does: the configuration passes, the plan is refused with its figure."""
    exactly = foretold(make())
    between = (ideal(make().config.noise_multiplier, make().config.rounds) + exactly) / 2

    check_config(make().config.model_copy(update={"privacy": with_limit(make(), between)}))
    with pytest.raises(PlanError, match="on the plan's grid") as refusal:
        make(limit=between)
    assert f"must be >= {rounded_up(exactly)}, which" in str(refusal.value)
    assert make(limit=exactly).mechanism is not None


def test_what_is_accepted_is_run_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At exactly the foretold figure every round fits. The control does not ask the mechanism: its ledger stops before the end."""
    exactly = foretold(coarse())
    (tmp_path / "ours").mkdir()
    assert run_rounds(coarse(limit=exactly), tmp_path / "ours") == 3

    monkeypatch.setattr(plans, "check_planned_budget", lambda *_: None)
    (tmp_path / "careless").mkdir()
    assert run_rounds(coarse(limit=exactly * 0.97), tmp_path / "careless") == 2


@pytest.mark.parametrize("changes", [{}, {"tiers": {"a": {"rank": 1, "clients": 6, "cohort": 5}}}])
def test_the_noise_that_is_named_would_do(changes: dict[str, Any]) -> None:
    """Of everybody and of drawn cohorts: a plan with it is accepted, with 2 % less it is not."""
    limit = foretold(coarse(**changes)) * 0.98
    with pytest.raises(PlanError, match=r"noise-multiplier=(\S+) would do, or a finer grid") as refusal:
        coarse(limit=limit, **changes)
    named = float(str(refusal.value).split("noise-multiplier=")[-1].split()[0])

    assert coarse(limit=limit, noise_multiplier=named, **changes).config.noise_multiplier == named
    with pytest.raises(PlanError, match="must be >="):
        coarse(limit=limit, noise_multiplier=named * 0.98, **changes)


def test_a_budget_of_secret_draws_is_held_against_the_sampled_mechanism(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The figure of the refusal is what `account` prints of the sampled rounds."""
    # The search for the noise that would do takes seconds, and is tried elsewhere.
    monkeypatch.setattr(accounting, "noise_multiplier_for", lambda *_, **__: 5.0)
    exactly = foretold(coarse(privacy=DRAWS, rounds=1))

    with pytest.raises(PlanError, match="on the plan's grid") as refusal:
        coarse(limit=exactly * 0.98, privacy=DRAWS, rounds=1)
    assert f"must be >= {rounded_up(exactly)}, which" in str(refusal.value)
    assert coarse(limit=exactly, privacy=DRAWS, rounds=1).config.privacy.sample_rate == 0.5


def test_without_room_for_more_noise_none_is_named() -> None:
    """Sums of 15 bits hold this noise, and not the thousandfold that the budget takes."""
    tight = {"quantization": {"bound": 0.1, "ring_bits": 16}}
    plan = shares(**tight)
    needed = noise_for(2e9, plan.promises, plan.mechanism_with)

    assert needed is None
    assert noise_for(1.0, plan.promises, plan.mechanism_with) == pytest.approx(1.0, rel=1e-2)


@pytest.mark.parametrize("make", [coarse, shares])
def test_every_number_of_rounds_of_the_table_keeps_its_epsilon(make: Callable[..., Plan]) -> None:
    """Each row as a plan of its own spends the table's epsilon or less, and the last one is the plan itself."""
    whole = make(rounds=12)
    table = round_costs(whole)

    assert table is not None
    assert table.epsilon == foretold(whole)
    assert table.rounds[-1].noise_multiplier == pytest.approx(whole.config.noise_multiplier, rel=1e-6)
    for row in table.rounds:
        plan = make(rounds=row.rounds, noise_multiplier=row.noise_multiplier)
        # The coarse grid has no room for so little noise as two rounds take: they spend less.
        assert 0.6 * table.epsilon < foretold(plan) <= table.epsilon


def test_a_table_of_ideal_noise_would_name_too_little() -> None:
    """The control: what ideal noise takes for twelve and eight rounds, as a plan on the coarse grid, exceeds the epsilon."""
    target = ideal(6.0, 12)

    for rounds in (8, 12):
        nominal = noise_multiplier_for(target, delta=1e-5, releases=rounds)
        assert foretold(coarse(rounds=rounds, noise_multiplier=nominal)) > 1.01 * target
    table = round_costs(coarse(rounds=12, noise_multiplier=7.0, limit=target))
    assert table is not None
    for row in table.rounds[-2:]:
        assert foretold(coarse(rounds=row.rounds, noise_multiplier=row.noise_multiplier)) <= target


def test_the_smallest_clip_norm_of_adaptive_clipping_is_what_counts() -> None:
    """Its grid is the coarsest beside it: the plan is held against that, as `account` is."""
    privacy = {"clipping": "adaptive", "count_noise": 50.0, "min_clip": 0.001, "max_clip": 1.0}
    plan = coarse(privacy=privacy, clip_norm=1.0)
    assert plan.mechanism is not None

    exactly = foretold(plan)
    largest = plan.mechanism.event({0: 5}).noise_multiplier
    assert exactly > 1.005 * ideal(largest, 3)
    assert coarse(privacy=privacy, clip_norm=1.0, limit=exactly).config.privacy.max_epsilon == exactly
    with pytest.raises(PlanError, match="on the plan's grid"):
        coarse(privacy=privacy, clip_norm=1.0, limit=exactly * 0.999)
