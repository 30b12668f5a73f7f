"""PEFT models and adapter files hold exactly the rank rows they were given."""

import json
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file, save_file
from torch import nn

from rbla_secure.errors import AdapterError
from rbla_secure.lora.adapter import Adapter, AdapterLayout, LinearShape
from rbla_secure.lora.peft_io import (
    CARD_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    attach,
    find_linear,
    load_adapter,
    read_rows,
    save_adapter,
    write_rows,
)


class Unusual(nn.Linear):
    """A linear layer that may compute otherwise."""


class Empty(nn.Module):
    """A model without parts."""


def small_model() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = nn.Sequential(OrderedDict(inner=nn.Linear(5, 4), relu=nn.ReLU()))
        return nn.Sequential(
            OrderedDict(first=nn.Linear(6, 5), block=block, other=Unusual(4, 4), head=nn.Linear(4, 3))
        )


def random_adapter(layout: AdapterLayout, *, rank: int, seed: int = 0) -> Adapter:
    rows = np.random.default_rng(seed).normal(size=(rank, layout.row_length)).astype(np.float32)
    return Adapter(layout=layout, rows=rows)


@pytest.fixture
def layout() -> AdapterLayout:
    return find_linear(small_model(), scaling=2.0)


@pytest.fixture
def saved(tmp_path: Path, layout: AdapterLayout) -> Path:
    save_adapter(tmp_path, random_adapter(layout, rank=3), card="card")
    return tmp_path


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | changes))


def test_find_linear_takes_exactly_the_plain_linear_layers_in_model_order() -> None:
    """Subclasses of nn.Linear are left out, and nested modules are named by their path."""
    found = find_linear(small_model(), scaling=2.0)

    assert found.layers == (
        LinearShape(name="first", in_features=6, out_features=5),
        LinearShape(name="block.inner", in_features=5, out_features=4),
        LinearShape(name="head", in_features=4, out_features=3),
    )
    assert found.scaling == 2.0


@pytest.mark.parametrize("model", [nn.ReLU(), nn.Linear(2, 2), Empty()])
def test_find_linear_refuses_a_model_without_inner_linear_layers(model: nn.Module) -> None:
    """A model that is itself one layer has nothing inside that could be replaced."""
    with pytest.raises(AdapterError, match=r"at least one module of type nn\.Linear"):
        find_linear(model, scaling=2.0)


@pytest.mark.parametrize("scaling", [2.0, 0.1, 1 / 3])
@pytest.mark.parametrize("rank", [1, 2, 3, 7])
def test_attached_adapter_adds_the_scaled_product(scaling: float, rank: int) -> None:
    """Every adapted layer computes base(x) + scaling * B A x, whatever the rank."""
    base = small_model()
    layout = find_linear(base, scaling=scaling)
    adapter = random_adapter(layout, rank=rank)
    model = attach(base, layout=layout, rank=rank)
    write_rows(model, adapter)

    merged = small_model()
    for layer in layout.layers:
        product = torch.tensor(adapter.lora_B(layer.name) @ adapter.lora_A(layer.name))
        merged.get_submodule(layer.name).weight.data += scaling * product
    inputs = torch.linspace(-1, 1, 30).reshape(5, 6)

    torch.testing.assert_close(model(inputs), merged(inputs))


def test_attach_leaves_base_and_global_generator_alone(layout: AdapterLayout) -> None:
    """The base keeps its modules and values, and torch's random state does not move."""
    base = small_model()
    before = torch.get_rng_state()

    model = attach(base, layout=layout, rank=2)

    assert torch.equal(torch.get_rng_state(), before)
    assert type(base.first) is nn.Linear
    assert base.first.weight.requires_grad
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert len(trained) == 6
    assert all("lora_" in name for name in trained)


def test_attach_refuses_a_name_that_also_ends_another_path() -> None:
    """PEFT would adapt `block.head` too, because it matches names by their end."""
    block = nn.Sequential(OrderedDict(head=Unusual(4, 4)))
    model = nn.Sequential(OrderedDict(block=block, head=nn.Linear(4, 3)))

    with pytest.raises(
        AdapterError, match=r"'head' must not also be the end of the module path 'block\.head'"
    ):
        attach(model, layout=find_linear(model, scaling=2.0), rank=2)


