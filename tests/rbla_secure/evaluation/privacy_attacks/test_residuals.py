"""Projection residuals find members of a change without noise, and lose them in large sums and under noise at either level."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from protocols.primitives.prg import KEY_SIZE, UniformStream
from rbla_secure.config import TrainingConfig
from rbla_secure.config.choices import Optimizer
from rbla_secure.errors import DataError
from rbla_secure.evaluation.privacy_attacks import residuals
from rbla_secure.evaluation.privacy_attacks.gradients import ExampleGradients
from rbla_secure.evaluation.privacy_attacks.membership import Scored, summarize
from rbla_secure.evaluation.privacy_attacks.views import Noise, seen
from rbla_secure.evaluation.statistics import Estimate, true_positive_rate
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.peft_io import find_linear
from rbla_secure.privacy.sample_level import train_privately
from rbla_secure.privacy.sampled_gaussian import SampledGaussian
from rbla_secure.tasks.base_model import build_mlp
from rbla_secure.tasks.datasets import LabelledImages
from rbla_secure.tasks.training import LocalTrainer, Losses, use_one_thread

use_one_thread()

BASE = build_mlp(seed=0).requires_grad_(False).eval()
LAYOUT = find_linear(BASE, scaling=2.0)
MODEL = ExampleGradients(BASE, LAYOUT)
RANK, BATCH, CLIENTS = 16, 3, 20


def examples(count: int, *, seed: int) -> LabelledImages:
    generator = np.random.default_rng(seed)
    return LabelledImages(
        images=generator.random((count, 784), dtype=np.float32), labels=generator.integers(0, 10, size=count)
    )


@cache
def warm() -> Adapter:
    """An adapter whose lora_B is not zero."""
    rows = Adapter.initial(LAYOUT, rank=RANK, seed=0).rows.copy()
    columns = LAYOUT.lora_B_columns
    rows[:, columns] = np.random.default_rng(0).normal(0, 0.05, (RANK, int(columns.sum())))
    return Adapter(layout=LAYOUT, rows=rows)


MEMBERS = [examples(BATCH, seed=100 + k) for k in range(CLIENTS)]
OTHERS = [examples(16, seed=200 + k) for k in range(CLIENTS)]


def change(client: int, adapter: Adapter, *, noise: float = 0.0) -> np.ndarray:
    """One step, at sample level with noise of this multiplier where it is above 0."""
    config = TrainingConfig(steps=1, batch_size=BATCH, optimizer=Optimizer.SGD, learning_rate=0.05)

    def descent(network: nn.Module, optimizer: torch.optim.Optimizer, losses: Losses, seed: int) -> None:
        train_privately(
            network,
            optimizer,
            losses.of,
            made_up=losses.made_up,
            mechanism=SampledGaussian(noise_multiplier=noise, clip_norm=1.0, sample_rate=1.0, steps=1),
            batch_size=BATCH,
            examples=losses.count,
            stream=UniformStream(seed.to_bytes(KEY_SIZE, "big")),
        )

    trainer = LocalTrainer(BASE, LAYOUT, config, descent=descent if noise else None)
    return trainer.train(adapter, MEMBERS[client], seed=client).astype(np.float64) - adapter.rows


@cache
def exact() -> list[np.ndarray]:
    return [change(k, warm()) for k in range(CLIENTS)]


def attacked(views: list[np.ndarray]) -> list[Scored]:
    """Client k in the k-th view."""
    return [
        residuals.score(
            residuals.row_spaces(view, LAYOUT),
            members=MODEL.inputs(warm(), MEMBERS[k]),
            others=MODEL.inputs(warm(), OTHERS[k]),
        )
        for k, view in enumerate(views)
    ]


def area(scored: list[Scored]) -> Estimate:
    return summarize(scored, seed=0).auc


def test_what_a_layer_sees_is_what_the_layers_before_it_give() -> None:
    """The image, and with a lora_B of zero the base's own activations."""
    data = examples(5, seed=1)

    found = MODEL.inputs(Adapter.initial(LAYOUT, rank=2, seed=0), data)

    hidden1 = torch.relu(BASE.hidden1(torch.tensor(data.images)))
    assert list(found) == ["hidden1", "hidden2", "head"]
    np.testing.assert_array_equal(found["hidden1"], data.images.astype(np.float64))
    np.testing.assert_allclose(found["hidden2"], hidden1.numpy(), atol=1e-6)
    np.testing.assert_allclose(found["head"], torch.relu(BASE.hidden2(hidden1)).numpy(), atol=1e-6)


