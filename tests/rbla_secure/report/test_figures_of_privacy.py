"""Every line for people that has a figure of privacy: never below the figure; what is left and what is shown at least never above."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scipy.stats import norm

from rbla_secure.config.choices import Adjacency, Mechanism
from rbla_secure.errors import BudgetError, PrivacyError
from rbla_secure.evaluation.privacy_audit.suite import Row
from rbla_secure.planning import forecast as forecasts
from rbla_secure.planning.forecast import SampleForecast, forecast
from rbla_secure.planning.plan import Plan
from rbla_secure.planning.round_costs import RoundCost, RoundCosts, WeightedNoise
from rbla_secure.privacy import auditing, figures, ledger, lifetime_ledger, one_run, sample_ledger
from rbla_secure.privacy.auditing import Audit
from rbla_secure.privacy.ledger import Ledger, Observer
from rbla_secure.privacy.lifetime_ledger import LifetimeLedger
from rbla_secure.privacy.noise import Release
from rbla_secure.privacy.one_run import Guesses, OneRunAudit
from rbla_secure.privacy.sample_ledger import SampleLedger
from rbla_secure.privacy.standing import Standing
from rbla_secure.report import lifetime, privacy, privacy_audit, round_costs
from rbla_secure.report.lifetime import LevelSummary, LifetimeSummary
from rbla_secure.report.privacy import PrivacySummary, SamplePrivacySummary
from tests.rbla_secure.privacy import test_ledger as client_ledgers
from tests.rbla_secure.privacy import test_lifetime_ledger as lifetimes
from tests.rbla_secure.privacy import test_sample_accounting as sample_ledgers
from tests.support.federations import make_plan

# Rounded to nearest the first one is below itself, the second one above, and the last one nothing.
FIGURES = (1.0004, 12.3456, 0.00311, 0.0000399)


def noisy_plan(multiplier: float = 2.0, *, rounds: int = 1, **privacy: Any) -> Plan:
    return make_plan(
        noise_multiplier=multiplier, rounds=rounds, privacy={"mechanism": "central", **privacy},
        quantization={"bits": 8, "bound": 1.0},
    )  # fmt: skip


def of_a_run(value: float) -> list[str]:
    return PrivacySummary(
        views=dict.fromkeys(Observer, value), standing=Standing.FIXED, max_epsilon=0.0, delta=1e-5,
        adjacency=Adjacency.ZERO_OUT, mechanism=Mechanism.CENTRAL, colluders=0, attempts=1, simulation=False,
        recovered=(), sample_rate=1.0,
    ).lines()  # fmt: skip


def of_examples(value: float) -> list[str]:
    return SamplePrivacySummary(epsilon=value, delta=1e-5, attempts=1, simulation=False).lines()


def foretold(value: float) -> list[str]:
    plan = noisy_plan()
    assert plan.mechanism is not None
    found = forecast(plan, plan.mechanism)
    other = replace(
        found,
        views=dict.fromkeys(Observer, value),
        one_sum=value * (1 + 1e-12),
        lying_server=value,
        assumptions=(),
        advice=(),
    )
    return privacy.forecast_lines(other)


def foretold_of_examples(value: float) -> list[str]:
    return privacy.sample_forecast_lines(SampleForecast(epsilon=value, delta=1e-5, steps=3, assumptions=()))


def lifetime_of(level: LevelSummary) -> list[str]:
    return LifetimeSummary(
        client="a", label="ward", runs=1, rounds=1, attempts=1, delta=1e-5, client_level=level, sample_level=level
    ).lines()  # fmt: skip


def over_runs(value: float) -> list[str]:
    return lifetime_of(LevelSummary(epsilon=value, otherwise=value * 0.9999, limit=None, left=None))


def over_runs_with_a_limit(value: float) -> list[str]:
    return lifetime_of(LevelSummary(epsilon=value, otherwise=value, limit=50.0, left=50.0 - value))


def costs_of(value: float) -> RoundCosts:
    return RoundCosts(
        epsilon=value,
        rounds=(RoundCost(rounds=1, participations=1, noise_multiplier=value, signal_to_noise=(1.0, 1.0)),),
        weights=WeightedNoise(used=True, energy=0.5, epsilon=value),
    )


def of_weights(value: float) -> list[str]:
    return round_costs.round_cost_lines(costs_of(value), noisy_plan(band_weights="holders"))


def of_rounds(value: float) -> list[str]:
    title, _, rows = round_costs.round_cost_table(costs_of(value), noisy_plan())
    return [title, f"noise-multiplier={rows[0][1]}"]


def row(claimed: float, shown: float) -> Row:
    return Row(
        case="c",
        relation="r",
        observer="o",
        claimed=claimed,
        delta=1e-5,
        clopper_pearson=shown,
        gaussian=shown,
        most_clopper_pearson=claimed,
        most_gaussian=claimed,
        trials=9,
        trials_needed=None,
        too_few=False,
        seconds=1.0,
    )


def claimed_in_an_audit(value: float) -> list[str]:
    cells = privacy_audit._cells(row(value, 0.0))
    ceilings = [f"epsilon {cell}" for cell in cells[6].split(", ")]
    return [f"epsilon {cells[3]}", *ceilings, privacy_audit.refutation([row(value, 99.0)])]


def claimed_of_one_run(value: float) -> list[str]:
    shown = OneRunAudit(
        guesses=Guesses(canaries=9, made=9, correct=9), epsilon=99.0, delta=1e-5, mu=1e9, confidence=0.95
    )
    claim = Release(noise_multiplier=1 / value, slack=0.0, rho=0.0)
    return [
        refused(lambda: shown.check(value)),
        refused(lambda: shown.check_gaussian(claim)),
        refused(lambda: Audit(mu=1e9, confidence=0.95).check(claim)),
    ]


def shown_in_an_audit(value: float) -> list[str]:
    cells = privacy_audit._cells(row(99.0, value))
    return [f"at least {cells[4]}", f"at least {cells[5]}", privacy_audit.refutation([row(0.0, value)])]


def shown_by_one_run(value: float) -> list[str]:
    shown = OneRunAudit(
        guesses=Guesses(canaries=9, made=9, correct=9), epsilon=value, delta=1e-5, mu=value, confidence=0.95
    )
    claim = Release(noise_multiplier=1e9, slack=0.0, rho=0.0)
    return [
        refused(lambda: shown.check(0.0)),
        refused(lambda: shown.check_gaussian(claim)),
        refused(lambda: Audit(mu=value, confidence=0.95).check(claim)),
    ]


def left_over_runs(value: float) -> list[str]:
    return lifetime_of(LevelSummary(epsilon=9.0, otherwise=9.0, limit=9.0 + value, left=value))


def refused(check: Callable[[], object]) -> str:
    with pytest.raises((BudgetError, PrivacyError)) as refusal:
        check()
    return str(refusal.value)


# Where upper bounds are printed: the module that does, what prints, and where in its text the figures stand.
UPPER: list[tuple[ModuleType, Callable[[float], Sequence[str]], str]] = [
    (privacy, of_a_run, r"epsilon (\S+) against"),
    (privacy, of_examples, r"epsilon (\S+) against"),
    (privacy, foretold, r"(?:epsilon|cost) (\d\S*)(?: against|$)"),
    (privacy, foretold_of_examples, r": (\S+) against"),
    (lifetime, over_runs, r"epsilon (\S+) so far"),
    (lifetime, over_runs_with_a_limit, r"epsilon (\S+) of 50"),
    (round_costs, of_weights, r"epsilon (\S+?);? (?:the|with)"),
    (round_costs, of_rounds, r"(?:at epsilon |multiplier=)(\d[^\s:]*)"),
    (privacy_audit, claimed_in_an_audit, r"epsilon[ =](\S+)"),
    (one_run, claimed_of_one_run, r"claimed (\S+):"),
]
LOWER: list[tuple[ModuleType, Callable[[float], Sequence[str]], str]] = [
    (lifetime, left_over_runs, r", (\S+) left"),
    (privacy_audit, shown_in_an_audit, r"at least (\S+)"),
    (one_run, shown_by_one_run, r">= (\S+?),? "),
]


def printed(lines: Sequence[str], pattern: str) -> list[float]:
    found = [float(each) for line in lines for each in re.findall(pattern, line)]
    assert found, (lines, pattern)
    return found


def to_nearest(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    """The planted fault: figures as they were printed before."""
    for module in (*modules, auditing):
        for name in ("rounded_up", "rounded_down"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda value: f"{value:.3f}")


@pytest.mark.parametrize(("module", "lines", "pattern"), UPPER)
def test_an_upper_bound_is_printed_no_smaller_than_it_is(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, lines: Callable[[float], Sequence[str]], pattern: str
) -> None:
    """Each figure of each place, and within a thousandth or a hundredth of it; rounded to nearest, three in four are too small."""
    for value in FIGURES:
        assert all(
            value * 0.9999 <= each <= max(value + 0.001, 1.011 * value)
            for each in printed(lines(value), pattern)
        )
        assert max(printed(lines(value), pattern)) >= value

    to_nearest(monkeypatch, module)
    wrong = [value for value in FIGURES if min(printed(lines(value), pattern)) < value]
    assert {1.0004, 0.00311, 0.0000399} <= set(wrong)


@pytest.mark.parametrize(("module", "lines", "pattern"), LOWER)
def test_a_lower_bound_is_printed_no_larger_than_it_is(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, lines: Callable[[float], Sequence[str]], pattern: str
) -> None:
    """What is left of a budget and what an audit shows; rounded to nearest, 12.3456 is 12.346."""
    for value in FIGURES:
        assert all(
            min(value - 0.001, 0.99 * value) <= each <= value for each in printed(lines(value), pattern)
        )

    to_nearest(monkeypatch, module)
    assert max(printed(lines(12.3456), pattern)) > 12.3456


def test_refusals_of_ledgers_name_no_smaller_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of clients, of single examples and over runs: what it would come to is rounded up, and the limit is written in full."""
    limit, value = 1.0000001, 1.0004
    monkeypatch.setattr(Ledger, "_epsilon", lambda *_: value)
    monkeypatch.setattr(SampleLedger, "_epsilon", lambda *_: value)
    monkeypatch.setattr(LifetimeLedger, "epsilon", lambda *_: value)
    of_clients = Ledger.open(tmp_path, client_ledgers.make_terms(max_epsilon=limit))
    of_samples = SampleLedger.open(tmp_path, sample_ledgers.terms(max_epsilon=limit))
    of_runs = LifetimeLedger(Path("data-ward.json"), lifetimes.terms(max_epsilon=limit))

    def texts() -> list[str]:
        return [
            refused(lambda: of_clients.check(client_ledgers.make_entry(1))),
            refused(lambda: of_samples.record(sample_ledgers.entry(1, "a"))),
            *of_runs.exceeded([lifetimes.entry(1)]).values(),
        ]

    assert [printed([text], r"to (\d\S*),") for text in texts()] == [[1.001]] * 3
    assert all("1.0000001" in text for text in texts())
    for module in (ledger, sample_ledger, lifetime_ledger):
        to_nearest(monkeypatch, module)
    assert [printed([text], r"to (\d\S*),") for text in texts()] == [[1.0]] * 3


