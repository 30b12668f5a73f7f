"""The gradient of an example has the same bits whoever else is there: by layer, neighbour, place and number of threads."""

import logging
import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification

from protocols.primitives.prg import KEY_SIZE, UniformStream
from rbla_secure.errors import PrivacyError
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.fold import computing
from rbla_secure.lora.peft_io import attach, find_linear, freeze_lora_A
from rbla_secure.privacy.sample_level import clipped_sum, train_privately
from rbla_secure.privacy.sampled_gaussian import SampledGaussian
from rbla_secure.tasks.base_model import build_mlp
from tests.support.single_examples import Rows, in_one_batch, in_steps, trained_values

ENOUGH = 12
MECHANISM = SampledGaussian(noise_multiplier=1.0, clip_norm=1e-3, sample_rate=1.0, steps=1)


@dataclass
class World:
    """A model and its data; some examples can be spoilt."""

    model: nn.Module
    data: torch.Tensor
    labels: torch.Tensor
    open: Callable[[], ExitStack] = ExitStack
    spoilt: dict[int, float | Exception] = field(default_factory=dict)

    def loss(self, chosen: torch.Tensor) -> torch.Tensor:
        factor = torch.ones(len(chosen))
        for place, index in enumerate(chosen.tolist()):
            wrong = self.spoilt.get(index, 1.0)
            if isinstance(wrong, Exception):
                raise wrong
            factor[place] = wrong
        found = self.model(self.data[chosen])
        logits = getattr(found, "logits", found).float()
        return (functional.cross_entropy(logits, self.labels[chosen], reduction="none") * factor).sum()

    def made_up(self) -> torch.Tensor:
        found = self.model(torch.zeros_like(self.data[:1]))
        return functional.cross_entropy(
            getattr(found, "logits", found).float(), torch.zeros(1, dtype=torch.int64)
        )

    def gradients(self, *order: int) -> Rows:
        with self.open():
            return in_steps(self.model, self.loss, self.made_up, order)

    def moved_to(self, place: int) -> "World":
        """The same with its first example at another place of the data, and in memory."""
        order = [*range(1, place + 1), 0, *range(place + 1, len(self.data))]
        return World(self.model, self.data[order].clone(), self.labels[order].clone(), self.open)


def adapted(base: nn.Module, targets: list[str], **others: object) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = get_peft_model(base, LoraConfig(r=3, lora_alpha=6, target_modules=targets, **others))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name or "lora_embedding_B" in name:
                value.normal_(std=0.3)
    return model


def of_product(rank: int, *, rest: int = 0, kind: torch.dtype = torch.float32, frozen: bool = False) -> World:
    """The task's own base with adapters as clients have them, folded rest and frozen factor included."""
    base = build_mlp(seed=3).requires_grad_(False).eval().to(kind)
    layout = find_linear(base, scaling=2.0)
    rows = 0.05 * np.random.default_rng(0).standard_normal((rank + rest, layout.row_length))
    adapter = Adapter(layout=layout, rows=rows.astype(np.float32))
    model = attach(base, layout=layout, rank=rank).eval()
    if frozen:
        freeze_lora_A(model, layout)

    def folding() -> ExitStack:
        stack = ExitStack()
        stack.enter_context(computing(model, adapter.folded(rank) if rest else adapter))
        return stack

    data = torch.rand(ENOUGH, 784)
    return World(model, data.to(kind), torch.randint(10, (ENOUGH,)), folding)


def convolutions(norm: nn.Module, *, trained: bool = False) -> World:
    base = nn.Sequential(nn.Conv2d(1, 6, 3, stride=2), norm, nn.ReLU(), nn.Flatten(), nn.Linear(54, 4))
    model = adapted(base, ["0", "4"])
    if trained:
        norm.requires_grad_(True)
    return World(model, torch.randn(ENOUGH, 1, 8, 8), torch.randint(4, (ENOUGH,)))


def transformer() -> World:
    """Adapters on every kind of layer that has them, embeddings too, and trained layer norms."""
    config = BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
        num_labels=4,
        initializer_range=0.4,
    )
    model = adapted(BertForSequenceClassification(config), ["query", "value", "dense", "word_embeddings"])
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.requires_grad_(True)
    return World(model, torch.randint(30, (ENOUGH, 10)), torch.randint(4, (ENOUGH,)))


def recurrent() -> World:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = nn.LSTM(5, 8, batch_first=True, dropout=0.5, num_layers=2)
            self.head = nn.Linear(8, 4)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.head(self.cells(inputs)[0][:, -1])
            return logits

    return World(Last(), torch.randn(ENOUGH, 7, 5), torch.randint(4, (ENOUGH,)))