def test_residuals_by_hand() -> None:
    """Half of (1, 1) lies beside the first axis, all of (0, 1), nothing of (1, 0), and a layer that spans nothing counts 1."""
    spaces = {"a": np.array([[1.0, 0.0]]), "b": np.zeros((0, 2))}
    inputs = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])

    np.testing.assert_allclose(residuals.residuals(spaces, {"a": inputs, "b": inputs}), [0.75, 1.0, 0.5])
    with pytest.raises(DataError, match=r"inputs are of layers \['a'\], must be of \['a', 'b'\]"):
        residuals.residuals(spaces, {"a": inputs})


def test_a_change_alone_leaves_nothing_of_its_members() -> None:
    """Three examples in sixteen rows: residuals of members are zero, and every member is above every other example."""
    found = attacked(exact())

    assert max(-one.members.min() for one in found) < 1e-3
    assert min(-one.others.max() for one in found) > 0.01
    assert area(found).value == 1.0


def test_the_sum_over_a_group_is_no_cover_as_long_as_its_inputs_fit_into_the_rows() -> None:
    """Five clients' fifteen inputs are spanned by sixteen rows; sixty of twenty clients are not."""
    five = [seen(exact()[k - k % 5 : k - k % 5 + 5], rank=RANK) for k in range(CLIENTS)]
    twenty = [seen(exact(), rank=RANK)] * CLIENTS

    of_five, of_twenty = area(attacked(five)), area(attacked(twenty))
    assert of_five.value > 0.99
    assert of_five.low > of_twenty.high
    assert of_twenty.low > 0.5, "most of an input is still inside, and that says something"


def test_noise_of_client_level_hides_members() -> None:
    """The same changes, with noise on their own: the row space is the noise's."""
    noise = Noise(multiplier=1.0, clip_norm=0.6, ranks=(RANK,) * CLIENTS)
    generator = np.random.default_rng(0)
    noisy = [seen([one], rank=RANK, noise=noise, generator=generator) for one in exact()]

    found = area(attacked(noisy))

    assert area(attacked(exact())).value == 1.0, "the control: without it they are found"
    assert found.low < 0.5 < found.high


def test_noise_of_sample_level_hides_members() -> None:
    """The same training with noise on its step: hardly better than a guess, where without it everybody is found."""
    found = area(attacked([change(k, warm(), noise=1.0) for k in range(CLIENTS)]))

    assert area(attacked(exact())).value == 1.0
    assert found.high < 0.6


def test_a_first_step_shows_nothing() -> None:
    """With a lora_B of zero lora_A does not change: everything is outside, members and others alike."""
    start = Adapter.initial(LAYOUT, rank=RANK, seed=0)

    found = attacked([change(k, start) for k in range(CLIENTS)])

    assert all((one.members == -1).all() and (one.others == -1).all() for one in found)


def test_true_positives_by_hand() -> None:
    """Of 100 negatives one may be above the threshold, which is the second largest; none, and it is the largest."""
    negatives = np.arange(100.0)
    positives = np.array([97.0, 98.0, 98.5, 200.0])

    assert true_positive_rate(positives, negatives, false_positive_rate=0.01).value == 0.5
    assert true_positive_rate(positives, negatives, false_positive_rate=0.0).value == 0.25
    assert true_positive_rate(positives, np.full(100, 200.0), false_positive_rate=0.01).value == 0.0
    with pytest.raises(DataError, match=r"false_positive_rate=1 must lie in \[0, 1\)"):
        true_positive_rate(positives, negatives, false_positive_rate=1)
