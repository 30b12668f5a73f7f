"""The rows beyond a client's rank, folded into its frozen weights while it trains its own.

For a layer with frozen weight W, scaling c, a client's own rows (A, B) and the rest (A', B') of the global adapter:

    whole adapter    y = W x + c [B B'] [A; A'] x
    folded           y = (W + c B' A') x + c B A x

Both are one function up to the rounding of floats, so clients of all ranks start a round from *one* function: a layer is
dead for all of them or for none, and the gradient of a row is the same map of the data for everybody who trains it.
Run by the client. (Prefix form of the folding in FSLoRA, arXiv 2501.19389, and Fed-PLoRA, arXiv 2602.16936.)

Two ways, by what the frozen layer is:

* A plain `nn.Linear` of float32 or float64, whose output is that of its weight: no hooks, and no `forward` of its own in
  the instance (libraries that move layers between devices put one there, bound to the layer and so to its weight). For the
  round, a stand-in takes the layer's place inside PEFT's module, with W + c B' A' for its weight (computed in float64,
  rounded once), and afterwards the layer itself is put back. Nothing is ever written to the layer or its weight: there is
  no subtraction that would have to undo rounding, and another module that shares the layer or ties its weight computes as
  before, as it would beside an attached adapter.
* Anything else. In bfloat16 or float16 the sum would round most of the fold away (a change below 2^-9 or 2^-12 of a
  weight is lost), and a quantized weight cannot be added to: the rest is added to the frozen layer's output by a hook, in
  float32 at least; PEFT adds the own rows to that, and the sum of all is rounded once to the type of the output. Its rows
  are constants; gradients flow through them to the layer's input. Hooks run where a module is called: a model that calls
  `forward` of an adapted layer's frozen part itself would pass this way by, but PEFT calls the module.

Costs, beside training at the client's own rank: a second copy of the adapted layers' weights while the round lasts and
one product B' A' a layer (first way), or two products with the rest's rows for every input (second way). No parameter,
no state of an optimizer and no gradient comes with the rest.

What it does not give:

* Where all own rows are trained together, equal functions hold at the *first* local step. After it a client of rank 16
  has moved rows that a client of rank 2 keeps frozen. A server that may choose the adapter can make low rows that have
  exactly zero gradients for everybody at the first step and come alive only for those who trained higher rows
  (`benchmarks/fold_isolation.py`: at a distance of 2.5 from the seeded first adapter, so a bound on how far an adapter
  may move in a round delays it by a round or two and no more). Training in turns closes it
  (:class:`rbla_secure.tasks.training.LocalTrainer`): the fold then has the same edge for all holders of a band.
* Equal up to rounding is equal for values of ordinary size only. Values that cancel across the fold's edge are added in
  another order by clients of other ranks, who then compute from different functions. On the second layer of the demo's base,
  with one row of the own and one of the rest that cancel (each lora_A 1/32 throughout, lora_B alike but for its sign), the
  share of live units is the same at ranks 2 to 16, to 0.001, for values of lora_B up to 1,000 and to 0.002 for 10,000, with a
  base of float32, float16 or bfloat16; for 1e7 it is 0.40 against 0.56 (float32) and 0 against 0.50 (float16). In turns the
  order is the same for all holders of a band; otherwise only a bound on the adapter's values excludes it. A fold that is
  not finite is refused here. Commands load bases of float32 alone.
* A model may be dead for the data of all clients but one: the fold knows nothing of data.
"""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeGuard, final

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn import functional

from rbla_secure.errors import AdapterError
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.peft_io import adapted_layers, write_rows

# Values of a weight that are folded at a time: their float64 copies stay in a cache of 1 MiB.
BLOCK: Final = 1 << 16

