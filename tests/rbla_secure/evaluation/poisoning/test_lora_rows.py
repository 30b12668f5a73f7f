"""Attacks on rank rows put their change where they say, and no longer than the clip."""

import numpy as np
import pytest

from rbla_secure.evaluation.poisoning.lora_rows import PASSES, captured, stuffed, train_rows_from
from rbla_secure.lora.adapter import Adapter
from tests.support.updates import make_layout

LAYOUT = make_layout((6, 4))


def test_a_captured_band_gets_the_whole_budget() -> None:
    """Rows (3, 4) after a row that is dropped, at norm 2."""
    change = np.array([[9.0, 9.0], [3.0, 4.0]])

    np.testing.assert_allclose(captured(change, start=1, clip_norm=2.0), [[0.0, 0.0], [1.2, 1.6]])


def test_training_captured_rows_leaves_the_others() -> None:
    """Every pass goes on from the captured rows of the pass before, and from the broadcast's others."""
    start = Adapter.initial(LAYOUT, rank=4, seed=0)
    seen = []

    def train(adapter: Adapter, seed: int) -> np.ndarray:
        seen.append((adapter.rows.copy(), seed))
        return adapter.rows + np.float32(1)

    change = train_rows_from(train, start, start=2, seed=10)

    np.testing.assert_array_equal(change[:2], 0)
    np.testing.assert_allclose(change[2:], PASSES, atol=1e-5)
    assert [seed for _, seed in seen] == list(range(10, 10 + PASSES))
    np.testing.assert_array_equal(seen[1][0][:2], start.rows[:2])


def test_training_captured_rows_keeps_the_rest() -> None:
    """Every pass is on the whole function, as the first."""
    start = Adapter.initial(LAYOUT, rank=4, seed=0).folded(3)
    seen = []

    def train(adapter: Adapter, _: int) -> np.ndarray:
        seen.append(adapter.rest)
        return adapter.rows + np.float32(1)

    train_rows_from(train, start, start=2, seed=10)

    assert len(seen) == PASSES
    for rest in seen:
        np.testing.assert_array_equal(rest, start.rest)


def test_stuffed_rows_are_orthogonal_to_the_honest_ones() -> None:
    """The busy half is honest to the bit, the quiet half carries a backdoor that no honest row has a part in."""
    generator = np.random.default_rng(0)
    honest = generator.standard_normal((8, 50)) * np.array([1, 9, 1, 9, 1, 9, 1, 9])[:, None] / 100
    backdoor = generator.standard_normal((8, 50))

    sent = stuffed(honest, backdoor, clip_norm=5.0)

    np.testing.assert_array_equal(sent[1::2], honest[1::2])
    np.testing.assert_allclose(sent[::2] @ honest[1::2].T, 0, atol=1e-12)
    assert (sent[::2] * backdoor[::2]).sum() > 0
    assert np.linalg.norm(sent) == pytest.approx(5.0)


def test_stuffing_keeps_half_of_a_long_budget_for_the_backdoor() -> None:
    """An honest change beyond the clip is shortened, not the whole."""
    generator = np.random.default_rng(1)
    honest, backdoor = generator.standard_normal((4, 30)), generator.standard_normal((4, 30))

    sent = stuffed(honest, backdoor, clip_norm=1.0)

    busy = np.argsort(np.linalg.norm(honest, axis=1))[2:]
    assert np.linalg.norm(sent[busy]) == pytest.approx(np.sqrt(0.5))
    assert np.linalg.norm(sent) == pytest.approx(1.0)


def test_a_single_row_is_all_backdoor() -> None:
    """At rank 1 there is no busy row to hide beside."""
    backdoor = np.array([[3.0, 4.0]])

    np.testing.assert_allclose(stuffed(np.array([[1.0, 0.0]]), backdoor, clip_norm=1.0), [[0.6, 0.8]])
