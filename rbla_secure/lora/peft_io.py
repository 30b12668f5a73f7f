"""PEFT models and PEFT's adapter files, from and to rank rows.

An adapter that left here loads with PEFT alone:

    base_model.model.<path>.lora_A.weight   (rank, in_features)
    base_model.model.<path>.lora_B.weight   (out_features, rank)

Files are read as safetensors and JSON only, so a foreign adapter can be wrong but cannot run code.
"""

import copy
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn

from rbla_secure.atomic_files import write_atomic
from rbla_secure.errors import AdapterError
from rbla_secure.lora.adapter import Adapter, AdapterLayout, LinearShape, Rows

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
CARD_FILE = "README.md"

_PREFIX = "base_model.model."
_NAME = "default"  # PEFT's name for the one adapter of a model; it does not appear in files

# Settings that say nothing about what a loaded adapter computes.
_HARMLESS = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "lora_dropout",
    "megatron_core",  # a default value that only has a meaning beside other settings
    "peft_version",
    "qalora_group_size",  # the same
    "revision",
    "task_type",
}
_CHOICES = {"peft_type", "r", "lora_alpha", "target_modules"}
_EMPTY: tuple[Any, ...] = (None, False, "none", [], {})

# alpha is stored as a float; alpha / r repeats the scaling only to the last digits.
_SCALING_DIGITS = 12


def find_linear(model: nn.Module, *, scaling: float) -> AdapterLayout:
    """The layout that adapts every linear layer of a model, in model order.

    Args:
        model: The base model. Only modules of the exact type `nn.Linear` count: subclasses may compute otherwise.
        scaling: alpha / r, one constant for the whole federation.

    Raises:
        AdapterError: No linear layer lies inside the model.
    """
    layers = tuple(
        LinearShape(name=name, in_features=module.in_features, out_features=module.out_features)
        for name, module in model.named_modules()
        if name and type(module) is nn.Linear
    )
    if not layers:
        raise AdapterError(f"model={type(model).__name__} must contain at least one module of type nn.Linear")
    return AdapterLayout(layers=layers, scaling=scaling)


def attach(base: nn.Module, *, layout: AdapterLayout, rank: int) -> PeftModel:
    """A copy of the base model with a LoRA adapter of one rank on exactly the layers of the layout.

    The adapter's values mean nothing until :func:`write_rows`. The base is not touched, nor is the state of torch's
    global random generator.

    Args:
        base: The frozen base model.
        layout: The layers to adapt, and alpha / r.
        rank: Rank rows of the adapter.

    Raises:
        AdapterError: A layer is missing or of another shape, its name also matches another module, or PEFT scales
            the adapter by something else than `layout.scaling`.
    """
    _check_targets(base, layout)
    settings: dict[str, Any] = {
        "r": rank,
        "lora_alpha": _alpha(layout, rank),
        "lora_dropout": 0.0,
        "bias": "none",
    }
    config = LoraConfig(target_modules=[layer.name for layer in layout.layers], **settings)
    with torch.random.fork_rng(devices=[]):
        model = PeftModel(copy.deepcopy(base), config)  # its initial values come from the global generator
    _check_attached(model, layout)
    return model


def write_rows(model: PeftModel, adapter: Adapter) -> None:
    """Give an attached adapter the values of `adapter`.

    Raises:
        AdapterError: The ranks differ, or the adapter has a rest, without which the model is another function:
            :func:`rbla_secure.lora.fold.computing` adds it.
    """
    _check_no_rest(adapter)
    with torch.no_grad():
        for shape, lora_A, lora_B in _weights(model, adapter.layout):
            if len(lora_A) != adapter.rank:
                raise AdapterError(f"rank={adapter.rank} must be the model's rank {len(lora_A)}")
            lora_A.copy_(torch.tensor(adapter.lora_A(shape.name)))
            lora_B.copy_(torch.tensor(adapter.lora_B(shape.name)))


def adapted_layers(model: PeftModel, layout: AdapterLayout) -> Iterator[tuple[LinearShape, nn.Module]]:
    """Every layer of the layout and PEFT's module in its place, whose `base_layer` is the frozen original."""
    for layer in layout.layers:
        yield layer, model.get_submodule(_PREFIX + layer.name)


def freeze_lora_A(model: PeftModel, layout: AdapterLayout) -> None:
    """Leave only lora_B to be trained (FFA-LoRA, Sun et al. 2024, arXiv 2403.12313)."""
    for _, lora_A, _ in _weights(model, layout):
        lora_A.requires_grad = False


