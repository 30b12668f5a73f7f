"""Frozen layers whose weight cannot take a fold: the rest goes beside them, and nobody's rank shows in what they compute."""

import functools
import types
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from rbla_secure.lora import fold
from rbla_secure.lora.adapter import Adapter, AdapterLayout
from rbla_secure.lora.fold import computing
from rbla_secure.lora.peft_io import attach, find_linear

RANKS = (1, 3, 6)
WIDE, NARROW = 64, 16


def one_layer(kind: torch.dtype = torch.float32) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(WIDE, NARROW)).requires_grad_(False).eval().to(kind)


def inputs_of(kind: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(9, WIDE, generator=torch.Generator().manual_seed(1)).to(kind)


def random_adapter(layout: AdapterLayout) -> Adapter:
    rows = 0.3 * np.random.default_rng(0).normal(size=(RANKS[-1], layout.row_length))
    return Adapter(layout=layout, rows=rows.astype(np.float32))


def outputs(base: nn.Module, adapter: Adapter, inputs: torch.Tensor) -> dict[int, torch.Tensor]:
    """By rank: what a client of it computes."""
    found = {}
    for rank in RANKS:
        model = attach(base, layout=adapter.layout, rank=rank).eval()
        with computing(model, adapter.folded(rank)):
            found[rank] = model.get_base_model()(inputs).detach()
        assert hooks(model) == hooks(base), "hooks of the fold stay"
    return found


def hooks(model: nn.Module) -> int:
    return sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.modules())


def spread(found: dict[int, torch.Tensor]) -> float:
    """How far outputs of different ranks lie apart."""
    return max(float((found[rank] - found[RANKS[-1]]).abs().max()) for rank in RANKS)


def bound(layer: nn.Linear) -> None:
    layer.forward = types.MethodType(
        lambda self, inputs: functional.linear(inputs, self.weight, self.bias), layer
    )


def wrapped(layer: nn.Linear) -> None:
    """As accelerate's `add_hook_to_module`: a partial function that keeps the layer and its old method."""
    old = layer.forward

    def new(module: nn.Module, *args: torch.Tensor) -> torch.Tensor:
        assert module is not None
        return old(*args)

    layer.forward = functools.update_wrapper(functools.partial(new, layer), old)


@pytest.mark.parametrize("give", [bound, wrapped])
def test_a_layer_with_a_forward_of_its_own_gets_the_rest_beside_it(
    give: Callable[[nn.Linear], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in would carry the method along, which computes with the original weight: the fold would be lost."""
    base = one_layer()
    give(base[0])
    adapter = random_adapter(find_linear(base, scaling=2.0))

    careful = outputs(base, adapter, inputs_of())
    monkeypatch.setattr(fold, "_is_its_weight", lambda layer: type(layer) is nn.Linear)
    careless = outputs(base, adapter, inputs_of())

    assert spread(careful) < 1e-5
    assert spread(careless) > 1, "control: a stand-in for such a layer has no effect"


@pytest.mark.parametrize("before", [False, True])
def test_what_others_hang_on_a_frozen_layer_sees_the_frozen_layer_alone(
    before: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hook that bends is given at every rank what it is given of a whole adapter: nothing of it."""
    base = one_layer()
    if before:
        base[0].register_forward_pre_hook(lambda _module, inputs: (inputs[0].clamp(max=0.5),))
    else:
        base[0].register_forward_hook(lambda _module, _inputs, output: output.clamp(min=0.0))
    adapter = random_adapter(find_linear(base, scaling=2.0))

    careful = outputs(base, adapter, inputs_of())
    monkeypatch.setattr(fold, "_is_its_weight", lambda layer: type(layer) is nn.Linear)

    assert spread(careful) < 1e-5
    assert spread(outputs(base, adapter, inputs_of())) > 0.1, "control: folded into what is bent"


def opposite(layout: AdapterLayout, size: float) -> Adapter:
    """The first and the last row are large and cancel; every other is zero."""
    rows = np.zeros((RANKS[-1], layout.row_length), np.float32)
    reads, writes = layout.columns["0"]
    rows[0, reads] = rows[-1, reads] = size
    rows[0, writes], rows[-1, writes] = size, -size
    return Adapter(layout=layout, rows=rows)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1.0, 10.0, 30.0])
def test_in_half_precision_rows_that_cancel_cancel_at_every_rank(
    kind: torch.dtype, size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Own rows and rest are added in float32 and rounded once: else a layer would be dead for some ranks only."""
    base = one_layer(kind)
    adapter, inputs = opposite(find_linear(base, scaling=2.0), size), inputs_of(kind)
    expected = base(inputs).float()
    terms = 2.0 * size**2 * WIDE  # at most; float32 keeps them to its own last digit
    tolerance = 2 * torch.finfo(kind).eps * float(expected.abs().max()) + 2.0**-23 * terms

    for found in outputs(base, adapter, inputs).values():
        assert found.dtype is kind
        assert (found.float() - expected).abs().max() <= tolerance
    monkeypatch.setattr(fold, "LoraLayer", ())
    careless = outputs(base, adapter, inputs)
    assert size == 1.0 or spread(careless) > tolerance, "control: rounded after the own rows, and again"


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_rest_beside_a_layer_is_computed_in_float32(kind: torch.dtype) -> None:
    """Two rows of the rest whose difference is below the digits of the layer's type."""
    base = one_layer(kind)
    layout = find_linear(base, scaling=1.0)
    rows = np.zeros((RANKS[-1], layout.row_length), np.float32)
    reads, writes = layout.columns["0"]
    rows[-2, reads], rows[-2, writes] = 1.0, 1.0 + 2.0**-14
    rows[-1, reads], rows[-1, writes] = 1.0, -1.0
    inputs = torch.ones(1, WIDE, dtype=kind)
    nothing = nn.Sequential(nn.Linear(WIDE, NARROW, bias=False)).requires_grad_(False).to(kind)
    nothing[0].weight.zero_()

    for found in outputs(nothing, Adapter(layout=layout, rows=rows), inputs).values():
        assert found.float().tolist() == [[WIDE * 2.0**-14] * NARROW]
