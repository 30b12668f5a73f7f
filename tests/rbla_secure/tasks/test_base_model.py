"""The base can be rebuilt from its folder alone, and the card's snippet loads what a run leaves behind."""

import hashlib
import json
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rbla_secure.errors import RunFolderError
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.peft_io import attach, find_linear, save_adapter, write_rows
from rbla_secure.tasks.base_model import (
    ARCHITECTURE_FILE,
    LOADING_SNIPPET,
    WEIGHTS_FILE,
    base_digest,
    build_mlp,
    load_base,
    mirrored,
    model_card,
    save_base,
    train_base,
)
from rbla_secure.tasks.datasets import LabelledImages
from rbla_secure.tasks.training import use_one_thread

use_one_thread()  # byte-for-byte claims hold for one number of threads

# Runs the snippet of each named run folder, with no network and without our package, and prints the logits.
LOAD_EACH = """
import os, pathlib, socket, sys

def refuse(*_):
    raise RuntimeError("no network")

socket.socket.connect = socket.getaddrinfo = refuse
sys.modules["rbla_secure"] = None
import torch

torch.set_num_threads(1)
for folder in sys.argv[1:]:
    os.chdir(folder)
    names = {}
    exec(pathlib.Path("adapter/README.md").read_text().split("```python\\n")[1].split("```")[0], names)
    logits = names["model"](torch.linspace(0, 1, 2 * 784).reshape(2, 784))
    print(*(value.hex() for value in logits.flatten().tolist()))
    os.chdir("..")
"""


def stripes(count: int = 200) -> LabelledImages:
    """Easy images: the class is where a bright column stands, left of the middle."""
    labels = np.arange(count) % 10
    images = np.zeros((count, 28, 28), np.float32)
    images[np.arange(count), :, labels] = 1.0
    return LabelledImages(images=images.reshape(count, 784), labels=labels)


def accuracy(model: nn.Module, examples: LabelledImages) -> float:
    logits = model(torch.tensor(examples.images))
    return float((logits.argmax(dim=1) == torch.tensor(examples.labels)).float().mean())


def test_mlp_layers_have_names() -> None:
    """The chain is 784-128-64-10 with names that end no other name."""
    model = build_mlp()

    layers = find_linear(model, scaling=2.0).layers

    assert [name for name, _ in model.named_children()] == ["hidden1", "relu1", "hidden2", "relu2", "head"]
    sizes = [(layer.in_features, layer.out_features) for layer in layers]
    assert sizes == [(784, 128), (128, 64), (64, 10)]


def test_mlp_follows_its_seed_and_leaves_the_global_generator_alone() -> None:
    """Initial weights come from the seed, with torch's default law."""
    before = torch.get_rng_state()

    first, again, other = (build_mlp(seed=seed) for seed in (1, 1, 2))

    assert torch.equal(torch.get_rng_state(), before)
    assert base_digest(first) == base_digest(again) != base_digest(other)
    limit = 784**-0.5
    assert 0.99 * limit < first.hidden1.weight.abs().max() <= limit
    assert 0.9 * limit < first.hidden1.bias.abs().max() <= limit


def test_mirrored_flips_left_and_right() -> None:
    """Rows keep their place, columns change sides, and twice is nothing."""
    examples = stripes(10)

    flipped = mirrored(examples).images.reshape(-1, 28, 28)

    assert flipped[3, :, 27 - 3].all()
    assert flipped[3].sum() == 28
    np.testing.assert_array_equal(mirrored(mirrored(examples)).images, examples.images)


def test_base_knows_mirrored_images_only() -> None:
    """It reads what it was trained on and fails on upright images."""
    base = train_base(stripes(), seed=0)

    assert accuracy(base, mirrored(stripes())) == 1.0
    assert accuracy(base, stripes()) < 0.5


def test_base_is_frozen_and_follows_its_seed() -> None:
    """The same seed gives the same bytes, nothing is trainable, and no gradient is left behind."""
    before = torch.get_rng_state()

    first, again, other = (train_base(stripes(40), seed=seed) for seed in (1, 1, 2))

    assert torch.equal(torch.get_rng_state(), before)
    assert base_digest(first) == base_digest(again) != base_digest(other)
    assert not any(value.requires_grad for value in first.parameters())
    assert not first.training