def read_rows(model: PeftModel, layout: AdapterLayout) -> Rows:
    """The values of an attached adapter: the exact inverse of :func:`write_rows`.

    Returns:
        Shape (rank, row_length), float32. Not checked: after a training that diverged they hold NaN.
    """
    parts = []
    for _, lora_A, lora_B in _weights(model, layout):
        parts += [lora_A.detach(), lora_B.detach().T]
    rows: Rows = torch.cat(parts, dim=1).float().numpy()
    return rows


def adapter_files(adapter: Adapter, *, card: str) -> dict[str, bytes]:
    """By name, the files of an adapter in PEFT's format: weights, configuration and model card.

    Guarantees: the same rows and card give the same bytes, and no file names a machine, a path or a version.

    Args:
        adapter: Full or sliced.
        card: The text of README.md.

    Raises:
        AdapterError: The adapter has a rest, which the format cannot hold: save the whole.
    """
    _check_no_rest(adapter)
    tensors = {}
    for layer in adapter.layout.layers:
        key_A, key_B = _keys(layer.name)
        tensors[key_A] = np.ascontiguousarray(adapter.lora_A(layer.name))
        tensors[key_B] = np.ascontiguousarray(adapter.lora_B(layer.name))
    return {
        WEIGHTS_FILE: save(tensors, metadata={"format": "pt"}),
        CONFIG_FILE: _config_text(adapter).encode(),
        CARD_FILE: card.encode(),
    }


def save_adapter(folder: Path, adapter: Adapter, *, card: str) -> None:
    """Write the files of an adapter. Each is on the disk when the function returns.

    Args:
        folder: Created if missing; files of an earlier adapter are replaced.
        adapter: Full or sliced.
        card: The text of README.md.

    Raises:
        AdapterError: As :func:`adapter_files`.
    """
    files = adapter_files(adapter, card=card)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write_atomic(folder / name, data)


def load_adapter(folder: Path) -> Adapter:
    """Read an adapter in PEFT's format.

    The order of the layers is that of `target_modules`, which must list the full path of each: :func:`save_adapter`
    writes it so. PEFT itself keeps a set, so an adapter it saved may come back with its layers in another order.

    Raises:
        AdapterError: A file is missing or malformed; a tensor is missing, unknown or of the wrong shape or type; the
            configuration uses what rank rows cannot express, such as an alpha / r per layer; a value is not finite.
    """
    config = _read_config(folder / CONFIG_FILE)
    rank, scaling, names = _read_choices(config, folder / CONFIG_FILE)
    tensors = _read_tensors(folder / WEIGHTS_FILE)
    _check_keys(tensors, names)
    layers = tuple(_read_shape(tensors, name, rank) for name in names)
    parts: list[Rows] = []
    for name in names:
        key_A, key_B = _keys(name)
        parts += [tensors[key_A], tensors[key_B].T]
    return Adapter(layout=AdapterLayout(layers=layers, scaling=scaling), rows=np.concatenate(parts, axis=1))


def _check_no_rest(adapter: Adapter) -> None:
    if adapter.rest is not None:
        raise AdapterError(
            f"an adapter with a rest of {len(adapter.rest)} rows must be whole here: without them it is another function"
        )


def _alpha(layout: AdapterLayout, rank: int) -> int | float:
    alpha = layout.scaling * rank
    return int(alpha) if alpha.is_integer() else alpha


def _keys(name: str) -> tuple[str, str]:
    return f"{_PREFIX}{name}.lora_A.weight", f"{_PREFIX}{name}.lora_B.weight"


def _check_targets(base: nn.Module, layout: AdapterLayout) -> None:
    modules = dict(base.named_modules())
    for layer in layout.layers:
        found = modules.get(layer.name)
        expected = (layer.out_features, layer.in_features)
        if type(found) is not nn.Linear or found.weight.shape != expected:
            raise AdapterError(f"layer={layer.name!r} must be an nn.Linear with a weight of shape {expected}")
    names = {layer.name for layer in layout.layers}
    for path in modules.keys() - names:
        # PEFT takes a target name for every module whose path ends in it.
        if clash := next((name for name in names if path.endswith(f".{name}")), None):
            raise AdapterError(
                f"layer={clash!r} must not also be the end of the module path {path!r}: rename one"
            )


