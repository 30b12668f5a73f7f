"""DP-SGD inside a client: gradients of single examples, clipping, noise, and each of the silent faults."""

import copy
import math
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification

from protocols.primitives.prg import KEY_SIZE, UniformStream
from rbla_secure.errors import PrivacyError
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.fold import computing
from rbla_secure.lora.peft_io import attach, find_linear, write_rows
from rbla_secure.privacy import sample_level
from rbla_secure.privacy.sample_level import clipped_sum, poisson_batch, train_privately
from rbla_secure.privacy.sampled_gaussian import UNITS, SampledGaussian
from tests.support.single_examples import in_one_batch

EXAMPLES = 24


@dataclass(frozen=True)
class Case:
    """A model with adapters, and the summed loss of some examples."""

    model: nn.Module
    logits: Callable[[torch.Tensor], torch.Tensor]
    labels: torch.Tensor

    def loss(self, indices: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(self.logits(indices), self.labels[indices], reduction="sum")

    def made_up(self) -> torch.Tensor:
        return self.loss(torch.zeros(1, dtype=torch.int64))

    def optimizer(self, rate: float = 0.1) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.values(), lr=rate)

    def values(self) -> list[nn.Parameter]:
        return [value for value in self.model.parameters() if value.requires_grad]

    def flat(self) -> torch.Tensor:
        return torch.cat([value.detach().reshape(-1).clone() for value in self.values()])


def adapted(base: nn.Module, targets: list[str]) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        model = get_peft_model(base, LoraConfig(r=3, lora_alpha=6, target_modules=targets))
    with torch.no_grad():  # away from B = 0, where lora_A has no gradient
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.3)
    return model


def mlp() -> Case:
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 4))
    data = torch.randn(EXAMPLES, 12)
    model = adapted(base, ["0", "2"])
    return Case(model, lambda i: model(data[i]), torch.randint(4, (EXAMPLES,)))


def cnn(*, frozen_batch_norm: bool = False) -> Case:
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(6) if frozen_batch_norm else nn.GroupNorm(2, 6)
    base = nn.Sequential(nn.Conv2d(1, 6, 3, stride=2), norm, nn.ReLU(), nn.Flatten(), nn.Linear(6 * 9, 4))
    data = torch.randn(EXAMPLES, 1, 8, 8)
    model = adapted(base, ["0", "4"])
    return Case(model, lambda i: model(data[i]), torch.randint(4, (EXAMPLES,)))


def transformer() -> Case:
    torch.manual_seed(2)
    sizes = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(
        **sizes,
        intermediate_size=32,
        max_position_embeddings=12,
        num_labels=4,
        initializer_range=0.4,
        attn_implementation="eager",
    )
    words = torch.randint(30, (EXAMPLES, 10))
    model = adapted(BertForSequenceClassification(config), ["query", "value"])
    return Case(model, lambda i: model(input_ids=words[i]).logits, torch.randint(4, (EXAMPLES,)))


MODELS = pytest.mark.parametrize("build", [mlp, cnn, transformer])


def mechanism(**changes: float) -> SampledGaussian:
    fields = {"noise_multiplier": 1.0, "clip_norm": 0.5, "sample_rate": 0.5, "steps": 1} | changes
    return SampledGaussian(**fields)  # type: ignore[arg-type]


def stream(number: int = 0) -> UniformStream:
    return UniformStream(number.to_bytes(KEY_SIZE, "big"))


def autograd_sum(case: Case, indices: torch.Tensor, clip_norm: float) -> torch.Tensor:
    """The oracle: one backward pass per example, clipped and added."""
    case.model.eval()
    total = torch.zeros_like(case.flat())
    for index in indices:
        gradients = torch.autograd.grad(case.loss(index[None]), case.values())
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        total += flat * min(1.0, clip_norm / float(flat.norm()))
    return total


def opacus_sum(case: Case, indices: torch.Tensor, clip_norm: float, *, mixing: bool = False) -> torch.Tensor:
    """The same by a library, in one batch."""
    rows = torch.from_numpy(in_one_batch(case.model, case.loss, indices.tolist(), mixing=mixing))
    return (rows * (clip_norm / rows.norm(dim=1, keepdim=True)).clamp(max=1.0)).sum(dim=0)


def without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sample_level, "discrete_gaussian", lambda _, count, __: np.zeros(count, dtype=np.int64)
    )


