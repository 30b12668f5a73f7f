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


class Marked(nn.Module):
    """A layer that does something to itself when it sees one kind of record."""

    def __init__(self, act: Callable[["Marked"], None]) -> None:
        super().__init__()
        self.line = nn.Linear(9, 4)
        self.scale = nn.Parameter(torch.ones(9))
        self.register_buffer("shift", torch.zeros(9))
        self.register_buffer("part", torch.zeros(18)[:9])
        self.gain = 1.0
        self.gains: list[float] = []
        self._act = act

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if values.max() > 100:
            self._act(self)
        made: torch.Tensor = self.line(
            (self.gain + sum(self.gains)) * values * self.scale + self.shift + self.part
        )
        return made


def _replace_scale(layer: Marked) -> None:
    layer.scale = nn.Parameter(layer.scale.detach().clone())


def _delete_shift(layer: Marked) -> None:
    del layer.shift


def _share_memory(layer: Marked) -> None:
    layer.shift.data = layer.scale.data


def _other_memory(layer: Marked) -> None:
    layer.scale.data = layer.scale.data.double()


def _set_gain(layer: Marked) -> None:
    layer.gain = 100.0


def _replace_line(layer: Marked) -> None:
    layer.line = nn.Linear(9, 4)


def _turn_class(layer: Marked) -> None:
    class Louder(Marked):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return super().forward(values) * 9

    layer.__class__ = Louder


def _hook_layer(layer: Marked) -> None:
    layer.line.register_forward_hook(lambda _module, _inputs, made: made * 9)


def _hook_value(layer: Marked) -> None:
    layer.scale.register_hook(lambda gradient: -gradient)


def _fill_list(layer: Marked) -> None:
    layer.gains.append(100.0)


# What a pass does to its module, and none of it may reach the next example. Each has the careless control.
ACTS: dict[str, Callable[[Marked], object]] = {
    "a buffer written in place, with its graph": lambda layer: layer.shift.copy_(layer.scale * 9),
    "a view written in place, with its graph": lambda layer: layer.part.copy_(layer.scale * 9),
    "a trained value replaced": _replace_scale,
    "a trained value frozen": lambda layer: layer.scale.requires_grad_(False),
    "a trained value of another type": _other_memory,
    "a trained value overwritten": lambda layer: layer.scale.data.fill_(9.0),
    "a buffer in the memory of a trained value": _share_memory,
    "a buffer deleted": _delete_shift,
    "an attribute set": _set_gain,
    "a module replaced": _replace_line,
    "another class": _turn_class,
    "a hook on a module": _hook_layer,
    "a hook on a trained value": _hook_value,
    "an entry in a list": _fill_list,
}


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
    monkeypatch.setattr(sample_level.KeptModel, "put_back", lambda _: None)
    careless = moved_by_the_first(build, monkeypatch)

    assert ours <= 1
    assert careless > 1.5


@pytest.mark.parametrize("act", ACTS.values(), ids=list(ACTS))
def test_what_an_example_does_to_a_module_moves_no_other(
    act: Callable[[Marked], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One example moves a step by its own gradient; without anything being put back it moves all others' or ends in an error."""

    def build() -> nn.Module:
        return Marked(act)

    assert moved_by_the_first(build, monkeypatch) <= 1

    monkeypatch.setattr(sample_level.KeptModel, "put_back", lambda _: None)
    try:
        careless = moved_by_the_first(build, monkeypatch)
    except (RuntimeError, PrivacyError):
        careless = np.inf
    assert careless > 1.2


class Tied(nn.Module):
    """A buffer that is computed from a trained value once."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(9, 9)
        self.register_buffer("head", self.line.weight.t())

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.line(values) @ self.head
        return made


def expanded() -> nn.Module:
    model = nn.Linear(9, 4)
    model.register_buffer("row", torch.zeros(1).expand(4))
    return model


def scripted() -> nn.Module:
    return nn.Sequential(torch.jit.script(nn.ReLU()), nn.Linear(9, 4))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("examples", [0, 1])
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (scripted, "RecursiveScriptModule keeps its tensors elsewhere than in Python"),
        (expanded, "cannot be put back as it was after an example"),
        (Tied, "a buffer of the model is computed from trained values"),
    ],
)
def test_a_model_that_cannot_be_put_back_is_refused_before_an_example_is_looked_at(
    build: Callable[[], nn.Module], message: str, examples: int
) -> None:
    """With one example as without: refused only where one is drawn, the error would tell that it is there."""
    model = build()

    with pytest.raises(PrivacyError, match=message):
        sample_level.train_privately(
            model,
            torch.optim.SGD(model.parameters(), 0.0),
            lambda _: model(torch.ones(1, 9)).sum(),
            made_up=lambda: model(torch.ones(1, 9)).sum(),
            mechanism=SampledGaussian(noise_multiplier=1.0, clip_norm=1.0, sample_rate=1.0, steps=1),
            batch_size=1.0,
            examples=examples,
            stream=UniformStream(bytes(16)),
        )


class SilentError(ValueError):
    """An error whose words are an error."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("error", [SilentError(), SystemExit(1), GeneratorExit()])
def test_no_error_of_an_example_leaves_the_client(error: BaseException) -> None:
    """Whatever it is, the example counts as zero; an error of the made-up example, the control, is told."""
    model = nn.Linear(9, 1)

    def fail() -> torch.Tensor:
        raise error

    def train(made_up: Callable[[], torch.Tensor]) -> None:
        sample_level.train_privately(
            model,
            torch.optim.SGD(model.parameters(), 0.0),
            lambda _: fail(),
            made_up=made_up,
            mechanism=SampledGaussian(noise_multiplier=1.0, clip_norm=1.0, sample_rate=1.0, steps=1),
            batch_size=1.0,
            examples=1,
            stream=UniformStream(bytes(16)),
        )

    train(lambda: model(torch.ones(1, 9)).sum())
    with pytest.raises((PrivacyError, type(error))):
        train(fail)


def test_nothing_of_a_call_is_left_for_the_next_one() -> None:
    """A graph that a buffer kept would have the next call refuse the model, and tell of the record."""
    model = Marked(lambda layer: layer.shift.copy_(layer.scale * 9))
    data = torch.full((1, 9), 1e3)

    def train() -> None:
        sample_level.train_privately(
            model,
            torch.optim.SGD(model.parameters(), 0.0),
            lambda chosen: model(data[chosen]).sum(),
            made_up=lambda: model(torch.ones(1, 9)).sum(),
            mechanism=SampledGaussian(noise_multiplier=1.0, clip_norm=1.0, sample_rate=1.0, steps=1),
            batch_size=1.0,
            examples=1,
            stream=UniformStream(bytes(16)),
        )

    for _ in range(3):
        train()
    assert (model.shift.grad_fn, model.shift.requires_grad) == (None, False)


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
