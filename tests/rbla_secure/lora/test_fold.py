"""A folded rest is part of the function, is not trained, and leaves no bit behind."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, weight_norm

from rbla_secure.errors import AdapterError
from rbla_secure.lora import fold
from rbla_secure.lora.adapter import Adapter, AdapterLayout, LinearShape
from rbla_secure.lora.fold import FrozenRows, computing, folded
from rbla_secure.lora.peft_io import attach, find_linear, write_rows
from rbla_secure.tasks.base_model import base_digest
from tests.support.properties import PROPERTY

RANK = 6


class AsFloat(nn.Module):
    """Hands a base of another type what it computes with, and takes its output back."""

    def __init__(self, inner: nn.Module, kind: torch.dtype) -> None:
        super().__init__()
        self.inner = inner
        self.kind = kind

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.inner(inputs.to(self.kind)).float()


class Packed(nn.Module):
    """A stand-in for a quantized layer: 8-bit integers and one step a row, multiplied out in the forward pass."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        step = layer.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        self.register_buffer("step", step)
        self.register_buffer("packed", torch.round(layer.weight.detach() / step).to(torch.int8))
        self.register_buffer("bias", layer.bias.detach().clone())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return functional.linear(inputs, self.packed * self.step, self.bias)


class HandMade(nn.Module):
    """A layer as PEFT makes them, around any frozen layer."""

    def __init__(self, base_layer: nn.Module, down: torch.Tensor, up: torch.Tensor, scaling: float) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.down, self.up, self.scaling = nn.Parameter(down.clone()), nn.Parameter(up.clone()), scaling

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        added = functional.linear(functional.linear(inputs, self.down), self.up)
        return self.base_layer(inputs) + self.scaling * added