def drawing() -> World:
    """A model that drops units in evaluation mode too, a common mistake: the draws are the same for every example."""

    class Drawing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(9, 16), nn.Linear(16, 4)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.second(functional.dropout(self.first(inputs)))
            return logits

    return World(Drawing(), torch.randn(ENOUGH, 9), torch.randint(4, (ENOUGH,)))


WORLDS: dict[str, Callable[[], World]] = {
    "rank-1": lambda: of_product(1),
    "rank-16": lambda: of_product(16),
    "folded": lambda: of_product(2, rest=5),
    "frozen-factor": lambda: of_product(4, frozen=True),
    "bfloat16": lambda: of_product(2, rest=3, kind=torch.bfloat16),
    "group-norm": lambda: convolutions(nn.GroupNorm(2, 6), trained=True),
    "frozen-batch-norm": lambda: convolutions(nn.BatchNorm2d(6)),
    "trained-batch-norm": lambda: convolutions(nn.BatchNorm2d(6), trained=True),
    "instance-norm": lambda: convolutions(nn.InstanceNorm2d(6, affine=True), trained=True),
    "transformer": transformer,
    "recurrent": recurrent,
    "drawing": drawing,
}


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def made(name: str) -> World:
    torch.manual_seed(5)
    return WORLDS[name]()


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", WORLDS)
def test_an_example_has_the_same_bits_whoever_stands_beside_it(name: str, count: int) -> None:
    """Alone, first, last, among many, among records that are not numbers or fail, and at another place in memory."""
    with threads(count):
        world = made(name)
        alone = world.gradients(0).tobytes()
        assert np.frombuffer(alone).any()
        everyone = list(range(ENOUGH))

        assert world.gradients(*everyone)[0].tobytes() == alone
        assert world.gradients(*everyone[::-1])[-1].tobytes() == alone
        for others in (1, 2, 3, 6):
            assert world.gradients(*everyone[1 : others + 1], 0)[-1].tobytes() == alone
        world.spoilt = dict(
            zip(everyone[1:], (math.nan, math.inf, 1e38, IndexError("11"), MemoryError()), strict=False)
        )
        assert world.gradients(*everyone[1:], 0)[-1].tobytes() == alone
        world.spoilt = {}
        for place in (1, 5, ENOUGH - 1):
            assert world.moved_to(place).gradients(place).tobytes() == alone
        assert made(name).gradients(0).tobytes() == alone


@pytest.mark.parametrize("name", ["rank-1", "rank-16", "folded", "group-norm"])
def test_in_one_batch_it_has_other_bits(name: str) -> None:
    """The control: a careless party computes the first example beside others, and its gradient is another."""
    with threads(1):
        world = made(name)
        alone = world.gradients(0)
        with world.open():
            beside = in_one_batch(world.model, world.loss, range(ENOUGH))
    assert np.allclose(beside[0], alone, rtol=1e-2, atol=1e-4)
    assert beside[0].tobytes() != alone.tobytes()


def test_the_integers_of_all_are_the_sum_of_those_of_any_parts() -> None:
    """Clipping and addition see one example after the other, too."""
    rows = made("rank-16").gradients(*range(ENOUGH))
    whole = clipped_sum(rows.copy(), MECHANISM)

    for part in (slice(None, None, 2), slice(3), slice(1)):
        rest = np.delete(rows, part, axis=0)
        assert np.array_equal(clipped_sum(rows[part].copy(), MECHANISM) + clipped_sum(rest, MECHANISM), whole)
    assert np.array_equal(clipped_sum(rows[::-1].copy(), MECHANISM), whole)


@pytest.mark.parametrize("length", [7, 31, 1023, 9424])
def test_a_clipped_gradient_does_not_depend_on_its_place_in_memory(length: int) -> None:
    row = np.random.default_rng(0).normal(size=length)
    found = set()
    for offset in range(16):
        memory = np.empty(length + 16)
        view = memory[offset : offset + length]
        view[:] = row
        found.add(clipped_sum(view[None], MECHANISM).tobytes())
    assert len(found) == 1


@dataclass
class Kink:
    """A victim whose only live unit is off where it is computed alone, and on beside a newcomer that looks like it."""

    model: nn.Sequential
    images: torch.Tensor

    def loss(self, chosen: torch.Tensor) -> torch.Tensor:
        labels = torch.full((len(chosen),), 3)
        return functional.cross_entropy(self.model(self.images[chosen]), labels, reduction="sum")

    def made_up(self) -> torch.Tensor:
        return functional.cross_entropy(self.model(torch.zeros(1, 784)), torch.zeros(1, dtype=torch.int64))