def one_step(
    case: Case, found: SampledGaussian, *, number: int = 0, made_up: Callable[[], torch.Tensor] | None = None
) -> torch.Tensor:
    """The gradient that one step of rate 1 applied, with what is expected of a batch for its divisor."""
    before = case.flat()
    train_privately(
        case.model,
        case.optimizer(1.0),
        case.loss,
        made_up=made_up or case.made_up,
        mechanism=found,
        batch_size=found.sample_rate * EXAMPLES,
        examples=EXAMPLES,
        stream=stream(number),
    )
    return before - case.flat()


@MODELS
@pytest.mark.parametrize("clip_norm", [0.05, 5.0])
def test_the_clipped_sum_is_that_of_a_library(
    build: Callable[[], Case], clip_norm: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On three kinds of model, one backward pass per example and the hooks of Opacus give the same numbers."""
    without_noise(monkeypatch)
    case, found = (
        build(),
        mechanism(clip_norm=clip_norm),
    )  # the smaller norm clips them all, the larger few or none
    batch = poisson_batch(EXAMPLES, found.sample_rate, stream())
    assert 5 < len(batch) < EXAMPLES
    expected = opacus_sum(case, batch, clip_norm) / (found.sample_rate * EXAMPLES)

    stepped = one_step(case, found)

    assert float((stepped - expected).abs().max()) < 1e-5
    assert float(expected.abs().max()) > 1e-3


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_folded_rest_keeps_the_gradients_of_single_examples(
    kind: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With frozen rows in the weights or beside them."""
    without_noise(monkeypatch)
    torch.manual_seed(0)
    data = torch.randn(EXAMPLES, 12)
    base = nn.Sequential(OrderedDict(one=nn.Linear(12, 16), bend=nn.Tanh(), two=nn.Linear(16, 4))).to(kind)
    layout = find_linear(base, scaling=2.0)
    rows = np.random.default_rng(0).normal(scale=0.3, size=(5, layout.row_length)).astype(np.float32)
    adapter = Adapter(layout=layout, rows=rows)
    model = attach(base, layout=layout, rank=2).eval()
    case = Case(model, lambda i: model(data[i].to(kind)).float(), torch.randint(4, (EXAMPLES,)))
    found = mechanism(clip_norm=0.3, sample_rate=1.0)
    with computing(model, adapter.folded(2)):
        expected = autograd_sum(case, torch.arange(EXAMPLES), 0.3) / EXAMPLES
        stepped = one_step(case, found)
    write_rows(model, adapter.sliced(2))
    without = autograd_sum(case, torch.arange(EXAMPLES), 0.3) / EXAMPLES

    assert float((stepped - expected).abs().max()) < 1e-5
    assert float((without - expected).abs().max()) > 1e-3  # control: the rest matters


@given(
    norms=st.lists(st.sampled_from([0.0, 1e-30, 0.3, 1.0, 7.0, 1e30, 1e300, math.inf, math.nan]), min_size=1),
    clip_norm=st.sampled_from([1e-3, 0.5, 20.0]),
)
@settings(deadline=None)
def test_one_example_moves_the_sum_by_no_more_than_the_sensitivity(
    norms: list[float], clip_norm: float
) -> None:
    """Neighbours: whatever an example's gradient is, with and without it the exact sums are D apart at most."""
    rows = np.random.default_rng(0).normal(size=(len(norms), 50))
    rows *= np.array(norms)[:, None] / np.linalg.norm(rows, axis=1, keepdims=True)
    found = mechanism(clip_norm=clip_norm)

    difference = clipped_sum(rows.copy(), found) - clipped_sum(rows[1:].copy(), found)

    assert math.sqrt(float(np.square(difference.astype(float)).sum())) <= found.sensitivity(50)


def test_a_gradient_within_the_clip_norm_is_not_scaled() -> None:
    rows = np.full((1, 4), 0.1)
    assert clipped_sum(rows, mechanism(clip_norm=1.0)).tolist() == [round(0.1 * UNITS)] * 4


@pytest.mark.parametrize("multiplier", [0.5, 2.0])
def test_noise_has_the_claimed_scale(multiplier: float) -> None:
    """Accepts z C / (q n), rejects two thirds and three halves of it."""
    found = mechanism(noise_multiplier=multiplier, sample_rate=1e-9, steps=1)
    noise = torch.cat([one_step(mlp(), found, number=number) for number in range(40)])

    claimed = multiplier * found.clip_norm / (found.sample_rate * EXAMPLES)

    ratio = float(noise.std()) / claimed
    spread = 4 / math.sqrt(2 * len(noise))
    assert abs(ratio - 1) < spread
    assert abs(ratio - 2 / 3) > spread
    assert abs(ratio - 3 / 2) > spread


@pytest.mark.parametrize("trained", [False, True])
def test_a_batch_norm_does_not_mix_examples(*, trained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen or trained. In training mode, which a library lets pass where it is frozen, it would: by how much, is the control."""
    without_noise(monkeypatch)
    found = mechanism(sample_rate=1.0, clip_norm=0.05)

    def build() -> Case:
        case = cnn(frozen_batch_norm=True)
        for module in case.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(trained)
        return case

    case = build()
    statistics = {name: value.clone() for name, value in case.model.named_buffers()}
    expected = autograd_sum(case, torch.arange(EXAMPLES), 0.05) / EXAMPLES

    assert float((one_step(case, found) - expected).abs().max()) < 1e-5
    assert all(torch.equal(value, statistics[name]) for name, value in case.model.named_buffers())

    if not trained:
        mixed = opacus_sum(build(), torch.arange(EXAMPLES), 0.05, mixing=True) / EXAMPLES
        assert float((mixed - expected).abs().max()) > 1e-3


@MODELS
def test_an_empty_batch_is_a_step_of_noise_alone(build: Callable[[], Case]) -> None:
    """The step counts and its noise is there; a transformer would not even run on no examples: the control."""
    found = mechanism(sample_rate=1e-9, steps=3)
    case = build()
    before = case.flat()
    asked: list[torch.Tensor] = []

    def loss(indices: torch.Tensor) -> torch.Tensor:
        asked.append(indices)
        return case.loss(indices)

    train_privately(
        case.model,
        case.optimizer(1e-12),
        loss,
        made_up=case.made_up,
        mechanism=found,
        batch_size=found.sample_rate * EXAMPLES,
        examples=EXAMPLES,
        stream=stream(),
    )

    assert asked == []
    assert not torch.equal(before, case.flat())
    if build is transformer:
        with pytest.raises(RuntimeError):
            case.loss(torch.arange(0))


def test_a_record_that_is_not_a_number_counts_as_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """One bad record is no gradient; without the guard every value of the model would be NaN: the control."""
    without_noise(monkeypatch)
    found = mechanism(sample_rate=1.0)

    def poisoned() -> Case:
        case = mlp()

        def logits(indices: torch.Tensor) -> torch.Tensor:
            spoilt = torch.where((indices == 3)[:, None], torch.tensor(math.nan), torch.tensor(1.0))
            return case.logits(indices) * spoilt

        return Case(case.model, logits, case.labels)

    others = torch.tensor([index for index in range(EXAMPLES) if index != 3])
    expected = autograd_sum(mlp(), others, 0.5) / EXAMPLES

    assert float((one_step(poisoned(), found) - expected).abs().max()) < 1e-5

    monkeypatch.setattr(np, "isfinite", lambda values: np.ones_like(values, dtype=bool))
    with np.errstate(invalid="ignore"):
        spoilt = one_step(poisoned(), found)
    assert float((spoilt - expected).abs().max()) > 1.0


@pytest.mark.parametrize(("examples", "rate"), [(100, 0.3), (100, 0.64), (7, 0.4)])
def test_the_sampling_rate_is_used_as_it_is(
    examples: int, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not 1 / (number of batches), and the divisor is what the caller says, not how many were drawn or are there.

    A library that makes batches of size rate x examples would draw 0.25 for 0.3 and 0.5 for 0.64: both are told apart.
    """
    source = stream()
    sizes = [len(poisson_batch(examples, rate, source)) for _ in range(4000)]
    spread = 5 * math.sqrt(rate * (1 - rate) / (examples * 4000))
    assert abs(np.mean(sizes) / examples - rate) < spread
    assert abs(1 / int(1 / rate) - rate) > spread or 1 / rate == int(1 / rate)

    without_noise(monkeypatch)
    weight = nn.Parameter(torch.zeros(1))

    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1, bias=False)
            self.layer.weight = nn.Parameter(weight[None])

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.layer(inputs)

    model = Constant()
    train_privately(
        model,
        torch.optim.SGD(model.parameters(), lr=1.0),
        lambda chosen: model(torch.ones(len(chosen), 1)).sum(),
        made_up=lambda: model(torch.ones(1, 1)).sum(),
        mechanism=mechanism(clip_norm=1.0, sample_rate=rate),
        batch_size=16.0,
        examples=examples,
        stream=stream(1),
    )
    drawn = len(poisson_batch(examples, rate, stream(1)))
    assert -model.layer.weight.item() == pytest.approx(drawn / 16, rel=1e-6)


def test_batches_are_independent_of_each_other() -> None:
    """Poisson sampling: sizes have the binomial variance, which a shuffled pass over the data has not."""
    source = stream()
    sizes = [len(poisson_batch(200, 0.25, source)) for _ in range(4000)]
    assert np.var(sizes) == pytest.approx(200 * 0.25 * 0.75, rel=0.12)


def test_an_optimizer_of_other_values_is_refused() -> None:
    """The model was copied after its optimizer was made: training would go nowhere while epsilon is spent."""
    case = mlp()
    optimizer = case.optimizer()
    moved = copy.deepcopy(case.model)
    with pytest.raises(PrivacyError, match="optimizer must hold exactly the model's trained values"):
        train_privately(
            moved,
            optimizer,
            case.loss,
            made_up=case.made_up,
            mechanism=mechanism(),
            batch_size=1.0,
            examples=EXAMPLES,
            stream=stream(),
        )


def test_a_stale_optimizer_would_move_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the guard above."""
    case = mlp()
    optimizer = case.optimizer()
    moved = copy.deepcopy(case.model)
    data, before = torch.randn(EXAMPLES, 12), Case(moved, case.logits, case.labels).flat()
    monkeypatch.setattr(
        sample_level, "_trained_values", lambda model, _: [v for v in model.parameters() if v.requires_grad]
    )

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(moved(data[chosen]), case.labels[chosen], reduction="sum")

    train_privately(
        moved,
        optimizer,
        loss,
        made_up=lambda: loss(torch.tensor([0])),
        mechanism=mechanism(),
        batch_size=1.0,
        examples=EXAMPLES,
        stream=stream(),
    )

    assert torch.equal(before, Case(moved, case.logits, case.labels).flat())


def test_a_trained_value_that_is_not_used_is_refused() -> None:
    case = mlp()
    unused = nn.Linear(3, 3)
    case.model.add_module("unused", unused)
    with pytest.raises(PrivacyError, match="no gradient of its own for an example: its layer was not used"):
        one_step(case, mechanism(sample_rate=1.0))


@pytest.mark.parametrize("batch_size", [0.0, -1.0, math.inf, math.nan])
def test_a_divisor_that_is_none_is_refused(batch_size: float) -> None:
    case = mlp()
    with pytest.raises(PrivacyError, match=f"batch_size={batch_size} must be above 0 and finite"):
        train_privately(
            case.model,
            case.optimizer(),
            case.loss,
            made_up=case.made_up,
            mechanism=mechanism(),
            batch_size=batch_size,
            examples=EXAMPLES,
            stream=stream(),
        )


def test_nothing_is_left_behind() -> None:
    """The model can be trained again, privately or not, and copied."""
    case = mlp()
    one_step(case, mechanism())
    one_step(case, mechanism())
    case.loss(torch.arange(3)).backward()
    one_step(case, mechanism())
    assert all(value.grad is None for value in case.values())
    assert not any(module.training for module in case.model.modules())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_multiplier": 0.0}, "noise_multiplier=0.0 must be above 0"),
        ({"noise_multiplier": math.nan}, "noise_multiplier=nan must be above 0 and finite"),
        ({"noise_multiplier": 1e5}, "must be < 227.556"),
        ({"noise_multiplier": 1e-7}, "must be >= "),
        ({"clip_norm": math.inf}, "clip_norm=inf"),
        ({"sample_rate": 0.0}, r"sample_rate=0.0 must lie in \(0, 1\]"),
        ({"sample_rate": 1.5}, "sample_rate=1.5"),
        ({"steps": 0}, "steps=0 must be at least 1"),
    ],
)
def test_what_gives_no_privacy_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(PrivacyError, match=message):
        mechanism(**changes)