def test_digest_covers_names_shapes_and_values() -> None:
    """Each change of the model changes its digest."""

    def chain(name: str, layer: nn.Module) -> nn.Sequential:
        return nn.Sequential(OrderedDict([(name, layer)]))

    layer = nn.Linear(2, 2, bias=False)
    flat = nn.Linear(4, 1, bias=False)
    nudged = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        flat.weight.copy_(layer.weight.reshape(1, 4))
        nudged.weight.copy_(torch.nextafter(layer.weight, torch.tensor(9.0)))

    digests = {base_digest(chain(*args)) for args in (("a", layer), ("b", layer), ("a", flat), ("a", nudged))}

    assert len(digests) == 4
    assert all(len(digest) == 32 for digest in digests)


def test_saved_base_loads_to_the_same_base(tmp_path: Path) -> None:
    """Names, values and frozen state survive, and the same base gives the same bytes."""
    base = build_mlp(seed=5)
    save_base(tmp_path / "one", base)
    save_base(tmp_path / "two", base)

    loaded = load_base(tmp_path / "one")

    assert base_digest(loaded) == base_digest(base)
    assert [name for name, _ in loaded.named_children()] == [name for name, _ in base.named_children()]
    assert not any(value.requires_grad for value in loaded.parameters())
    for name in (ARCHITECTURE_FILE, WEIGHTS_FILE):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("layer", [nn.Tanh(), nn.Linear(2, 2, bias=False)])
def test_layers_that_the_files_cannot_describe_are_refused(tmp_path: Path, layer: nn.Module) -> None:
    """Nothing is saved that could not be rebuilt."""
    with pytest.raises(RunFolderError, match="base layer 'odd'"):
        save_base(tmp_path, nn.Sequential(OrderedDict(odd=layer)))


@pytest.mark.parametrize("name", [ARCHITECTURE_FILE, WEIGHTS_FILE])
@pytest.mark.parametrize("data", [None, b"", b"\x80\x04pickle", b"{}", b"[" * 100_000])
def test_damaged_base_files_are_refused(tmp_path: Path, name: str, data: bytes | None) -> None:
    """A missing or malformed file is a RunFolderError that names the folder."""
    save_base(tmp_path, build_mlp())
    (tmp_path / name).unlink()
    if data is not None:
        (tmp_path / name).write_bytes(data)

    with pytest.raises(RunFolderError, match="base="):
        load_base(tmp_path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda layers: layers[0].update(out_features=2**40),  # would not fit into memory if it were believed
        lambda layers: layers[0].update(out_features=64),
        lambda layers: layers[0].update(out_features="128"),
        lambda layers: layers[0].update(out_features=-1),
        lambda layers: layers[0].update(type="Conv2d"),
        lambda layers: layers[0].update(name="a.b"),
        lambda layers: layers[0].update(name=0),
        lambda layers: layers[0].pop("name"),
        lambda layers: layers.pop(0),
    ],
)
def test_an_architecture_that_does_not_fit_the_weights_is_refused(
    tmp_path: Path, edit: Callable[[list[dict[str, Any]]], object]
) -> None:
    """Sizes, types and names are checked against the weights before anything is allocated."""
    save_base(tmp_path, build_mlp())
    architecture = json.loads((tmp_path / ARCHITECTURE_FILE).read_text())
    edit(architecture["layers"])
    (tmp_path / ARCHITECTURE_FILE).write_text(json.dumps(architecture))

    with pytest.raises(RunFolderError, match="is damaged"):
        load_base(tmp_path)


