"""What one example does to the model is gone before the next one is computed, and a time limit is nobody's gradient."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao.quantization import FakeQuantize, MinMaxObserver
from torch.nn import functional

from protocols.primitives.prg import UniformStream
from rbla_secure.errors import PrivacyError, TimeLimitError
from rbla_secure.privacy import sample_level
from rbla_secure.privacy.sampled_gaussian import SampledGaussian


class Peak(nn.Module):
    """Scales its input by the largest that it has seen: a buffer that a blank example leaves alone."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("peak", torch.zeros(()))
        self.line = nn.Linear(9, 4)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        self.peak = torch.maximum(self.peak, values.detach().abs().max())
        scaled: torch.Tensor = self.line(values / (self.peak + 1e-3))
        return scaled


def observed() -> nn.Module:
    """A layer of quantization-aware training: its observer widens the grid with what it sees, in evaluation mode too."""
    quantized = FakeQuantize(observer=MinMaxObserver, quant_min=0, quant_max=255, dtype=torch.quint8)
    return nn.Sequential(quantized, nn.Linear(9, 4))


def moved_by_the_first(build: Callable[[], nn.Module], patch: pytest.MonkeyPatch) -> float:
    """How far one large example moves the sum of a step, in sensitivities; no noise is added."""
    mechanism = SampledGaussian(noise_multiplier=1.0, clip_norm=1.0, sample_rate=1.0, steps=1)
    others = torch.rand(8, 9, generator=torch.Generator().manual_seed(1))
    data = torch.cat([torch.full((1, 9), 1e3), others])
    labels = torch.zeros(1, dtype=torch.int64)
    sums: list[Any] = []
    patch.setattr(sample_level, "discrete_gaussian", lambda _s, count, _t: np.zeros(count, dtype=np.int64))
    patch.setattr(sample_level, "_set_gradients", lambda _values, flat: sums.append(flat))
    for held in (data, data[1:]):
        torch.manual_seed(0)
        model = build()

        def loss(chosen: torch.Tensor, model: nn.Module = model, held: torch.Tensor = held) -> torch.Tensor:
            return functional.cross_entropy(model(held[chosen]), labels)

        sample_level.train_privately(
            model,
            torch.optim.SGD(model.parameters(), 0.0),
            loss,
            made_up=lambda model=model: functional.cross_entropy(model(torch.zeros(1, 9)), labels),  # type: ignore[misc]
            mechanism=mechanism,
            batch_size=mechanism.unit,
            examples=len(held),
            stream=UniformStream(bytes(16)),
        )
    return float(np.linalg.norm(sums[0] - sums[1])) / mechanism.sensitivity(len(sums[0]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("build", [Peak, observed])
def test_what_an_example_leaves_in_a_buffer_moves_no_other(
    build: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One example moves a step by its own gradient. The control leaves the buffer as it was moved, and others go along."""
    ours = moved_by_the_first(build, monkeypatch)
    monkeypatch.setattr(sample_level._Kept, "put_back", lambda _: None)
    careless = moved_by_the_first(build, monkeypatch)

    assert ours <= 1
    assert careless > 1.5


def test_a_table_that_a_look_up_renormalizes_is_refused() -> None:
    """It rewrites a row that leaves the client, with no noise on it."""
    model = nn.Embedding(5, 3, max_norm=1.0)

    with pytest.raises(
        PrivacyError, match=r"Embedding renormalizes its table at every look-up \(max_norm=1\.0\)"
    ):
        sample_level.train_privately(
            model,
            torch.optim.SGD(model.parameters(), 0.0),
            lambda chosen: model(chosen).sum(),
            made_up=lambda: model(torch.zeros(1, dtype=torch.int64)).sum(),
            mechanism=SampledGaussian(noise_multiplier=1.0, clip_norm=1.0, sample_rate=1.0, steps=1),
            batch_size=1.0,
            examples=1,
            stream=UniformStream(bytes(16)),
        )


def test_a_time_limit_ends_training_and_drops_no_example() -> None:
    """Taken for the example's own error it would count that one as zero: which one is hit depends on those before it."""
    model = nn.Linear(3, 1)

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        if chosen[0] == 1:
            raise TimeLimitError("the time is over")
        return model(torch.ones(1, 3)).sum()

    with pytest.raises(TimeLimitError, match="the time is over"):
        sample_level.train_privately(
            model,
            torch.optim.SGD(model.parameters(), 0.0),
            loss,
            made_up=lambda: model(torch.zeros(1, 3)).sum(),
            mechanism=SampledGaussian(noise_multiplier=1.0, clip_norm=1.0, sample_rate=1.0, steps=1),
            batch_size=1.0,
            examples=3,
            stream=UniformStream(bytes(16)),
        )