def test_attach_accepts_a_shared_ending_when_both_are_adapted() -> None:
    """Two listed layers of which one is the end of the other are exactly the two that PEFT matches."""
    block = nn.Sequential(OrderedDict(head=nn.Linear(4, 4)))
    model = nn.Sequential(OrderedDict(block=block, head=nn.Linear(4, 3)))
    layout = find_linear(model, scaling=2.0)

    rows = read_rows(attach(model, layout=layout, rank=2), layout)

    assert rows.shape == (2, 15)


@pytest.mark.parametrize(
    "layer",
    [
        LinearShape(name="missing", in_features=6, out_features=5),
        LinearShape(name="first", in_features=6, out_features=4),
        LinearShape(name="other", in_features=4, out_features=4),
        LinearShape(name="block.relu", in_features=4, out_features=4),
    ],
)
def test_attach_refuses_layers_that_the_model_does_not_have(layer: LinearShape) -> None:
    """Name, type and shape must all fit."""
    with pytest.raises(AdapterError, match=rf"layer='{layer.name}' must be an nn\.Linear"):
        attach(small_model(), layout=AdapterLayout(layers=(layer,), scaling=2.0), rank=2)


def test_rows_read_are_the_rows_written(layout: AdapterLayout) -> None:
    """Writing and reading lose no bit."""
    adapter = random_adapter(layout, rank=4)
    model = attach(small_model(), layout=layout, rank=4)

    write_rows(model, adapter)
    rows = read_rows(model, layout)

    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, adapter.rows)


def test_rows_read_are_no_view_of_the_model(layout: AdapterLayout) -> None:
    """What was read stays as it is when the model is used for the next client."""
    model = attach(small_model(), layout=layout, rank=2)
    write_rows(model, random_adapter(layout, rank=2, seed=1))
    rows = read_rows(model, layout)
    kept = rows.copy()

    write_rows(model, random_adapter(layout, rank=2, seed=2))

    np.testing.assert_array_equal(rows, kept)


def test_write_rows_refuses_another_rank(layout: AdapterLayout) -> None:
    """Rows are never cut or broadcast silently."""
    model = attach(small_model(), layout=layout, rank=2)

    with pytest.raises(AdapterError, match="rank=1 must be the model's rank 2"):
        write_rows(model, random_adapter(layout, rank=1))


def test_rows_of_another_model_are_refused(layout: AdapterLayout) -> None:
    """A layout with a layer that carries no adapter is named."""
    model = attach(small_model(), layout=layout, rank=2)
    other = AdapterLayout(layers=(LinearShape(name="elsewhere", in_features=1, out_features=1),), scaling=2.0)

    with pytest.raises(AdapterError, match="layer='elsewhere' must carry an adapter"):
        read_rows(model, other)


@pytest.mark.parametrize("scaling", [2.0, 0.1, 0.3, 1.7, 16.0])
def test_slice_save_load_keeps_rows_and_scaling(tmp_path: Path, scaling: float) -> None:
    """Alpha follows the rank, so that alpha / r is the same constant for every slice."""
    layout = find_linear(small_model(), scaling=scaling)
    adapter = random_adapter(layout, rank=7)

    for rank in range(1, 8):
        save_adapter(tmp_path, adapter.sliced(rank), card="")
        loaded = load_adapter(tmp_path)

        assert loaded.layout == layout
        np.testing.assert_array_equal(loaded.rows, adapter.rows[:rank])


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_peft_alone_loads_what_was_saved(tmp_path: Path, layout: AdapterLayout, rank: int) -> None:
    """PEFT gives the same outputs from the files as our own attached model, sliced or not."""
    adapter = random_adapter(layout, rank=5).sliced(rank)
    ours = attach(small_model(), layout=layout, rank=rank)
    write_rows(ours, adapter)
    save_adapter(tmp_path, adapter, card="card")

    theirs = PeftModel.from_pretrained(small_model(), tmp_path)

    inputs = torch.linspace(-1, 1, 30).reshape(5, 6)
    torch.testing.assert_close(theirs(inputs), ours(inputs), rtol=0, atol=0)
    np.testing.assert_array_equal(read_rows(theirs, layout), adapter.rows)


