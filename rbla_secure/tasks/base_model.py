"""The frozen base model of the demonstration task, its files, and the model card of the adapter trained on it.

The base has seen only *mirrored* public images, so it reads upright digits badly: what the federation gains is gained
by the adapters. A base is a plain chain of named `Linear` and `ReLU` layers. Its folder holds the chain in
architecture.json and the weights in model.safetensors, so that torch alone can rebuild it.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn
from torch.nn import functional

from rbla_secure.atomic_files import write_atomic
from rbla_secure.errors import RunFolderError
from rbla_secure.tasks.datasets import CLASSES, PIXELS, LabelledImages

ARCHITECTURE_FILE = "architecture.json"
WEIGHTS_FILE = "model.safetensors"

HIDDEN_UNITS = (128, 64)
SIDE = 28

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

BASE_EPOCHS = 15
BASE_BATCH_SIZE = 32
BASE_LEARNING_RATE = 1e-3

LOADING_SNIPPET = """\
import json
from collections import OrderedDict

from peft import PeftModel
from safetensors.torch import load_file
from torch import nn


def build(layer):
    if layer["type"] == "Linear":
        return nn.Linear(layer["in_features"], layer["out_features"])
    return nn.ReLU()


with open("base/architecture.json") as file:
    layers = json.load(file)["layers"]
base = nn.Sequential(OrderedDict((layer["name"], build(layer)) for layer in layers))
base.load_state_dict(load_file("base/model.safetensors"))
model = PeftModel.from_pretrained(base, "adapter").eval()
"""


def build_mlp(*, seed: int = 0) -> nn.Sequential:
    """An untrained perceptron 784-128-64-10 with named layers: hidden1, relu1, hidden2, relu2, head.

    Args:
        seed: Seed of the initial weights. The state of torch's global random generator is not touched.
    """
    sizes = (PIXELS, *HIDDEN_UNITS, CLASSES)
    names = [f"hidden{number}" for number in range(1, len(sizes) - 1)] + ["head"]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    generator = torch.Generator().manual_seed(seed)
    for name, wide, narrow in zip(names, sizes[:-1], sizes[1:], strict=True):
        layers[name] = _initial_linear(wide, narrow, generator)
        if name != "head":
            layers[name.replace("hidden", "relu")] = nn.ReLU()
    return nn.Sequential(layers)


def train_base(public: LabelledImages, *, seed: int) -> nn.Sequential:
    """Train the base on the public images, each flipped left to right, and freeze it.

    Args:
        public: Upright images.
        seed: Seed of the initial weights and the batches: the same seed gives the same base (on one torch thread).

    Returns:
        The base in evaluation mode, with no trainable parameter.
    """
    model = build_mlp(seed=seed)
    images, labels = torch.tensor(mirrored(public).images), torch.tensor(public.labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=BASE_LEARNING_RATE)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(BASE_EPOCHS):
        order = torch.randperm(len(labels), generator=generator)
        for batch in torch.split(order, BASE_BATCH_SIZE):
            loss = functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch declares no types here
            optimizer.step()
    return model.requires_grad_(False).eval()


def mirrored(examples: LabelledImages) -> LabelledImages:
    """The same examples with every image flipped left to right."""
    flipped = examples.images.reshape(-1, SIDE, SIDE)[:, :, ::-1]
    return LabelledImages(images=np.ascontiguousarray(flipped.reshape(-1, PIXELS)), labels=examples.labels)


def base_digest(model: nn.Module) -> bytes:
    """SHA-256 over the names, shapes, types and little-endian values of a model's state, in order of name.

    Any dense type: bfloat16, the 8-bit floats and the packed integers of quantized layers too.

    Raises:
        RunFolderError: A part of the state is no dense tensor, so its bytes say nothing.
    """
    digest = hashlib.sha256(b"rbla-secure base\x00")
    for name, tensor in sorted(model.state_dict().items()):
        data = _little_endian(name, tensor)
        kind = str(tensor.dtype).removeprefix("torch.")
        head = json.dumps([name, list(tensor.shape), kind], separators=(",", ":")).encode()
        digest.update(len(head).to_bytes(4, "big") + head)
        digest.update(data)
    return digest.digest()


def chain_digest(model: nn.Sequential) -> bytes:
    """SHA-256 over the layers of a chain and its state: all that its folder holds, layers without weights included.

    Raises:
        RunFolderError: As :func:`save_base`.
    """
    layers = json.dumps([_describe(name, layer) for name, layer in model.named_children()], sort_keys=True)
    return hashlib.sha256(b"rbla-secure base chain\x00" + base_digest(model) + layers.encode()).digest()


def base_files(model: nn.Sequential) -> dict[str, bytes]:
    """By name, the files of a base that is a chain of named linear layers and ReLUs. The same base gives the same bytes.

    Raises:
        RunFolderError: The chain holds a layer of another type, or a linear layer without bias.
    """
    architecture = {"format": 1, "layers": [_describe(name, layer) for name, layer in model.named_children()]}
    weights = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    return {
        ARCHITECTURE_FILE: (json.dumps(architecture, indent=2) + "\n").encode(),
        WEIGHTS_FILE: save(weights, metadata={"format": "pt"}),
    }


def save_base(folder: Path, model: nn.Sequential) -> None:
    """Write the files of a base.

    Raises:
        RunFolderError: As :func:`base_files`.
    """
    files = base_files(model)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write_atomic(folder / name, data)


def load_base(folder: Path) -> nn.Sequential:
    """Read a base that :func:`save_base` wrote, frozen and in evaluation mode.

    Raises:
        RunFolderError: A file is missing or malformed, or the weights do not fit the architecture.
    """
    try:
        architecture = json.loads((folder / ARCHITECTURE_FILE).read_bytes())
        # Built without memory: sizes are believed only once the weights, whose bytes are there, have the same.
        layers = OrderedDict((layer["name"], _rebuild(layer)) for layer in architecture["layers"])
        model = nn.Sequential(layers)
        model.load_state_dict(load_file(folder / WEIGHTS_FILE), strict=True, assign=True)
    except OSError as error:
        raise RunFolderError(f"base={folder} cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError, RuntimeError, RecursionError, SafetensorError) as error:
        raise RunFolderError(f"base={folder} is damaged: {type(error).__name__}: {error}") from None
    if not all(
        value.dtype == torch.float32 and value.isfinite().all() for value in model.state_dict().values()
    ):
        raise RunFolderError(f"base={folder} must hold finite float32 weights")
    return model.requires_grad_(False).eval()


def model_card(facts: Mapping[str, object], *, license_id: str = "other") -> str:
    """The README.md of an adapter: front matter, a table of facts, and the snippet that loads it.

    Args:
        facts: Rows of the table: what was trained, by how many, under which protection.
        license_id: Licence of the adapter's weights, an identifier of the Hugging Face hub.
    """
    table = "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in facts.items())
    return _CARD.format(license=license_id, table=table, snippet=LOADING_SNIPPET)


_CARD = """\
---
base_model: base
library_name: peft
license: {license}
tags:
- lora
- peft
- federated-learning
---

