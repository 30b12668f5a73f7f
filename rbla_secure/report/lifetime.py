"""Lifetime budgets for people and machines: one client's folder, or a folder with the folders of all clients."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from rbla_secure.federation.client.budget_folder import is_budget_folder, look_at_budgets
from rbla_secure.privacy.figures import exact, rounded_down, rounded_up
from rbla_secure.privacy.lifetime_ledger import LifetimeLedger

OF_DRAWS = (
    "rounds by secret draws (privacy.sample-rate) count in full, each that the client was drawn for, as they do against whoever learns its "
    "draws; what sampling hides from others is not taken off"
)


class LevelSummary(BaseModel):
    """One level of a ledger; an epsilon is null where nothing bounds it, limit and left where there is no limit.

    `epsilon` is what counts against the limit; `otherwise` is the figure under the weaker assumption that the lines name.
    `left` is the limit less epsilon: a further run may cost more than that by itself, for runs compose to less than their sum.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epsilon: float | None
    otherwise: float | None
    limit: float | None
    left: float | None

    @classmethod
    def of(cls, epsilon: float, otherwise: float, limit: float) -> Self:
        """The figures of a level; a limit of 0 is none."""
        return cls(
            epsilon=_finite(epsilon),
            otherwise=_finite(otherwise),
            limit=limit or None,
            left=max(0.0, limit - epsilon) if limit else None,
        )


class LifetimeSummary(BaseModel):
    """One ledger in figures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    client: str
    label: str
    runs: int
    rounds: int
    attempts: int
    delta: float
    client_level: LevelSummary
    sample_level: LevelSummary

    @classmethod
    def of(cls, ledger: LifetimeLedger) -> Self:
        """The figures of a ledger."""
        terms, entries = ledger.terms, ledger.entries
        return cls(
            client=terms.client,
            label=terms.label,
            runs=len({entry.run for entry in entries}),
            rounds=len({(entry.run, entry.round) for entry in entries}),
            attempts=len(entries),
            delta=terms.delta,
            client_level=LevelSummary.of(ledger.epsilon(), ledger.expected_epsilon(), terms.max_epsilon),
            sample_level=LevelSummary.of(
                ledger.sample_epsilon(), ledger.fixed_sample_epsilon(), terms.max_sample_epsilon
            ),
        )

    def lines(self) -> list[str]:
        """The figures for people."""
        planned, fewest = "if no more dropped out than planned", "the fewest clients that could be summed"
        fixed, any_settings = (
            "if no run's settings followed from earlier results",
            "any settings of later runs",
        )
        counts = f"{self.runs} runs, {self.rounds} rounds, {self.attempts} attempts"
        return [
            f"data {self.label!r} of {self.client}: {counts}, delta {exact(self.delta)}",
            f"  client level: {_level(self.client_level, planned, fewest)}",
            f"  single examples: {_level(self.sample_level, fixed, any_settings)}",
        ]


def budgets_in(folder: Path) -> list[LifetimeSummary] | None:
    """The ledgers of a client's folder, or of the folders of clients in it; None where it is neither.

    Raises:
        PrivacyError: A ledger is missing, damaged, shortened, edited, or cannot be accounted for.
    """
    folders = [folder] if is_budget_folder(folder) else sorted(filter(is_budget_folder, _inside(folder)))
    if not folders:
        return None
    return [LifetimeSummary.of(ledger) for each in folders for ledger in look_at_budgets(each).ledgers]


def budget_lines(found: Sequence[LifetimeSummary]) -> list[str]:
    """Return, for people, per label the client that has spent most at either level, and the number of its clients."""
    if not found:
        return ["no run has been counted here yet"]
    lines = []
    for label in sorted({each.label for each in found}):
        having = [each for each in found if each.label == label]
        most = {
            max(having, key=_spent_at_client_level).client,
            max(having, key=_spent_at_sample_level).client,
        }
        if len(having) > 1:
            lines.append(f"data {label!r}: {len(having)} clients; those that have spent most:")
        lines += [line for each in having if each.client in most for line in each.lines()]
    return [*lines, OF_DRAWS]


def _inside(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]


def _spent_at_client_level(each: LifetimeSummary) -> float:
    return math.inf if each.client_level.epsilon is None else each.client_level.epsilon


def _spent_at_sample_level(each: LifetimeSummary) -> float:
    return math.inf if each.sample_level.epsilon is None else each.sample_level.epsilon


def _level(level: LevelSummary, assumption: str, counted: str) -> str:
    if level.epsilon is None:
        return "epsilon is not bounded: a run had no noise that protects it"
    spent = rounded_up(level.epsilon)
    if level.limit is None or level.left is None:
        text = f"epsilon {spent} so far, a reading: there is no limit"
    else:
        text = f"epsilon {spent} of {exact(level.limit)}, {rounded_down(level.left)} left"
    if level.otherwise is None or math.isclose(level.otherwise, level.epsilon, rel_tol=1e-6):
        return text
    return f"{text} (counted over {counted}; {rounded_up(level.otherwise)} {assumption})"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
