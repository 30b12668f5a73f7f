"""The attacks find what is there, in real training, and find less where more is added up."""

from functools import cache

import numpy as np
import pytest

from rbla_secure.config import TrainingConfig
from rbla_secure.config.choices import Optimizer
from rbla_secure.errors import DataError
from rbla_secure.evaluation.privacy_attacks import differencing, inversion, membership
from rbla_secure.evaluation.privacy_attacks.gradients import ExampleGradients
from rbla_secure.evaluation.privacy_attacks.views import Noise, seen
from rbla_secure.evaluation.statistics import auc
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.peft_io import find_linear
from rbla_secure.tasks.base_model import build_mlp
from rbla_secure.tasks.datasets import LabelledImages
from rbla_secure.tasks.training import LocalTrainer, use_one_thread

use_one_thread()

BASE = build_mlp(seed=0).requires_grad_(False).eval()
LAYOUT = find_linear(BASE, scaling=2.0)
PIXELS = LAYOUT.columns["hidden1"][0]
RANK = 16


def examples(count: int, *, seed: int) -> LabelledImages:
    generator = np.random.default_rng(seed)
    return LabelledImages(
        images=generator.random((count, 784), dtype=np.float32), labels=generator.integers(0, 10, size=count)
    )


@cache
def warm() -> Adapter:
    """An adapter whose lora_B is not zero."""
    start = Adapter.initial(LAYOUT, rank=RANK, seed=0)
    rows = start.rows.copy()
    columns = LAYOUT.lora_B_columns
    rows[:, columns] = np.random.default_rng(0).normal(0, 0.05, (RANK, int(columns.sum())))
    return Adapter(layout=LAYOUT, rows=rows)


def one_step(adapter: Adapter, data: LabelledImages, *, rate: float = 0.05) -> np.ndarray:
    config = TrainingConfig(steps=1, batch_size=len(data), optimizer=Optimizer.SGD, learning_rate=rate)
    rows = LocalTrainer(BASE, LAYOUT, config).train(adapter, data, seed=0)
    return rows.astype(np.float64) - adapter.rows


@pytest.mark.parametrize("rank", [1, 4])
def test_gradients_of_examples_average_to_a_step(rank: int) -> None:
    """One SGD step is minus the rate times their mean: an oracle that shares no code."""
    adapter, data = warm().sliced(rank), examples(300, seed=1)

    gradients = ExampleGradients(BASE, LAYOUT).of(adapter, data)

    assert gradients.shape == (300, rank, LAYOUT.row_length)
    np.testing.assert_allclose(one_step(adapter, data), -0.05 * gradients.mean(axis=0), atol=1e-7)


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_one_step_shows_the_span_of_its_inputs(batch: int) -> None:
    """With no more inputs than rank rows their energy inside the row space of A's change is one."""
    data, others = examples(batch, seed=2), examples(30, seed=3)
    lora_A = one_step(warm(), data)[:, PIXELS]

    found = inversion.recover(
        lora_A,
        members=data.images.astype(np.float64),
        others=others.images.astype(np.float64),
        count=batch,
    )

    np.testing.assert_allclose(found.members, 1.0, atol=2e-3)
    assert auc(found.members, found.others) == 1.0
    if batch == 1:
        assert found.single_row == pytest.approx(1.0, abs=1e-4), "the image itself, up to its sign and scale"


def test_more_inputs_than_rows_are_not_spanned() -> None:
    """Thirty-two inputs leave a part of themselves outside sixteen rows."""
    data = examples(32, seed=2)
    span = inversion.recovered_span(one_step(warm(), data)[:, PIXELS], count=32)

    assert span.shape == (16, 784)
    # Inputs are alike (all positive), so even what is not spanned has much of its energy inside.
    assert inversion.energy(span, data.images.astype(np.float64)).mean() < 0.97


def test_without_lora_B_there_is_nothing_to_recover() -> None:
    """In the first round B is zero, and so is A's change."""
    change = one_step(Adapter.initial(LAYOUT, rank=RANK, seed=0), examples(4, seed=2))

    assert not change[:, PIXELS].any()
    span = inversion.recovered_span(change[:, PIXELS], count=4)
    assert span.shape == (0, 784)
    assert not inversion.energy(span, np.ones((2, 784))).any()