@pytest.mark.parametrize("change", [lambda bias: bias * torch.nan, lambda bias: bias.double()])
def test_weights_that_are_not_finite_float32_are_refused(
    tmp_path: Path, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """A base that cannot be trained on is refused when it is read."""
    save_base(tmp_path, build_mlp())
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    tensors["head.bias"] = change(tensors["head.bias"])
    save_file(tensors, tmp_path / WEIGHTS_FILE)

    with pytest.raises(RunFolderError, match="finite float32"):
        load_base(tmp_path)


@pytest.mark.slow
def test_the_snippet_of_the_card_loads_base_and_adapter(tmp_path: Path) -> None:
    """Without our package and without a network it gives our logits, for the whole adapter and for a slice."""
    base = build_mlp(seed=3)
    layout = find_linear(base, scaling=2.0)
    rows = np.random.default_rng(0).normal(size=(6, layout.row_length), scale=0.1).astype(np.float32)
    adapters = {
        name: Adapter(layout=layout, rows=rows).sliced(rank) for name, rank in (("full", 6), ("sliced", 2))
    }
    for name, adapter in adapters.items():
        save_base(tmp_path / name / "base", base)
        save_adapter(tmp_path / name / "adapter", adapter, card=model_card({}))

    done = subprocess.run(
        [sys.executable, "-c", LOAD_EACH, *adapters],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    inputs = torch.linspace(0, 1, 2 * 784).reshape(2, 784)
    for adapter, line in zip(adapters.values(), done.stdout.splitlines(), strict=True):
        model = attach(base, layout=layout, rank=adapter.rank)
        write_rows(model, adapter)
        found = torch.tensor([float.fromhex(value) for value in line.split()])
        torch.testing.assert_close(found, model(inputs).flatten().detach())
        assert not torch.allclose(found, base(inputs).flatten())


def test_card_has_front_matter_facts_and_snippet() -> None:
    """The hub's fields stand first; a fact cannot break out of its cell."""
    card = model_card({"rounds": 20, "a|b": "two\nlines"}, license_id="apache-2.0")

    _, front, body = card.split("---\n", 2)
    assert "library_name: peft\nlicense: apache-2.0\ntags:\n- lora\n- peft\n- federated-learning\n" in front
    assert "base_model: base\n" in front
    assert "| rounds | 20 |\n| a\\|b | two lines |\n" in body
    assert f"```python\n{LOADING_SNIPPET}```" in body


EVERY_TYPE = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.complex64,
    torch.complex128,
    torch.int8,
    torch.uint8,
    torch.int64,
    torch.bool,
]


class Holder(nn.Module):
    """A state of one tensor."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)


@pytest.mark.parametrize("kind", EVERY_TYPE, ids=str)
def test_the_digest_covers_every_type_to_the_bit(kind: torch.dtype) -> None:
    """Each type has a digest of its own, which a changed bit, a changed shape and another type of the same bytes change."""
    value = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).to(kind)
    changed = value.clone()
    changed[1, 1] = 1

    same_bytes = torch.int16 if kind.itemsize == 2 else torch.uint8
    others = (
        value,
        changed,
        value.flatten(),
        value.view(same_bytes) if kind is not same_bytes else value.bool(),
    )

    assert len({base_digest(Holder(other)) for other in others}) == 4
    assert base_digest(Holder(value.T)) == base_digest(Holder(value.T.contiguous()))
    assert base_digest(Holder(torch.zeros((), dtype=kind))) != base_digest(Holder(torch.zeros(0, dtype=kind)))


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, np.int64, np.bool_, np.complex64])
def test_the_digest_of_a_type_that_numpy_knows_is_a_known_answer(kind: type) -> None:
    """SHA-256 over a label and for each tensor a JSON head with its length, and its little-endian bytes."""
    values = np.array([[0, 1, 1], [1, 0, 1]]).astype(kind)
    head = f'["value",[2,3],"{values.dtype}"]'.encode()

    digest = base_digest(Holder(torch.tensor(values)))

    expected = b"rbla-secure base\x00" + len(head).to_bytes(4, "big") + head + values.tobytes()
    assert digest == hashlib.sha256(expected).digest()


def test_a_state_without_plain_values_has_no_digest() -> None:
    """What is no dense tensor is refused by name, never skipped."""
    sparse = Holder(torch.eye(2).to_sparse())

    with pytest.raises(RunFolderError, match="'value' of type Tensor must be a dense tensor"):
        base_digest(sparse)
