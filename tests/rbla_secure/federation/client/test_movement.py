"""What a client accepts of a model: everything that honest rounds do, and nothing that they cannot."""

from typing import Any

import numpy as np
import pytest

from rbla_secure.errors import RefusalError
from rbla_secure.federation.client.movement import Movement
from rbla_secure.federation.server.previous_step import PreviousStep
from rbla_secure.federation.server.step_checks import PublicTests, StepChecks
from rbla_secure.federation.step_bound import average_limits, step_limit
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.planning.plan import Plan
from tests.support.defended import defended_round
from tests.support.federations import (
    InMemory,
    beginning_with,
    drift,
    make_adapter,
    make_participants,
    make_plan,
)

MASKED: dict[str, Any] = {"secure_sum": "masking", "masking": {"profile": "semi-honest"}}
WEIGHTED: dict[str, Any] = {
    "noise_multiplier": 1.0,
    "privacy": {"colluders": 0, "band_weights": "holders", "rank_decay": 2.0},
}


def far(adapter: Adapter, seed: int) -> Rows:
    """Local training far beyond the clip norm, everyone in one direction."""
    sign = 1 if seed % 2 else -1
    return (adapter.rows + np.float32(sign * 1e3)).astype(np.float32)


def movement(before: Any, after: Any, rounds: int = 1) -> Movement:
    return Movement(before=before.astype(np.float32), after=after.astype(np.float32), rounds=rounds)


@pytest.mark.parametrize("train", [drift, far])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        MASKED,
        {"lora": {"factors": "lora-b"}},
        {"weights": "examples", "examples_cap": 20},
        {"server_learning_rate": 2.5},
        {"robustness": {"f": 2}},
        {**MASKED, "noise_multiplier": 1.0, "privacy": {"colluders": 0}},
        {**MASKED, **WEIGHTED},
        {**MASKED, **WEIGHTED, "robustness": {"max_step_norm": 0.05}},
        {"robustness": {"filter": "centered-clipping"}},
        {"robustness": {"max_step_norm": 0.01}},
        {"robustness": {"max_accuracy_drop": 0.05}},
    ],
)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_every_honest_run_is_accepted(changes: dict[str, Any], train: Any, scale: float) -> None:
    """By clients of every rank, after every round, and over rounds that they missed."""
    plan = make_plan(rounds=6, **changes)
    rows = make_adapter(plan).rows * np.float32(scale)
    adapters = [Adapter(layout=plan.layout, rows=rows)]
    tests = PublicTests(
        accuracy=lambda adapter: float(np.abs(adapter.rows[0, 0] * 1e3) % 1), triggers=lambda _: {}
    )
    step_checks = StepChecks(wanted=plan.config.robustness, tests=tests, first=adapters[0])
    beginning_with(plan, adapters[0])
    last = PreviousStep(plan)
    for number in range(1, 7):
        people = make_participants(plan, train=dict.fromkeys(plan.ranks, train), examples=7)
        outcome = defended_round(
            plan,
            adapters[-1],
            InMemory(people),
            round_number=number,
            step_checks=step_checks,
            previous_step=last,
        )
        step_checks.remember(outcome.adapter)
        last.round_ended(adapters[-1], outcome.adapter)
        adapters.append(outcome.adapter)

    for start, before in enumerate(adapters):
        for rounds, after in enumerate(adapters[start + 1 :], start=1):
            for rank in (1, 3):
                movement(before.rows[:rank], after.rows[:rank], rounds).check(plan, average_limits(plan))


def changed(plan: Plan, row: int, by: float) -> tuple[Rows, Rows]:
    before = make_adapter(plan).rows
    after = before.copy()
    after[row, 4] += np.float32(by)
    return before, after


@pytest.mark.parametrize("rounds", [1, 2, 10])
@pytest.mark.parametrize("row", [0, 2])
def test_one_value_moves_by_its_bound_in_a_round(rounds: int, row: int) -> None:
    """A tenth a round is the grid's bound; a hundredth more than that is refused by name, whoever holds the row."""
    plan = make_plan(clip_norm=10.0)

    movement(*changed(plan, row, 0.1 * rounds), rounds).check(plan, average_limits(plan))

    band = "rows 2-3" if row else "rows 1-1"
    with pytest.raises(RefusalError, match=f"a value of {band} has moved by .* in {rounds} rounds"):
        movement(*changed(plan, row, 0.101 * rounds), rounds).check(plan, average_limits(plan))


def test_a_band_and_the_adapter_have_limits_of_their_own() -> None:
    """Values within theirs that are too many: first in one band, then over all of them."""
    plan = make_plan(quantization={"bits": 16, "bound": 1.0})
    limits, before = average_limits(plan), make_adapter(plan).rows
    one = before.copy()
    one[0] += np.float32(1.01 * limits.bands[0] / np.sqrt(11))
    both = before.copy()
    both[0] += np.float32(0.95 * limits.bands[0] / np.sqrt(11))
    both[1:] += np.float32(0.95 * limits.bands[1] / np.sqrt(22))

    with pytest.raises(RefusalError, match=r"^rows 1-1 has moved by 1\.01"):
        movement(before, one).check(plan, average_limits(plan))
    with pytest.raises(RefusalError, match=r"^the adapter has moved by"):
        movement(before, both).check(plan, average_limits(plan))
    assert np.linalg.norm(both.astype(np.float64) - before) > step_limit(plan)


def test_rows_of_a_band_that_never_opens_may_not_move_at_all() -> None:
    """Not by one bit: there is no honest round that touches them."""
    plan = make_plan(robustness={"f": 2})
    before = make_adapter(plan).rows
    after = before.copy()
    after[2, 0] = np.nextafter(after[2, 0], np.float32(9))

    with pytest.raises(RefusalError, match=r"rows 2-3 has moved by .* more than 0"):
        movement(before, after).check(plan, average_limits(plan))


def test_values_that_are_not_trained_may_not_move_at_all() -> None:
    """With a frozen lora_A it is the one of the seed, to the bit."""
    plan = make_plan(lora={"factors": "lora-b"})
    before = make_adapter(plan).rows
    after = before.copy()
    column = int(np.flatnonzero(~plan.columns)[0])
    after[0, column] = np.nextafter(after[0, column], np.float32(9))

    with pytest.raises(RefusalError, match="not trained"):
        movement(before, after).check(plan, average_limits(plan))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("changes", [{}, {"robustness": {"filter": "fl-trust"}}])
def test_what_is_no_number_is_refused(value: float, changes: dict[str, Any]) -> None:
    """Even where nothing else is bounded."""
    plan = make_plan(**changes)
    before = make_adapter(plan).rows
    after = before.copy()
    after[1, 1] = value

    with pytest.raises(RefusalError, match=r"finite|moved"):
        movement(before, after).check(plan, average_limits(plan))


def test_a_dead_layer_takes_as_many_rounds_as_its_values_are_bounds() -> None:
    """The control jumps there at once: eight units in one value are eighty rounds at a tenth a round."""
    plan = make_plan(clip_norm=10.0)
    before, after = changed(plan, 0, 8.0)

    with pytest.raises(RefusalError):
        movement(before, after, rounds=79).check(plan, average_limits(plan))
    movement(before, after, rounds=81).check(plan, average_limits(plan))