# LoRA adapter trained by a federation

Trained by rbla-secure on a frozen base model: every client fine-tuned an adapter of its own rank on its own data, and
the updates were averaged row by row. The table says how they were summed and what protected them.

| | |
|---|---|
{table}

## Load it

Run in the folder that holds `base/` and `adapter/`. The model takes float32 images of shape (n, 784) with values in
[0, 1] and returns ten logits for each.

```python
{snippet}```
"""


def _little_endian(name: str, tensor: object) -> bytes:
    if not isinstance(tensor, torch.Tensor) or tensor.is_quantized or tensor.layout is not torch.strided:
        raise RunFolderError(
            f"base state {name!r} of type {type(tensor).__name__} must be a dense tensor of plain values to have a digest"
        )
    values = tensor.detach().cpu().contiguous()
    if values.is_complex():
        values = torch.view_as_real(values.resolve_conj())
    # numpy has no bfloat16 and no 8-bit float: integers of the same width have the same bytes.
    integers = values.resolve_neg().flatten().view(_INTEGERS[values.element_size()]).numpy()
    return integers.astype(integers.dtype.newbyteorder("<"), copy=False).tobytes()


def _initial_linear(wide: int, narrow: int, generator: torch.Generator) -> nn.Linear:
    """A layer with torch's default law, +-1/sqrt(in_features), drawn from our own generator."""
    layer = nn.Linear(wide, narrow, device="meta").to_empty(device="cpu")  # draws nothing from the global one
    with torch.no_grad():
        layer.weight.uniform_(-(wide**-0.5), wide**-0.5, generator=generator)
        layer.bias.uniform_(-(wide**-0.5), wide**-0.5, generator=generator)
    return layer


def _describe(name: str, layer: nn.Module) -> dict[str, Any]:
    if type(layer) is nn.Linear and layer.bias is not None:
        sizes = {"in_features": layer.in_features, "out_features": layer.out_features}
        return {"name": name, "type": "Linear", **sizes}
    if type(layer) is nn.ReLU:
        return {"name": name, "type": "ReLU"}
    raise RunFolderError(
        f"base layer {name!r} of type {type(layer).__name__} must be a Linear with bias or a ReLU"
    )


def _rebuild(layer: Mapping[str, Any]) -> nn.Module:
    if layer["type"] == "Linear":
        return nn.Linear(layer["in_features"], layer["out_features"], device="meta")
    if layer["type"] == "ReLU":
        return nn.ReLU()
    raise ValueError(f"layer type {layer['type']!r} is unknown")


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