def kink() -> Kink:
    """Found by a search: a pre-activation that rounds to zero or below in a batch of one, and above in a batch of two."""
    torch.manual_seed(0)
    first = nn.Linear(784, 256)
    head = nn.Linear(256, 10).requires_grad_(False)
    model = nn.Sequential(OrderedDict(first=first, bend=nn.ReLU(), head=head))
    with torch.no_grad():
        head.weight.mul_(50)
        for _ in range(20):
            victim = torch.rand(1, 784)
            images = torch.cat([victim, 1.05 * victim])
            value = functional.linear(images, first.weight)
            alone, beside = functional.linear(victim, first.weight)[0], value[0]
            for bias in (-alone, -beside):
                off = functional.linear(victim, first.weight, bias)[0] <= 0
                on = (functional.linear(images, first.weight, bias) > 0).all(dim=0)
                if units := torch.nonzero(off & on)[:, 0].tolist():
                    first.bias.fill_(-1e3)
                    first.bias[units[0]] = bias[units[0]]
                    return Kink(model, images)
    raise AssertionError("no unit rounds differently in a batch of two: the attack cannot be mounted here")


def test_a_newcomer_switches_nobody_elses_gradient_on() -> None:
    """In one batch the victim's gradient appears with the newcomer's: twice what the noise is scaled for. Alone it stays zero."""
    with threads(1):
        world = kink()
        careless = [
            clipped_sum(in_one_batch(world.model, world.loss, each), MECHANISM) for each in ([0], [0, 1])
        ]
        ours = [
            clipped_sum(in_steps(world.model, world.loss, world.made_up, each), MECHANISM)
            for each in ([0], [0, 1])
        ]

    def moved(sums: list[np.ndarray]) -> float:
        length = float(np.linalg.norm((sums[1] - sums[0]).astype(float)))
        return length / MECHANISM.sensitivity(sum(value.numel() for value in trained_values(world.model)))

    assert moved(careless) > 1.9
    assert 0.9 < moved(ours) <= 1.0


def test_a_failing_example_is_told_to_its_client_alone(caplog: pytest.LogCaptureFixture) -> None:
    """A label out of range, a text that cannot be read, no memory: zero, no exception, and a line in the client's own log."""
    world = made("rank-1")
    world.labels[2] = 11
    world.spoilt = {1: RuntimeError("shape [37, 784] of my data"), 4: MemoryError()}

    with caplog.at_level(logging.WARNING):
        rows = world.gradients(0, 1, 2, 3, 4)

    assert [bool(row.any()) for row in rows] == [True, False, False, True, False]
    assert (
        "3 drawn examples could not be computed and counted as zero; the first: RuntimeError: shape"
        in caplog.text
    )


def counting() -> nn.Module:
    class Counting(nn.Module):
        """Keeps a number from one example to the next."""

        def __init__(self) -> None:
            super().__init__()
            self.layer, self.seen = nn.Linear(9, 4), 0

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            self.seen += 1
            logits: torch.Tensor = self.layer(inputs) * self.seen
            return logits

    return Counting()


def broken() -> nn.Module:
    return nn.Sequential(nn.Linear(9, 5), nn.ReLU(), nn.Linear(6, 4))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (counting, "computes one example differently the second time"),
        (broken, "gives no gradient of a single example: RuntimeError: mat1 and mat2"),
    ],
)
def test_a_model_that_could_not_be_trained_is_refused_without_a_look_at_data(
    build: Callable[[], nn.Module], message: str
) -> None:
    """The refusal is the same with data and without any, so it tells nothing of them."""
    asked: list[int] = []
    model = build()

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        asked.extend(chosen.tolist())
        total: torch.Tensor = model(torch.ones(len(chosen), 9)).sum()
        return total

    for examples in (0, 5):
        with pytest.raises(PrivacyError, match=message):
            train_privately(
                model,
                torch.optim.SGD(model.parameters(), lr=0.1),
                loss,
                made_up=lambda: model(torch.zeros(1, 9)).square().sum(),
                mechanism=MECHANISM,
                batch_size=1.0,
                examples=examples,
                stream=UniformStream(bytes(KEY_SIZE)),
            )
    assert asked == []


def test_the_global_generator_is_left_as_it_was() -> None:
    world = made("drawing")
    torch.manual_seed(8)
    before = torch.get_rng_state()
    world.gradients(0, 1, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_of_somebody_else_are_not_added_to_the_first_example() -> None:
    world = made("group-norm")
    clean = world.gradients(0)
    for value in trained_values(world.model):
        value.grad = torch.ones_like(value)
    assert np.array_equal(world.gradients(0), clean)