@pytest.mark.parametrize(("multiplier", "rounds", "before"), [(3000.0, 20, "0.003"), (10000.0, 1, "0.000")])
def test_an_epsilon_of_much_noise_is_no_false_claim(multiplier: float, rounds: int, before: str) -> None:
    """As printed it is private at its delta, by the exact curve (Balle and Wang 2018); what was printed before was not."""
    plan = noisy_plan(multiplier, rounds=rounds)
    assert plan.mechanism is not None
    mu = math.sqrt(rounds) / multiplier

    def delta_at(value: float) -> float:
        below, above = value / mu - mu / 2, value / mu + mu / 2
        return float(norm.sf(below) - math.exp(value) * norm.sf(above))

    (said,) = printed(
        privacy.forecast_lines(forecast(plan, plan.mechanism)), r"epsilon (\d\S*) against public"
    )

    assert said > 0
    assert delta_at(said) <= 1e-5 < delta_at(float(before))


def test_what_whoever_learns_the_draws_faces_is_rounded_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of the forecast that stands among its assumptions."""
    drawn = noisy_plan(adjacency="add-or-remove", sample_rate=0.5)
    monkeypatch.setattr(forecasts, "epsilon", lambda *_: 1.0004)

    assert printed(forecasts._of_draws(drawn), r"took part: epsilon (\S+) after") == [1.001]
    to_nearest(monkeypatch, forecasts)
    assert printed(forecasts._of_draws(drawn), r"took part: epsilon (\S+) after") == [1.0]


# What is formatted by a number of digits, of these names: {each.epsilon:.3f}, {delta:g}, {math.ceil(needed * 1000) / 1000:g}.
FORMATTED = re.compile(
    r"\{[^{}]*\b(?:epsilon|max_epsilon|delta|claimed|shown|spent|needed|limit|left)\b[^{}]*:[.\d]*[fge]\}"
)


def test_no_figure_of_privacy_is_formatted_elsewhere() -> None:
    """Every place that prints one asks `figures.py`; limits of other things are named here."""
    others = {
        "selection.py",
        "across_groups.py",
        "movement.py",
        "average_check.py",
        "step_decisions.py",
        "quantize.py",
        "opened_totals.py",
        "weight_claims.py",
    }
    root = Path(figures.__file__).parents[1]
    found = {
        f"{path.name}: {each}"
        for path in root.rglob("*.py")
        if path.name not in others
        for each in FORMATTED.findall(path.read_text())
    }

    assert FORMATTED.search('f"epsilon {found.epsilon:.3f}"')
    assert found == {"banded_matrix.py: {left:.3f}"}  # a share of noise