_EXACT = {torch.float32, torch.float64}
Inputs = tuple[Any, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrozenRows:
    """Frozen rank-one terms of one linear layer.

    Args:
        layer: The layer's name, for messages.
        down: A, shape (k, in_features), float32.
        up: B, shape (out_features, k), float32.
        scaling: The factor of B A.
    """

    layer: str
    down: torch.Tensor
    up: torch.Tensor
    scaling: float


@contextmanager
def computing(model: PeftModel, adapter: Adapter) -> Iterator[None]:
    """Inside a `with` block, let a model compute the function of an adapter: its own rows attached, its rest folded.

    Guarantees: the frozen layers are the same objects with the same bits afterwards, however the block ends; what is
    trained are the adapter's own rows alone; terms of the rest that are zero change no bit.

    Args:
        model: Made by :func:`rbla_secure.lora.peft_io.attach`, at the adapter's rank.
        adapter: With or without a rest.

    Raises:
        AdapterError: The ranks differ, or the fold is not finite.
    """
    write_rows(model, adapter.sliced(adapter.rank))
    with ExitStack() as undo:
        for layer, terms in _rest(model, adapter):
            undo.enter_context(folded(layer, terms))
        yield


@contextmanager
def folded(layer: nn.Module, terms: FrozenRows) -> Iterator[None]:
    """Inside a `with` block, add frozen terms to a layer's output. Folds of one layer add up and end in reverse order.

    Args:
        layer: A module of PEFT around a frozen `base_layer`, or any module from (..., in) to (..., out) features.
        terms: What is added.

    Raises:
        AdapterError: A folded weight is not finite.
    """
    base = getattr(layer, "base_layer", None)
    if _is_its_weight(base):
        way = _stand_in(layer, base, terms)
    elif isinstance(layer, LoraLayer) and isinstance(base, nn.Module):
        way = _added_to_frozen_output(layer, base, terms)
    else:
        way = _added_to_output(layer, terms)
    with way:
        yield


def _is_its_weight(base: object) -> TypeGuard[nn.Linear]:
    """Whether a frozen layer's output follows from its weight and bias alone; only then can its weight be replaced."""
    return (
        type(base) is nn.Linear
        and "forward" not in vars(base)
        and not base._forward_hooks  # noqa: SLF001
        and not base._forward_pre_hooks  # noqa: SLF001
        and "weight" in base._parameters  # noqa: SLF001
        and base.weight.dtype in _EXACT
    )


def _rest(model: PeftModel, adapter: Adapter) -> Iterator[tuple[nn.Module, FrozenRows]]:
    if adapter.rest is None:
        return
    beyond, scaling = Adapter(layout=adapter.layout, rows=adapter.rest), adapter.layout.scaling
    for shape, layer in adapted_layers(model, adapter.layout):
        down, up = torch.tensor(beyond.lora_A(shape.name)), torch.tensor(beyond.lora_B(shape.name))
        if down.any() and up.any():
            yield layer, FrozenRows(layer=shape.name, down=down, up=up, scaling=scaling)


@contextmanager
def _stand_in(layer: nn.Module, base: nn.Linear, terms: FrozenRows) -> Iterator[None]:
    """Return a linear layer to replace the frozen one, sharing everything but the weight."""
    weight = nn.Parameter(_folded_weight(base.weight.detach(), terms), requires_grad=False)
    other = copy.copy(base)
    other._parameters = base._parameters | {"weight": weight}  # noqa: SLF001  # a shallow copy shares the dictionary
    try:
        layer.base_layer = other
        yield
    finally:
        layer.base_layer = base


def _folded_weight(weight: torch.Tensor, terms: FrozenRows) -> torch.Tensor:
    """W + c B A, computed in float64 in blocks of rows and rounded once."""
    down, up = (part.to(weight.device, torch.float64) for part in (terms.down, terms.up))
    found = torch.empty_like(weight)
    height = max(1, BLOCK // weight.shape[1])
    for start in range(0, len(weight), height):
        block = slice(start, start + height)
        found[block] = torch.addmm(weight[block].double(), up[block], down, alpha=terms.scaling)
    if not all(extreme.isfinite() for extreme in found.aminmax()):  # a NaN is both
        raise AdapterError(
            f"the adapter's rest must leave the weight of layer {terms.layer!r} finite: refuse it"
        )
    return found


@contextmanager
def _added_to_frozen_output(layer: nn.Module, base: nn.Module, terms: FrozenRows) -> Iterator[None]:
    """The terms as frozen extra rows beside a frozen layer whose weight cannot take them.

    What is handed to PEFT is wider than the layer's own output: rounded here, it would lose what own rows and rest, large
    and of opposite signs, leave together.
    """
    given, narrow = torch.empty(0), None

    def take(_: nn.Module, inputs: Inputs, named: dict[str, Any]) -> None:
        # The own rows' input: hooks of the frozen layer may change its own before it gets there.
        nonlocal given
        given = inputs[0] if inputs else named["x"]

    def add(_module: nn.Module, _inputs: Inputs, output: torch.Tensor) -> torch.Tensor:
        nonlocal narrow
        narrow = output.dtype
        return _with(terms, given, output)

    def rounded(_module: nn.Module, _inputs: Inputs, output: torch.Tensor) -> torch.Tensor:
        return output.to(narrow)

    # The terms come after all hooks of the frozen layer, the rounding before all of the layer with its own rows.
    handles = [
        layer.register_forward_pre_hook(take, with_kwargs=True),
        base.register_forward_hook(add),
        layer.register_forward_hook(rounded, prepend=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _added_to_output(layer: nn.Module, terms: FrozenRows) -> Iterator[None]:
    """The terms as frozen extra rows beside a module that is not PEFT's; its output is rounded twice."""

    def add(_: nn.Module, inputs: Inputs, output: torch.Tensor) -> torch.Tensor:
        return _with(terms, inputs[0], output).to(output.dtype)

    handle = layer.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def _with(terms: FrozenRows, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Return an output plus the contribution of the terms, in float32 at least."""
    kind = torch.promote_types(output.dtype, torch.float32)
    down, up = (part.to(output.device, kind) for part in (terms.down, terms.up))
    added = functional.linear(functional.linear(inputs.to(kind), down), up)
    return output.to(kind) + terms.scaling * added
