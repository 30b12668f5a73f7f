"""What one example does to the model is gone before the next one is computed, and a time limit is nobody's gradient."""

import math
from collections import Counter, OrderedDict, deque
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
from rbla_secure.privacy.kept_model import KeptModel
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


class Popping(nn.Module):
    """Takes any entry of a set and puts it back: which one it is depends on where the last search in it ended."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(9, 4)
        self.signs = {1, 2}

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        sign = 2
        if values.any():
            self.signs.add(sign := self.signs.pop())
        made: torch.Tensor = self.line(values * (-1) ** sign)
        return made


class Slotted(nn.Linear):
    """A layer with an attribute in a slot."""

    __slots__ = ("gain",)


class Marked(nn.Module):
    """A layer that does something to itself when it sees one kind of record."""

    def __init__(self, act: Callable[["Marked"], object]) -> None:
        super().__init__()
        self.line = Slotted(9, 4)
        self.line.gain = 0.0
        self.scale = nn.Parameter(torch.ones(9))
        self.scale.register_hook(lambda gradient: gradient).remove()
        self.scale.gain = 0.0
        self.register_buffer("shift", torch.zeros(9))
        self.register_buffer("part", torch.zeros(18)[:9])
        self.register_buffer("row", torch.zeros(1).expand(9))
        self.register_buffer("spread", torch.eye(9).to_sparse())
        self.register_buffer("whole", torch.zeros(18))
        with torch.no_grad():
            self.register_buffer("first", self.whole[:9])
        self.parts = [(self.part,)]
        self.loose = torch.zeros(9)
        self.gain = 1.0
        self.gains: list[float] = []
        self.counted = Counter(gain=0)
        self.nested = {"gains": ([0.0],)}
        self.waiting: deque[float] = deque()
        self.ranked = OrderedDict(first=0.0, second=100.0)
        self.zeros = {0.0}
        self.ordered = set[int]()
        self.ordered.add(8)
        self.ordered.add(0)
        self.unregistered = [nn.Linear(9, 4)]
        self._act = act

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if values.max() > 100:
            self._act(self)
        added = self.shift + self.parts[0][0] + self.whole[:9] + self.loose + self.row
        made: torch.Tensor = self.line(self._factor() * values * self.scale + added)
        return made

    def _factor(self) -> float:
        plain = self.gain + sum(self.gains) + self.counted["gain"] + self.nested["gains"][0][0]
        ordered = next(iter(self.ranked.values())) + 100.0 * (next(iter(self.ordered)) == 0)
        signs = sum(math.copysign(100.0, zero) - 100.0 for zero in self.zeros)
        elsewhere = float(getattr(self.unregistered[0], "gain", 0.0)) + self.line.gain + self.scale.gain
        tensors = 0.0 if self.shift.grad is None else float(self.shift.grad.sum())
        spread = float(self.spread._values().sum()) - 9.0
        return plain + sum(self.waiting) + ordered + signs + elsewhere + tensors + spread


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


def _hook_after(layer: Marked) -> None:
    def turn(value: torch.Tensor) -> None:
        assert value.grad is not None
        value.grad.neg_()

    layer.line.weight.register_post_accumulate_grad_hook(turn)


def _replace_attributes(layer: Marked) -> None:
    layer.__dict__ = {**vars(layer), "gain": 100.0}


def _give_a_gradient(layer: Marked) -> None:
    layer.shift.grad = torch.full((9,), 9.0)


def _write_to_the_base(layer: Marked) -> None:
    layer.whole.copy_(torch.cat([layer.scale, layer.scale]) * 9)


def _resize_memory(layer: Marked) -> None:
    layer.shift.untyped_storage().resize_(0)
    layer.shift = torch.full((9,), 99.0)


def _turn_sign(layer: Marked) -> None:
    layer.zeros.clear()
    layer.zeros.add(-0.0)


def _turn_order(layer: Marked) -> None:
    layer.ordered.clear()
    layer.ordered.update((0, 8))


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
    "a hook on a trained value": lambda layer: layer.line.weight.register_hook(torch.neg),
    "a hook on a trained value that has had one": lambda layer: layer.scale.register_hook(torch.neg),
    "a hook after a gradient": _hook_after,
    "an attribute of a trained value": lambda layer: setattr(layer.scale, "gain", 100.0),
    "a gradient of a buffer": _give_a_gradient,
    "a view in a tuple in a list": lambda layer: layer.parts[0][0].copy_(layer.scale * 9),
    "the base of a view made without gradients": _write_to_the_base,
    "a buffer whose memory was resized": _resize_memory,
    "a buffer that repeats one number": lambda layer: layer.row.data[:1].fill_(99.0),
    "a sparse buffer": lambda layer: layer.spread._values().mul_(100.0),
    "a tensor that is no buffer": lambda layer: layer.loose.fill_(99.0),
    "an entry in a list": _fill_list,
    "an entry in a list in a tuple in a dictionary": lambda layer: layer.nested["gains"][0].insert(0, 100.0),
    "an entry in a deque": lambda layer: layer.waiting.append(100.0),
    "a count": lambda layer: layer.counted.update(gain=100),
    "the order of a dictionary": lambda layer: layer.ranked.move_to_end("first"),
    "an equal entry in a set": _turn_sign,
    "the order of a set": _turn_order,
    "a slot": lambda layer: setattr(layer.line, "gain", 100.0),
    "all attributes at once": _replace_attributes,
    "a module that is not registered": lambda layer: setattr(layer.unregistered[0], "gain", 100.0),
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
@pytest.mark.parametrize("build", [Peak, observed, Popping])
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
    act: Callable[[Marked], object], monkeypatch: pytest.MonkeyPatch
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


# In a set of this history the order turns each time that it is filled in the order in which it is read.
ENTRIES = (63, 55)


def test_a_set_has_one_order_from_the_first_example_on() -> None:
    """Filled again in the order in which it is read, it can come to another one each time."""
    model = nn.Linear(9, 4)
    model.entries = set(ENTRIES)
    kept = KeptModel(model, list(model.parameters()))
    first = list(model.entries)

    kept.put_back()

    assert list(model.entries) == first


def test_a_view_that_leaves_a_graph_keeps_its_attributes() -> None:
    model = nn.Linear(9, 4)
    model.register_buffer("part", torch.zeros(18)[:9])
    model.part.gain = 3.0
    kept = KeptModel(model, list(model.parameters()))
    model.part.copy_(model.weight[0])

    kept.put_back()

    assert (model.part.gain, model.part.grad_fn, float(model.part.sum())) == (3.0, None, 0.0)


class Tied(nn.Module):
    """A buffer that is computed from a trained value once."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(9, 9)
        self.register_buffer("head", self.line.weight.t())

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.line(values) @ self.head
        return made


def without_memory() -> nn.Module:
    model = nn.Linear(9, 4)
    model.register_buffer("row", torch.zeros(4, device="meta"))
    return model


def compressed() -> nn.Module:
    model = nn.Linear(9, 4)
    model.register_buffer("row", torch.eye(4).to_sparse_csr())
    return model


def scripted() -> nn.Module:
    return nn.Sequential(torch.jit.script(nn.ReLU()), nn.Linear(9, 4))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Sparse CSR:UserWarning")
@pytest.mark.parametrize("examples", [0, 1])
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (scripted, "RecursiveScriptModule keeps its tensors elsewhere than in Python"),
        (
            without_memory,
            "cannot be put back as it was after an example .*: its tensors must lie in the CPU's memory",
        ),
        (compressed, "cannot be put back as it was after an example .*, dense or of the layout sparse_coo"),
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