def _check_attached(model: nn.Module, layout: AdapterLayout) -> None:
    adapted = {
        name.removeprefix(_PREFIX): module.scaling[_NAME]
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }
    if adapted.keys() != {layer.name for layer in layout.layers}:
        raise AdapterError(f"PEFT adapted {sorted(adapted)} instead of exactly the layers of the layout")
    for name, scaling in adapted.items():
        if not math.isclose(scaling, layout.scaling, rel_tol=1e-9):
            raise AdapterError(f"PEFT scales layer {name!r} by {scaling} instead of scaling={layout.scaling}")


def _weights(
    model: PeftModel, layout: AdapterLayout
) -> Iterator[tuple[LinearShape, torch.Tensor, torch.Tensor]]:
    for layer in layout.layers:
        path = _PREFIX + layer.name
        try:
            lora_A, lora_B = (
                model.get_parameter(f"{path}.{half}.{_NAME}.weight") for half in ("lora_A", "lora_B")
            )
        except AttributeError:
            raise AdapterError(f"layer={layer.name!r} must carry an adapter") from None
        yield layer, lora_A, lora_B


def _config_text(adapter: Adapter) -> str:
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,  # the base travels beside the adapter; a path would name a machine
        "inference_mode": True,
        "init_lora_weights": True,
        "r": adapter.rank,
        "lora_alpha": _alpha(adapter.layout, adapter.rank),
        "lora_dropout": 0.0,
        "target_modules": [layer.name for layer in adapter.layout.layers],
        "alpha_pattern": {},
        "rank_pattern": {},
        "bias": "none",
        "fan_in_fan_out": False,
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
    }
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise AdapterError(f"adapter file {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"adapter file {path} is not a JSON file: {error}") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise AdapterError(f"adapter file {path} must describe an adapter with peft_type=LORA")
    # Refuse whatever is not known to be harmless: a later PEFT may add variants with another formula.
    for key in sorted(config.keys() - _HARMLESS - _CHOICES):
        usual = key == "init_lora_weights" and config[key] is True  # by other laws the base changes too
        if not usual and config[key] not in _EMPTY:
            raise AdapterError(
                f"{key}={config[key]!r} in {path} must be empty: rank rows mean one alpha / r and no more"
            )
    return config


def _read_choices(config: Mapping[str, Any], path: Path) -> tuple[int, float, tuple[str, ...]]:
    rank, alpha, names = (config.get(key) for key in ("r", "lora_alpha", "target_modules"))
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise AdapterError(f"r={rank!r} in {path} must be an integer of at least 1")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha < math.inf:
        raise AdapterError(f"lora_alpha={alpha!r} in {path} must be a finite number above 0")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise AdapterError(
            f"target_modules={names!r} in {path} must list the full path of every adapted layer"
        )
    if len(set(names)) != len(names):
        raise AdapterError(f"target_modules={names!r} in {path} must be distinct")
    return rank, float(f"{alpha / rank:.{_SCALING_DIGITS}g}"), tuple(names)


def _read_tensors(path: Path) -> dict[str, Rows]:
    try:
        with safe_open(path, framework="np") as file:
            kinds = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118  # no mapping
            if wrong := next((key for key, kind in kinds.items() if kind != "F32"), None):
                raise AdapterError(f"tensor {wrong} of type {kinds[wrong]} in {path} must be F32")
            return {key: file.get_tensor(key) for key in kinds}
    except OSError as error:
        raise AdapterError(f"adapter file {path} cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise AdapterError(f"adapter file {path} is not a safetensors file: {error}") from None


def _check_keys(tensors: Mapping[str, Rows], names: tuple[str, ...]) -> None:
    expected = {key for name in names for key in _keys(name)}
    if missing := sorted(expected - tensors.keys()):
        raise AdapterError(f"adapter tensor {missing[0]} is missing")
    if unknown := sorted(tensors.keys() - expected):
        raise AdapterError(f"adapter tensor {unknown[0]} belongs to no layer of target_modules")


def _read_shape(tensors: Mapping[str, Rows], name: str, rank: int) -> LinearShape:
    lora_A, lora_B = (tensors[key] for key in _keys(name))
    if lora_A.ndim != 2 or lora_B.ndim != 2 or len(lora_A) != rank or lora_B.shape[1] != rank:  # noqa: PLR2004
        shapes = f"{lora_A.shape} and {lora_B.shape}"
        raise AdapterError(
            f"layer={name!r} has lora_A and lora_B of shapes {shapes}, which must be of rank r={rank}"
        )
    return LinearShape(name=name, in_features=lora_A.shape[1], out_features=len(lora_B))
