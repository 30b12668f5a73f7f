"""Local training depends on its arguments alone and changes nothing but the adapter."""

import numpy as np
import pytest
import torch
from torch import nn

from rbla_secure.config import TrainingConfig
from rbla_secure.config.choices import Optimizer
from rbla_secure.errors import DataError
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.peft_io import attach, find_linear, write_rows
from rbla_secure.tasks.base_model import base_digest, build_mlp
from rbla_secure.tasks.datasets import LabelledImages
from rbla_secure.tasks.training import LocalTrainer, use_one_thread

use_one_thread()  # byte-for-byte claims hold for one number of threads

BASE = build_mlp(seed=0).requires_grad_(False).eval()
LAYOUT = find_linear(BASE, scaling=2.0)


def examples(count: int = 50, *, seed: int = 0) -> LabelledImages:
    """Noise with one bright row of pixels that tells the class."""
    generator = np.random.default_rng(seed)
    images = 0.2 * generator.random((count, 28, 28), dtype=np.float32)
    labels = generator.integers(0, 10, size=count)
    images[np.arange(count), labels] += 0.8
    return LabelledImages(images=images.reshape(count, 784), labels=labels)


def start(rank: int = 4) -> Adapter:
    return Adapter.initial(LAYOUT, rank=rank, seed=0)


def trainer(base: nn.Module = BASE, **changes: object) -> LocalTrainer:
    return LocalTrainer(base, LAYOUT, TrainingConfig.model_validate({"batch_size": 8, **changes}))


def loss(rows: np.ndarray, data: LabelledImages) -> float:
    model = attach(BASE, layout=LAYOUT, rank=len(rows))
    write_rows(model, Adapter(layout=LAYOUT, rows=rows.copy()))
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(torch.tensor(data.images)), torch.tensor(data.labels)))


@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize(("optimizer", "rate"), [(Optimizer.SGD, 0.2), (Optimizer.ADAM, 0.02)])
def test_training_lowers_the_loss(rank: int, optimizer: Optimizer, rate: float) -> None:
    """Both optimizers learn at every rank, and the rows keep the client's shape."""
    data = examples()

    rows = trainer(optimizer=optimizer, learning_rate=rate, epochs=20).train(start(rank), data, seed=1)

    assert rows.shape == (rank, LAYOUT.row_length)
    assert rows.dtype == np.float32
    assert loss(rows, data) < 0.9 * loss(start(rank).rows, data)


def test_training_depends_on_its_arguments_alone() -> None:
    """What was trained before, other ranks and diverged runs included, leaves no trace."""
    used, fresh = trainer(), trainer()
    used.train(start(4), examples(seed=5), seed=9)
    used.train(start(2), examples(), seed=1)
    broken = examples()
    broken.images[:] = np.nan
    used.train(start(4), broken, seed=1)

    after = used.train(start(4), examples(), seed=1)

    assert after.tobytes() == fresh.train(start(4), examples(), seed=1).tobytes()


def test_training_follows_seed_adapter_and_examples() -> None:
    """Each argument matters."""
    local = trainer()
    first = local.train(start(), examples(), seed=1)
    other_start = Adapter(layout=LAYOUT, rows=start().rows + np.float32(0.01))

    assert not np.array_equal(first, local.train(start(), examples(), seed=2))
    assert not np.array_equal(first, local.train(start(), examples(seed=1), seed=1))
    assert not np.array_equal(first, local.train(other_start, examples(), seed=1))


def test_training_touches_nothing_else() -> None:
    """The base, the starting adapter, the examples and torch's global generator stay as they were."""
    adapter, data = start(), examples()
    digest, rows, images = base_digest(BASE), adapter.rows.copy(), data.images.copy()
    before = torch.get_rng_state()

    trainer().train(adapter, data, seed=1)

    assert torch.equal(torch.get_rng_state(), before)
    assert base_digest(BASE) == digest
    np.testing.assert_array_equal(adapter.rows, rows)
    np.testing.assert_array_equal(data.images, images)


def test_returned_rows_survive_the_next_call() -> None:
    """Rows are a copy, not a window into the cached model."""
    local = trainer()
    rows = local.train(start(), examples(), seed=1)
    kept = rows.copy()

    local.train(start(), examples(seed=7), seed=2)

    np.testing.assert_array_equal(rows, kept)


def test_one_step_of_sgd_is_the_gradient() -> None:
    """With B zero, one step moves B by -rate * scaling * dW A^T and leaves A alone (oracle: autograd on the base)."""
    data = examples(8)

    rows = trainer(optimizer=Optimizer.SGD, learning_rate=0.5, steps=1).train(start(), data, seed=1)

    base = build_mlp(seed=0)
    nn.functional.cross_entropy(base(torch.tensor(data.images)), torch.tensor(data.labels)).backward()
    after = Adapter(layout=LAYOUT, rows=rows)
    for layer in LAYOUT.layers:
        gradient = base.get_submodule(layer.name).weight.grad.numpy()
        expected = -0.5 * 2.0 * gradient @ start().lora_A(layer.name).T
        np.testing.assert_allclose(after.lora_B(layer.name), expected, rtol=1e-4, atol=1e-7)
        np.testing.assert_array_equal(after.lora_A(layer.name), start().lora_A(layer.name))


def test_steps_replace_epochs() -> None:
    """Two epochs of seven batches are fourteen steps, and one step fewer differs."""
    data = examples(50)
    two_epochs = trainer(epochs=2).train(start(), data, seed=1)

    fourteen, thirteen = (trainer(epochs=99, steps=steps).train(start(), data, seed=1) for steps in (14, 13))

    np.testing.assert_array_equal(fourteen, two_epochs)
    assert not np.array_equal(thirteen, two_epochs)


def test_an_epoch_visits_every_example_once() -> None:
    """With one batch per epoch the order of the examples cannot matter, so the seed does not either."""
    data = examples(20)
    local = trainer(batch_size=20, epochs=1, optimizer=Optimizer.SGD)

    first, other = (local.train(start(), data, seed=seed) for seed in (1, 2))

    np.testing.assert_allclose(first, other, rtol=1e-4, atol=1e-6)


def test_diverged_rows_come_back_as_they_are() -> None:
    """Training never raises on NaN: refusing it is the caller's part."""
    rows = trainer(optimizer=Optimizer.SGD, learning_rate=1e30, epochs=3).train(start(), examples(), seed=1)

    assert not np.isfinite(rows).all()


def test_the_base_keeps_no_statistics() -> None:
    """A base with batch normalisation and dropout trains like the frozen function it is."""
    base = nn.Sequential(nn.BatchNorm1d(784), nn.Dropout(0.5), nn.Linear(784, 10)).train()
    digest = base_digest(base)
    layout = find_linear(base, scaling=2.0)
    local = LocalTrainer(base, layout, TrainingConfig(batch_size=8))
    adapter = Adapter.initial(layout, rank=2, seed=0)

    first, again = (local.train(adapter, examples(), seed=1) for _ in range(2))

    np.testing.assert_array_equal(first, again)
    assert base_digest(base) == digest


def test_no_examples_are_refused() -> None:
    """There is nothing to train on."""
    with pytest.raises(DataError, match="at least one example"):
        trainer().train(start(), examples(0), seed=1)


def test_use_one_thread_sets_one_thread() -> None:
    """It is the only thing here that changes the process."""
    before = torch.get_num_threads()
    try:
        use_one_thread()

        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