def test_noise_ends_span_inversion() -> None:
    """The recovered directions are the noise's: energies fall to those of chance, k / d."""
    data = examples(4, seed=2)
    noise = Noise(multiplier=1.0, clip_norm=0.6, ranks=(RANK,) * 10)
    view = seen([one_step(warm(), data)], rank=RANK, noise=noise, generator=np.random.default_rng(0))

    span = inversion.recovered_span(view[:, PIXELS], count=4)

    assert inversion.energy(span, data.images.astype(np.float64)).max() < 0.05


def test_energy_by_hand() -> None:
    """Half of (1, 1) lies along the first axis; zeros have none."""
    np.testing.assert_allclose(
        inversion.energy(np.array([[1.0, 0.0]]), np.array([[1.0, 1.0], [3.0, 0.0], [0.0, 0.0]])), [0.5, 1, 0]
    )
    assert inversion.best_row(np.array([[0.0, 2.0], [0.0, 0.0]]), np.array([[3.0, 4.0]])) == pytest.approx(
        0.8
    )


def test_membership_is_plainer_alone_than_in_a_sum() -> None:
    """Twenty clients, four examples each, one step: alone, in the sum over all, and under noise."""
    gradients = ExampleGradients(BASE, LAYOUT)
    noise = Noise(multiplier=2.0, clip_norm=0.6, ranks=(RANK,) * 20)
    generator = np.random.default_rng(0)
    members = [examples(4, seed=100 + k) for k in range(20)]
    others = [examples(16, seed=200 + k) for k in range(20)]
    changes = [one_step(warm(), data) for data in members]
    known = [(gradients.of(warm(), a), gradients.of(warm(), b)) for a, b in zip(members, others, strict=True)]

    def found(views: list[np.ndarray]) -> membership.Membership:
        scored = [
            membership.score(view, members=a, others=b) for view, (a, b) in zip(views, known, strict=True)
        ]
        return membership.summarize(scored, seed=0)

    alone = found(changes)
    masked = found([seen(changes, rank=RANK)] * 20)
    noisy = found([seen(changes, rank=RANK, noise=noise, generator=generator)] * 20)

    assert alone.auc.low > 0.8
    assert alone.auc.low > masked.auc.high
    assert masked.auc.value > noisy.auc.value
    assert noisy.auc.low < 0.5 < noisy.auc.high
    assert (alone.auc.count, alone.examples) == (20, 400)


def test_alignment_by_hand() -> None:
    """Minus the inner product over the client's own rows."""
    gradients = np.array([[[1.0, 2.0]], [[0.0, -1.0]]], dtype=np.float32)
    view = np.array([[3.0, 1.0], [9.0, 9.0]])

    np.testing.assert_array_equal(membership.alignment(gradients, view), [-5.0, 1.0])


def federation(rounds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ten clients of two ranks, each with changes around its own; half of them in every round."""
    generator = np.random.default_rng(0)
    ranks = np.array([1, 2] * 5)
    own = generator.standard_normal((10, 2, 50))
    own[ranks == 1, 1] = 0
    present = np.array([np.isin(np.arange(10), generator.permutation(10)[:5]) for _ in range(rounds)])
    noise = 0.5 * generator.standard_normal((rounds, 2, 50))
    return present, np.tensordot(present.astype(float), own, axes=1) + noise, own, ranks


def test_sums_of_many_rounds_give_clients_away() -> None:
    """Few rounds leave the system open; many solve it."""
    present, sums, own, ranks = federation(60)

    few, many = (
        differencing.attack(
            differencing.recovered_changes(present[:count], sums[:count], ranks), own, ranks, seed=0
        )
        for count in (3, 60)
    )

    assert many.identified.value == 1.0
    assert many.cosine.value > 0.9
    assert few.cosine.value < many.cosine.value - 0.3
    assert many.chance == 0.1
    assert many.identified.count == 10


def test_the_band_of_few_holders_is_solved_first() -> None:
    """Five unknowns instead of ten: in the second row seven rounds are enough, in the first they are not."""
    present, sums, own, ranks = federation(60)
    exact = np.tensordot(present.astype(float), own, axes=1)

    recovered = differencing.recovered_changes(present[:8], exact[:8], ranks)

    np.testing.assert_allclose(recovered[:, 1], own[:, 1], atol=1e-8)
    assert not np.allclose(recovered[:, 0], own[:, 0], atol=0.1)
    assert not recovered[ranks == 1, 1].any()
    with pytest.raises(DataError, match="participation"):
        differencing.recovered_changes(present[:7], sums[:8], ranks)
