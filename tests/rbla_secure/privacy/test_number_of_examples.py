"""How many examples a client has leaves it by no number: not by the divisor of a step, not by an error, not by none at all."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from protocols.primitives.prg import KEY_SIZE, UniformStream
from rbla_secure.config import Config, load_config
from rbla_secure.errors import DataError
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.peft_io import find_linear
from rbla_secure.planning.parameters import sample_level
from rbla_secure.privacy.sample_level import train_privately
from rbla_secure.privacy.sampled_gaussian import UNITS, SampledGaussian
from rbla_secure.tasks.base_model import build_mlp
from rbla_secure.tasks.configured_training import private_descent
from rbla_secure.tasks.datasets import LabelledImages
from rbla_secure.tasks.training import LocalTrainer, Losses

RATE, FEATURES = 0.25, 400
COUNTS = range(100, 140)
BASE = build_mlp(seed=3).requires_grad_(False).eval()
LAYOUT = find_linear(BASE, scaling=2.0)
ADAPTER = Adapter.initial(LAYOUT, rank=2, seed=0)

Step = Callable[[nn.Module, int], None]


def config(**changes: object) -> Config:
    settings = {
        "training.steps": 1,
        "training.optimizer": "sgd",
        "training.learning-rate": 1.0,
        "sample-level.noise-multiplier": 1.0,
        "sample-level.sample-rate": RATE,
        **changes,
    }
    return load_config(None, [f"{key}={value}" for key, value in settings.items()])


def loss_of(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda chosen: model(torch.zeros(len(chosen), FEATURES)).sum()


def careless(model: nn.Module, examples: int) -> None:
    """Divides by its own expected batch, as Opacus does and Abadi et al. write it."""
    train_privately(
        model,
        torch.optim.SGD(model.parameters(), lr=1.0),
        loss_of(model),
        made_up=lambda: model(torch.ones(1, FEATURES)).sum(),
        mechanism=SampledGaussian(noise_multiplier=1.0, clip_norm=1.0, sample_rate=RATE, steps=1),
        batch_size=RATE * examples,
        examples=examples,
        stream=UniformStream(np.random.default_rng().bytes(KEY_SIZE)),
    )


def ours(model: nn.Module, examples: int) -> None:
    """As a run puts it together."""
    descent = private_descent(config(), sample_level(config()))
    assert descent is not None
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    made_up = torch.ones(1, FEATURES)
    descent(
        model, optimizer, Losses(of=loss_of(model), made_up=lambda: model(made_up).sum(), count=examples), 0
    )


def read_off(step: Step, examples: int) -> int:
    """The attack: noise is whole units, so what is released, times the right divisor, lies on the integers."""
    model = nn.Linear(FEATURES, 1, bias=False)
    nn.init.zeros_(model.weight)
    step(model, examples)
    released = -model.weight.detach().numpy().ravel().astype(np.float64)

    def off_the_grid(count: int) -> float:
        units = released * RATE * count * UNITS
        units = units[np.abs(units) < 2**21]  # above, float32 holds no fractions
        return float(np.abs(units - np.rint(units)).mean())

    return min(COUNTS, key=off_the_grid)


def test_the_divisor_of_a_step_does_not_tell_the_number_of_examples() -> None:
    """One released step of noise alone shows a careless client's count, to the one; ours shows the plan's batch size."""
    counts = (120, 119) * 5
    assert [read_off(careless, count) for count in counts] == list(counts)
    assert {read_off(ours, count) for count in counts} == {int(config().training.batch_size / RATE)}


def images(count: int, *, label: int = 3) -> LabelledImages:
    pixels = np.random.default_rng(0).random((count, 784), dtype=np.float32)
    return LabelledImages(images=pixels, labels=np.full(count, label, dtype=np.int64))


def trainer(*, private: bool) -> LocalTrainer:
    plan = config()
    return LocalTrainer(
        BASE, LAYOUT, plan.training, descent=private_descent(plan, sample_level(plan)) if private else None
    )


def test_a_client_without_examples_takes_steps_of_noise() -> None:
    """A careless client refuses to train, so that everybody sees whether the one example it had is gone."""
    with pytest.raises(DataError, match="at least one example"):
        trainer(private=False).train(ADAPTER, images(0), seed=1)

    rows = trainer(private=True).train(ADAPTER, images(0), seed=1)

    assert np.isfinite(rows).all()
    assert not np.array_equal(rows, ADAPTER.rows)


def test_a_record_that_cannot_be_computed_stops_nothing() -> None:
    """A label that no class has: a careless client fails, and its name on the list of refusals says that the record is there."""
    with pytest.raises(IndexError, match="Target 11 is out of bounds"):
        trainer(private=False).train(ADAPTER, images(8, label=11), seed=1)

    rows = trainer(private=True).train(ADAPTER, images(8, label=11), seed=1)

    assert np.isfinite(rows).all()