def chain(*sizes: int, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (wide, narrow) in enumerate(pairwise(sizes)):
            layers[f"layer{number}"] = nn.Linear(wide, narrow)
            layers[f"bend{number}"] = nn.Tanh()
        return nn.Sequential(layers).requires_grad_(False).eval()


def random_adapter(layout: AdapterLayout, *, rank: int = RANK, seed: int = 0, size: float = 0.3) -> Adapter:
    rows = size * np.random.default_rng(seed).normal(size=(rank, layout.row_length))
    return Adapter(layout=layout, rows=rows.astype(np.float32))


def inputs_for(width: int, *, kind: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(9, width, generator=generator).to(kind)


def trained_values(model: PeftModel) -> list[torch.Tensor]:
    return [value for value in model.parameters() if value.requires_grad]


def outputs_and_gradients(
    base: nn.Module, adapter: Adapter, inputs: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Outputs, and the gradients of a fixed loss for the adapter's rows and for the inputs."""
    model = attach(base, layout=adapter.layout, rank=adapter.rank).eval()
    inputs = inputs.clone().requires_grad_()
    with computing(model, adapter):
        outputs = model.get_base_model()(inputs)
        loss = (outputs * torch.linspace(-1, 1, outputs.numel()).reshape(outputs.shape)).sum()
        gradients = torch.autograd.grad(loss, [*trained_values(model), inputs])
    return outputs.detach(), list(gradients)


def assert_one_function(
    base: nn.Module, adapter: Adapter, rank: int, inputs: torch.Tensor, *, tolerance: float
) -> None:
    outputs, gradients = outputs_and_gradients(base, adapter.folded(rank), inputs)
    expected, whole = outputs_and_gradients(base, adapter, inputs)
    torch.testing.assert_close(outputs, expected, rtol=tolerance, atol=tolerance)
    for found, full in zip(gradients[:-1], whole[:-1], strict=True):  # lora_A of a layer, then its lora_B
        own = full[:rank] if found.shape[0] == rank and found.shape[1:] == full.shape[1:] else full[:, :rank]
        torch.testing.assert_close(found, own, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(gradients[-1], whole[-1], rtol=tolerance, atol=tolerance)


@PROPERTY
@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    rank=st.integers(1, RANK),
    scaling=st.sampled_from([2.0, 0.1, 1 / 3]),
    seed=st.integers(0, 1000),
)
def test_every_rank_computes_the_function_of_the_whole_adapter(
    sizes: list[int], rank: int, scaling: float, seed: int
) -> None:
    """Outputs, gradients of a client's own rows and of the inputs agree with those of all rows attached."""
    base = chain(*sizes, seed=seed)
    adapter = random_adapter(find_linear(base, scaling=scaling), seed=seed)

    assert_one_function(base, adapter, rank, inputs_for(sizes[0]), tolerance=2e-5)


@pytest.mark.parametrize("rank", [1, 5, RANK])
def test_they_agree_in_float64_to_its_own_digits(rank: int) -> None:
    """The difference is rounding: with twice the digits it is a billion times smaller."""
    base = chain(8, 7, 5).double()
    adapter = random_adapter(find_linear(base, scaling=2.0))

    assert_one_function(base, adapter, rank, inputs_for(8, kind=torch.float64), tolerance=1e-12)


def test_without_the_fold_ranks_compute_different_functions() -> None:
    """Control: a slice of the same rows is far from the whole."""
    base = chain(8, 7, 5)
    adapter = random_adapter(find_linear(base, scaling=2.0))

    whole, _ = outputs_and_gradients(base, adapter, inputs_for(8))
    sliced, _ = outputs_and_gradients(base, adapter.sliced(2), inputs_for(8))

    assert (whole - sliced).abs().max() > 0.1


def test_a_fold_is_rounded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folded weight is the float32 next to the exact sum, block by block or at once."""
    layer = nn.Linear(40, 30)
    terms = FrozenRows(layer="x", down=torch.randn(3, 40), up=torch.randn(30, 3), scaling=1 / 3)
    exact = layer.weight.detach().double() + terms.up.double() @ terms.down.double() / 3
    holder = HandMade(layer, torch.zeros(1, 40), torch.zeros(30, 1), 1.0)
    for block in (1, 100, 1 << 16):
        monkeypatch.setattr(fold, "BLOCK", block)

        with folded(holder, terms):
            weight = holder.base_layer.weight.detach()

        assert (weight.double() - exact).abs().max() <= torch.finfo(torch.float32).eps * exact.abs().max()
        assert torch.equal(weight, exact.float())


@pytest.mark.parametrize("end", [lambda: None, lambda: pytest.fail("interrupted")])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_frozen_layers_are_the_same_objects_with_the_same_bits_afterwards(
    kind: torch.dtype, end: Callable[[], None]
) -> None:
    """However the block ends: nothing is undone by arithmetic, since nothing was written."""
    base = chain(8, 7, 5).to(kind)
    base.layer0.weight.data[0, :2] = torch.tensor([-0.0, 1e-5])  # bits that adding and subtracting would lose
    adapter = random_adapter(find_linear(base, scaling=2.0))
    model = attach(base, layout=adapter.layout, rank=2).eval()
    before = {name: value.clone() for name, value in model.get_base_model().state_dict().items()}
    modules = {name: id(module) for name, module in model.named_modules()}
    addresses = {name: (id(value), value.data_ptr()) for name, value in model.named_parameters()}

    with suppress(pytest.fail.Exception), computing(model, adapter.folded(2)):
        model.get_base_model()(inputs_for(8, kind=kind)).sum().backward()
        end()

    after = model.get_base_model().state_dict()
    frozen = [name for name in before if "lora" not in name]
    assert len(frozen) == 4
    for name in frozen:
        assert after[name].view(torch.uint8).equal(before[name].view(torch.uint8))
    assert {name: id(module) for name, module in model.named_modules()} == modules
    assert {name: (id(value), value.data_ptr()) for name, value in model.named_parameters()} == addresses
    assert not any(module._forward_hooks for module in model.modules())


def test_the_rest_brings_no_parameter_and_no_gradient() -> None:
    """While folded, what is trained is what a model of the client's rank trains."""
    base = chain(8, 7, 5)
    adapter = random_adapter(find_linear(base, scaling=2.0))
    model = attach(base, layout=adapter.layout, rank=2).eval()
    names = {name for name, value in model.named_parameters() if value.requires_grad}

    with computing(model, adapter.folded(2)):
        model.get_base_model()(inputs_for(8)).sum().backward()

        assert {name for name, value in model.named_parameters() if value.requires_grad} == names
        assert {name for name, value in model.named_parameters() if value.grad is not None} == names
        assert sum(value.numel() for value in trained_values(model)) == 2 * adapter.layout.row_length


@pytest.mark.parametrize("zeroed", [0, 1])
def test_rows_that_add_nothing_change_no_bit(zeroed: int) -> None:
    """With lora_A or lora_B of the rest zero, as in the first round, the frozen layers stay in their places."""
    base = chain(8, 7, 5)
    base.layer0.weight.data[0, 0] = -0.0
    layout = find_linear(base, scaling=2.0)
    rows = random_adapter(layout).rows.copy()
    for halves in layout.columns.values():
        rows[2:, halves[zeroed]] = 0.0
    adapter = Adapter(layout=layout, rows=rows)
    model = attach(base, layout=layout, rank=2).eval()
    write_rows(model, adapter.sliced(2))
    expected = model.get_base_model()(inputs_for(8))
    modules = {name: id(module) for name, module in model.named_modules()}

    with computing(model, adapter.folded(2)):
        found = model.get_base_model()(inputs_for(8))

        assert {name: id(module) for name, module in model.named_modules()} == modules
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_base_of_half_the_digits_keeps_its_fold(kind: torch.dtype) -> None:
    """Small rows survive beside a bfloat16 weight as they do when attached, where a fold into it would lose them."""
    base = AsFloat(chain(64, 48, 32), kind)
    base.inner.to(kind)
    layout = find_linear(base, scaling=2.0)
    adapter = random_adapter(layout, size=0.005)  # products of 1e-4 beside weights of 1e-1
    careless = copy.deepcopy(base)
    for layer in layout.layers:
        product = 2.0 * adapter.lora_B(layer.name)[:, 2:] @ adapter.lora_A(layer.name)[2:]
        careless.get_submodule(layer.name).weight.data += torch.tensor(product).to(kind)
    whole_weights = [base.get_submodule(layer.name).weight for layer in layout.layers]
    rounded_away = [
        (careless.get_submodule(layer.name).weight == weight).float().mean()
        for layer, weight in zip(layout.layers, whole_weights, strict=True)
    ]

    eps = torch.finfo(kind).eps
    assert_one_function(base, adapter, 2, inputs_for(64), tolerance=8 * eps)
    # The first layer alone, before rounding of later layers: the rest's share of the output is there to the last digits.
    model = attach(base, layout=layout, rank=2).eval()
    first, inputs = layout.layers[0].name, inputs_for(64, kind=kind)
    with computing(model, adapter.folded(2)):
        found = model.get_base_model().get_submodule(first)(inputs).float()
    write_rows(model, adapter.sliced(2))
    without = model.get_base_model().get_submodule(first)(inputs).float()
    share = (
        2.0
        * inputs.float()
        @ torch.tensor(adapter.lora_A(first)[2:]).T
        @ torch.tensor(adapter.lora_B(first)[:, 2:]).T
    )
    assert (found - without - share).abs().max() <= eps * without.abs().max()
    if kind is torch.bfloat16:  # control
        assert min(rounded_away) > 0.5


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_what_such_a_weight_would_round_away_is_kept(kind: torch.dtype) -> None:
    """Terms of a quarter of the last digit of every weight: lost one by one, together they are the whole output."""
    layer = nn.Linear(64, 3, bias=False).to(kind)
    layer.weight.data = torch.tensor([1.0, -1.0], dtype=kind).repeat(3, 32)
    term = torch.finfo(kind).eps / 4
    terms = FrozenRows(layer="x", down=torch.full((1, 64), term), up=torch.ones(3, 1), scaling=1.0)
    inputs = torch.ones(1, 64, dtype=kind)

    holder = HandMade(layer, torch.zeros(1, 64, dtype=kind), torch.zeros(3, 1, dtype=kind), 1.0)
    with folded(holder, terms):
        outputs = holder(inputs)

    assert torch.equal(layer.weight + term, layer.weight), "control: into the weight it would be lost"
    assert outputs.float().tolist() == [[64 * term] * 3]


def test_a_quantized_layer_gets_the_rest_beside_it() -> None:
    """A layer without a weight that could be added to computes the same function as with all rows attached."""
    torch.manual_seed(0)
    packed = Packed(nn.Linear(8, 5))
    down, up = torch.randn(RANK, 8), torch.randn(5, RANK)
    whole, own = HandMade(packed, down, up, 0.5), HandMade(packed, down[:2], up[:, :2], 0.5)
    before = copy.deepcopy(packed.state_dict())
    inputs = inputs_for(8).requires_grad_()
    expected = torch.autograd.grad(whole(inputs).square().sum(), [whole.down, whole.up, inputs])

    with folded(own, FrozenRows(layer="x", down=down[2:], up=up[:, 2:], scaling=0.5)):
        outputs = own(inputs)
        found = torch.autograd.grad(outputs.square().sum(), [own.down, own.up, inputs])

    torch.testing.assert_close(outputs, whole(inputs))
    torch.testing.assert_close(found[0], expected[0][:2])
    torch.testing.assert_close(found[1], expected[1][:, :2])
    torch.testing.assert_close(found[2], expected[2])
    assert all(torch.equal(value, before[name]) for name, value in packed.state_dict().items())


@pytest.mark.parametrize(
    "unusual",
    [
        parametrizations.weight_norm,
        pytest.param(weight_norm, marks=pytest.mark.filterwarnings("ignore::FutureWarning")),
        Packed,
        nn.Sequential,
    ],
)
def test_a_layer_whose_weight_is_computed_gets_the_rest_beside_it(
    unusual: Callable[[nn.Module], nn.Module],
) -> None:
    """Writing to what is recomputed on every call would be lost: such a layer is taken for what it is."""
    layer = unusual(nn.Linear(8, 5))
    terms = FrozenRows(layer="x", down=torch.randn(3, 8), up=torch.randn(5, 3), scaling=2.0)
    inputs = inputs_for(8)
    plain = layer(inputs)
    holder = HandMade(layer, torch.zeros(1, 8), torch.zeros(5, 1), 1.0)

    for module in (layer, holder):
        with folded(module, terms):
            torch.testing.assert_close(module(inputs), plain + 2.0 * inputs @ terms.down.T @ terms.up.T)
        assert torch.equal(module(inputs), plain)


class Tied(nn.Module):
    """A layer, another with the same weight tensor, and the first one under a second name."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.lookup = nn.Embedding(6, 6)
        self.lookup.weight = self.first.weight
        self.again = nn.ModuleDict({"alias": self.first})

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.second(torch.tanh(self.first(inputs))))
        return self.again["alias"](hidden) + self.lookup(torch.tensor(2))


@pytest.mark.parametrize("names", [("first",), ("second",), ("first", "second")])
def test_weights_that_are_shared_are_folded_where_the_adapter_is_and_nowhere_else(
    names: tuple[str, ...],
) -> None:
    """A tied weight or a layer with two names: each adapted place gets its own fold once, the others none."""
    torch.manual_seed(0)
    base = Tied().requires_grad_(False).eval()
    layers = tuple(LinearShape(name=name, in_features=6, out_features=6) for name in names)
    adapter = random_adapter(AdapterLayout(layers=layers, scaling=2.0))
    digest = base_digest(base)

    assert_one_function(base, adapter, 2, inputs_for(6), tolerance=2e-5)
    model = attach(base, layout=adapter.layout, rank=2)
    with computing(model, adapter.folded(2)):
        inner = model.get_base_model()
        assert torch.equal(inner.lookup.weight, base.lookup.weight)
        assert torch.equal(inner.again["alias"].weight, base.first.weight)
    assert base_digest(base) == digest
    assert inner.lookup.weight is inner.again["alias"].weight


def test_folds_of_one_model_add_up_and_end_in_reverse_order() -> None:
    """A fold inside a fold is the sum of both, and each takes away what it brought."""
    base = chain(8, 7, 5)
    layout = find_linear(base, scaling=2.0)
    adapter = random_adapter(layout)
    middle = Adapter(layout=layout, rows=adapter.rows[:2], rest=adapter.rows[2:4])
    last = Adapter(layout=layout, rows=adapter.rows[:2], rest=adapter.rows[4:])
    model, inputs = attach(base, layout=layout, rank=2).eval(), inputs_for(8)
    network = model.get_base_model()
    expected, _ = outputs_and_gradients(base, adapter, inputs)

    with computing(model, middle):
        alone = network(inputs)
        with computing(model, last):
            both = network(inputs)
        after = network(inputs)

    torch.testing.assert_close(both, expected, rtol=2e-5, atol=2e-5)
    assert torch.equal(after, alone)


@pytest.mark.parametrize("size", [1e20, 3e38])
def test_a_fold_that_is_not_finite_is_refused_and_leaves_nothing(size: float) -> None:
    """Where the product overflows, another rank could compute on: the layer is named, and earlier ones are restored."""
    base = chain(8, 7, 5)
    layout = find_linear(base, scaling=2.0)
    rows = random_adapter(layout).rows.copy()
    for half in layout.columns["layer1"]:
        rows[3:, half] = size
    adapter = Adapter(layout=layout, rows=rows)
    model = attach(base, layout=layout, rank=2).eval()
    modules = {name: id(module) for name, module in model.named_modules()}

    with pytest.raises(AdapterError, match="'layer1' finite"), computing(model, adapter.folded(2)):
        pytest.fail("must not be entered")

    assert {name: id(module) for name, module in model.named_modules()} == modules


def test_huge_values_that_cancel_across_the_edge_make_ranks_differ() -> None:
    """What the docstring warns of, and why the bound on an adapter's values is needed: 1e10 and -1e10 in other orders."""
    base = chain(8, 7, 5)
    layout = find_linear(base, scaling=2.0)
    rows = random_adapter(layout).rows.copy()
    lora_A, lora_B = layout.columns["layer0"]
    rows[1, lora_A], rows[1, lora_B] = 1e5, 1e5
    rows[2, lora_A], rows[2, lora_B] = 1e5, -1e5
    adapter = Adapter(layout=layout, rows=rows)

    folded_in, _ = outputs_and_gradients(base, adapter.folded(1), inputs_for(8))
    apart, _ = outputs_and_gradients(base, adapter.folded(2), inputs_for(8))

    assert (folded_in - apart).abs().max() > 0.1


def test_a_model_of_another_rank_is_refused() -> None:
    """The rows to train must be the model's."""
    base = chain(8, 7, 5)
    adapter = random_adapter(find_linear(base, scaling=2.0))
    model = attach(base, layout=adapter.layout, rank=3)

    with (
        pytest.raises(AdapterError, match="rank=2 must be the model's rank 3"),
        computing(model, adapter.folded(2)),
    ):
        pytest.fail("must not be entered")