def test_what_peft_saves_loads(tmp_path: Path, layout: AdapterLayout) -> None:
    """An adapter that PEFT wrote gives the same matrices (its layers may come in another order)."""
    adapter = random_adapter(layout, rank=3)
    model = attach(small_model(), layout=layout, rank=3)
    write_rows(model, adapter)
    model.save_pretrained(tmp_path)

    loaded = load_adapter(tmp_path)

    assert loaded.layout.scaling == layout.scaling
    for layer in layout.layers:
        np.testing.assert_array_equal(loaded.lora_A(layer.name), adapter.lora_A(layer.name))
        np.testing.assert_array_equal(loaded.lora_B(layer.name), adapter.lora_B(layer.name))


def test_saving_twice_gives_the_same_bytes(tmp_path: Path, layout: AdapterLayout) -> None:
    """Files depend on rows and card alone: they name no folder, machine or version."""
    adapter = random_adapter(layout, rank=3)

    save_adapter(tmp_path / "one", adapter, card="card")
    save_adapter(tmp_path / "two", adapter, card="card")
    save_adapter(tmp_path / "two", adapter, card="card")

    for name in (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE):
        data = (tmp_path / "one" / name).read_bytes()
        assert data == (tmp_path / "two" / name).read_bytes()
        assert str(tmp_path).encode() not in data
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        CARD_FILE,
        CONFIG_FILE,
        WEIGHTS_FILE,
    ]


def test_config_is_what_peft_users_expect(saved: Path) -> None:
    """Alpha is an integer where it can be, and the layers stand in model order."""
    config = json.loads((saved / CONFIG_FILE).read_text())

    assert (config["peft_type"], config["r"], config["base_model_name_or_path"]) == ("LORA", 3, None)
    assert config["target_modules"] == ["first", "block.inner", "head"]
    assert type(config["lora_alpha"]) is int
    assert (saved / CARD_FILE).read_text() == "card"


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    """Both files are needed."""
    (saved / name).unlink()

    with pytest.raises(AdapterError, match=rf"{name} cannot be read"):
        load_adapter(saved)


@pytest.mark.parametrize("data", [b"", b"\x80\x04pickle", b"[]", b"{", b"\xff", b"[" * 100_000])
@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_malformed_files_are_refused(saved: Path, name: str, data: bytes) -> None:
    """Garbage is an AdapterError, not whatever the parser raises."""
    (saved / name).write_bytes(data)

    with pytest.raises(AdapterError):
        load_adapter(saved)


def test_cut_or_lengthened_weights_are_refused(saved: Path) -> None:
    """Every byte of the weights file is accounted for."""
    data = (saved / WEIGHTS_FILE).read_bytes()

    for damaged in (data[:-1], data + b"\0", struct.pack("<Q", 1 << 40) + data[8:]):
        (saved / WEIGHTS_FILE).write_bytes(damaged)
        with pytest.raises(AdapterError, match="is not a safetensors file"):
            load_adapter(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type=LORA"),
        ({"r": 0}, "r=0"),
        ({"r": True}, "r=True"),
        ({"r": "3"}, "r='3'"),
        ({"r": 2}, "must be of rank r=2"),
        ({"lora_alpha": 0}, "lora_alpha=0"),
        ({"lora_alpha": float("nan")}, "lora_alpha=nan"),
        ({"lora_alpha": float("inf")}, "lora_alpha=inf"),
        ({"lora_alpha": None}, "lora_alpha=None"),
        ({"target_modules": "all-linear"}, "must list the full path"),
        ({"target_modules": []}, "must list the full path"),
        ({"target_modules": [1]}, "must list the full path"),
        ({"target_modules": ["first", "first", "head"]}, "must be distinct"),
        ({"target_modules": ["first", "inner", "head"]}, r"inner\.lora_A\.weight is missing"),
        ({"target_modules": ["first", "head"]}, "belongs to no layer"),
        ({"alpha_pattern": {"head": 8}}, "alpha_pattern=.* must be empty"),
        ({"rank_pattern": {"head": 2}}, "rank_pattern="),
        ({"use_rslora": True}, "use_rslora=True"),
        ({"use_dora": True}, "use_dora=True"),
        ({"bias": "all"}, "bias='all'"),
        ({"modules_to_save": ["head"]}, "modules_to_save="),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"a_setting_of_tomorrow": 1}, "a_setting_of_tomorrow=1"),
    ],
)
def test_configs_that_rows_cannot_express_are_refused(
    saved: Path, changes: dict[str, object], message: str
) -> None:
    """Values of the wrong type or range, and variants of LoRA with another formula."""
    edit_config(saved, **changes)

    with pytest.raises(AdapterError, match=message):
        load_adapter(saved)


