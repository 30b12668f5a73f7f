"""The last step is the change of the last round that changed anything, cut into bands."""

from dataclasses import replace

import numpy as np
import pytest

from rbla_secure.federation.server.previous_step import PreviousStep
from rbla_secure.lora.bands import rank_bands
from tests.support.federations import make_adapter, make_plan


def test_before_the_first_step_there_is_none() -> None:
    """No direction, also after a round that left the adapter as it was."""
    plan = make_plan()
    step = PreviousStep(plan)
    adapter = make_adapter(plan)

    first = step.by_band()
    step.round_ended(adapter, adapter)

    assert first is None
    assert step.by_band() is None


def test_the_step_has_the_form_of_an_upload() -> None:
    """Every band has its rows, one after the other, and zeros in the place of the statistics."""
    plan = make_plan()
    before = make_adapter(plan)
    moved = before.rows + np.arange(before.rows.size, dtype=np.float32).reshape(before.rows.shape) + 1
    step = PreviousStep(plan)

    step.round_ended(before, replace(before, rows=moved))

    found = step.by_band()
    assert found is not None
    expected = moved.astype(np.float64) - before.rows
    for band in rank_bands(plan.ranks.values()):
        assert np.array_equal(found[band.index][:-1], expected[band.start : band.stop].ravel())
        assert not found[band.index][-1:].any()


def test_a_round_without_a_result_does_not_count() -> None:
    """After it, updates are held against the step before."""
    plan = make_plan()
    before, after = make_adapter(plan), make_adapter(plan, seed=1)
    step = PreviousStep(plan)
    step.round_ended(before, after)
    known = step.by_band()

    step.round_ended(after, after)

    again = step.by_band()
    assert known is not None
    assert again is not None
    assert all(np.array_equal(known[index], again[index]) for index in known)


def test_going_back_is_no_step() -> None:
    """After a roll-back updates are held against the last step forward, not against its opposite."""
    plan = make_plan()
    first, second, third = (make_adapter(plan, seed=seed) for seed in range(3))
    step = PreviousStep(plan)
    step.round_ended(first, second)
    step.round_ended(second, third)
    known = step.by_band()

    step.round_ended(third, first)

    assert known is not None
    again = step.by_band()
    assert again is not None
    assert all(np.array_equal(known[index], again[index]) for index in known)


@pytest.mark.parametrize(
    "seeds", [(0,), (0, 0), (0, 1), (0, 1, 1), (0, 1, 2, 0), (0, 1, 2, 1, 3), (0, 1, 0, 0)]
)
def test_an_interrupted_run_knows_the_step_of_one_that_was_left_alone(seeds: tuple[int, ...]) -> None:
    """Wherever it stopped: whatever was decided in between, the adapters tell."""
    plan = make_plan()
    adapters = [make_adapter(plan, seed=seed) for seed in seeds]
    alone = PreviousStep(plan)
    for end in range(1, len(adapters)):
        alone.round_ended(adapters[end - 1], adapters[end])
        resumed = PreviousStep(plan)

        resumed.recall(iter(adapters[: end + 1]))

        ours, theirs = alone.by_band(), resumed.by_band()
        assert (ours is None) == (theirs is None)
        assert all(np.array_equal(ours[index], theirs[index]) for index in ours or {})  # type: ignore[index]