@pytest.mark.parametrize("key", ["r", "lora_alpha", "target_modules", "peft_type"])
def test_missing_config_keys_are_refused(saved: Path, key: str) -> None:
    """Nothing that decides the meaning is guessed."""
    config = json.loads((saved / CONFIG_FILE).read_text())
    del config[key]
    (saved / CONFIG_FILE).write_text(json.dumps(config))

    with pytest.raises(AdapterError, match=key):
        load_adapter(saved)


def test_damaged_tensors_are_refused(saved: Path) -> None:
    """Missing, unknown, misshapen, mistyped and non-finite tensors each have their message."""
    good = load_file(saved / WEIGHTS_FILE)
    key = "base_model.model.head.lora_A.weight"
    cases = [
        ({name: value for name, value in good.items() if name != key}, "is missing"),
        (good | {"base_model.model.tail.lora_A.weight": good[key]}, "belongs to no layer"),
        (good | {key: np.ones((2, 4), np.float32)}, "must be of rank r=3"),
        (good | {key: np.ones(3, np.float32)}, "must be of rank r=3"),
        (good | {key: good[key].astype(np.float64)}, "of type F64 .* must be F32"),
        (good | {key: np.full_like(good[key], np.nan)}, "must be finite"),
    ]

    for tensors, message in cases:
        save_file(tensors, saved / WEIGHTS_FILE)
        with pytest.raises(AdapterError, match=message):
            load_adapter(saved)


def test_a_half_precision_adapter_is_refused_by_name(saved: Path) -> None:
    """Types that numpy does not know are met before they are read."""
    tensors = {
        name: torch.tensor(value).bfloat16() for name, value in load_file(saved / WEIGHTS_FILE).items()
    }
    from safetensors.torch import save_file as save_torch  # noqa: PLC0415  # the same name as numpy's

    save_torch(tensors, saved / WEIGHTS_FILE)

    with pytest.raises(AdapterError, match=r"of type BF16 .* must be F32"):
        load_adapter(saved)


def test_an_adapter_with_a_rest_is_neither_written_nor_saved_without_it(
    tmp_path: Path, layout: AdapterLayout
) -> None:
    """Its own rows alone are another function: whoever wants them slices, whoever wants the function takes the whole."""
    part = random_adapter(layout, rank=3).folded(2)
    model = attach(small_model(), layout=layout, rank=2)

    with pytest.raises(AdapterError, match="rest of 1 rows must be whole"):
        write_rows(model, part)
    with pytest.raises(AdapterError, match="rest of 1 rows must be whole"):
        save_adapter(tmp_path, part, card="")
    assert not list(tmp_path.iterdir())


def test_rows_are_read_as_float32_from_a_base_of_any_type(layout: AdapterLayout) -> None:
    """PEFT attaches float64 rows to a float64 base; they come back as the rows that were written."""
    adapter = random_adapter(layout, rank=2)
    for kind in (torch.float64, torch.bfloat16):
        model = attach(small_model().to(kind), layout=layout, rank=2)
        write_rows(model, adapter)

        rows = read_rows(model, layout)

        assert rows.dtype == np.float32
        assert np.array_equal(rows, adapter.rows)
