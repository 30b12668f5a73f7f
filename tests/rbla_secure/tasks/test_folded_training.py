"""A client that folds trains its own rows, at the cost of its own rank, on the function of the whole adapter."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from rbla_secure.config import TrainingConfig
from rbla_secure.config.choices import Factors, Optimizer
from rbla_secure.errors import AdapterError, PrivacyError
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.peft_io import attach, find_linear, write_rows
from rbla_secure.seeding import derive_seed
from rbla_secure.tasks.base_model import base_digest, build_mlp
from rbla_secure.tasks.datasets import LabelledImages
from rbla_secure.tasks.training import Descent, LocalTrainer, Losses, use_one_thread

use_one_thread()  # byte-for-byte claims hold for one number of threads

BASE = build_mlp(seed=0).requires_grad_(False).eval()
LAYOUT = find_linear(BASE, scaling=2.0)


class AsFloat(nn.Module):
    """Hands a base of another type what it computes with, and takes its output back."""

    def __init__(self, inner: nn.Module, kind: torch.dtype) -> None:
        super().__init__()
        self.inner, self.kind = inner.to(kind), kind

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.inner(inputs.to(self.kind)).float()


class Operations(TorchDispatchMode):
    """Notes every operation of torch with the shapes of its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[torch.Size, ...]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        flat = [part for arg in args for part in (arg if isinstance(arg, list | tuple) else [arg])]
        self.seen.append((str(func), tuple(a.shape for a in flat if isinstance(a, torch.Tensor))))
        return func(*args, **(kwargs or {}))


def examples(count: int = 40, *, seed: int = 0) -> LabelledImages:
    generator = np.random.default_rng(seed)
    images = generator.random((count, 784), dtype=np.float32)
    return LabelledImages(images=images, labels=generator.integers(0, 10, size=count))


def moved(rank: int = 8, *, seed: int = 0) -> Adapter:
    """An adapter as after some rounds: lora_B is not zero."""
    start = Adapter.initial(LAYOUT, rank=rank, seed=0).rows
    step = 0.02 * np.random.default_rng(seed).normal(size=start.shape)
    return Adapter(layout=LAYOUT, rows=(start + step).astype(np.float32))


def trainer(
    base: nn.Module = BASE,
    *,
    descent: Descent | None = None,
    factors: Factors = Factors.BOTH,
    turns: tuple[int, ...] = (),
    **changes: object,
) -> LocalTrainer:
    config = TrainingConfig.model_validate({"batch_size": 8, **changes})
    layout = find_linear(base, scaling=2.0)
    return LocalTrainer(base, layout, config, factors=factors, descent=descent, turns=turns)


def plain_steps(optimizer: torch.optim.Optimizer, losses: Losses) -> None:
    for batch in torch.split(torch.arange(losses.count), 8):
        (losses.of(batch) / len(batch)).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_only_the_own_rows_are_trained(rank: int) -> None:
    """The rows of the client's rank come back, moved; the adapter that was given stays as it was."""
    adapter = moved().folded(rank)
    before = adapter.whole().digest()

    rows = trainer().train(adapter, examples(), seed=1)

    assert rows.shape == (rank, LAYOUT.row_length)
    assert rows.dtype == np.float32
    assert not np.array_equal(rows, adapter.rows)
    assert adapter.whole().digest() == before


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_first_step_of_every_rank_is_that_of_the_whole(rank: int) -> None:
    """One step of SGD: a row moves the same whoever trains it, since all compute from one function."""
    local = trainer(optimizer=Optimizer.SGD, learning_rate=1.0, steps=1)
    whole = local.train(moved(), examples(), seed=1) - moved().rows

    step = local.train(moved().folded(rank), examples(), seed=1) - moved().rows[:rank]

    np.testing.assert_allclose(step, whole[:rank], rtol=1e-3, atol=2e-6)
    if rank < 8:  # control: where the others are dropped, it moves otherwise
        sliced = local.train(moved().sliced(rank), examples(), seed=1) - moved().rows[:rank]
        assert np.abs(sliced - whole[:rank]).max() > 1e-3


def test_without_a_rest_training_is_attaching_and_descending() -> None:
    """To the bit what a plain loop over an attached adapter gives."""
    adapter, data = moved(3), examples()
    model = attach(BASE, layout=LAYOUT, rank=3).eval()
    write_rows(model, adapter)
    values = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.Adam(values, lr=TrainingConfig().learning_rate, fused=True)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    for batch in torch.split(order, 8):
        logits = model(torch.tensor(data.images)[batch])
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, torch.tensor(data.labels)[batch]).backward()
        optimizer.step()
    expected = torch.cat(
        [part for a, b in zip(values[::2], values[1::2], strict=True) for part in (a.detach(), b.detach().T)],
        dim=1,
    )

    rows = trainer(epochs=1).train(adapter, data, seed=1)

    assert rows.tobytes() == expected.numpy().tobytes()


def test_a_rest_that_adds_nothing_changes_no_bit() -> None:
    """In the first round lora_B is zero: folded and dropped rows give the same bytes."""
    start = Adapter.initial(LAYOUT, rank=8, seed=0)

    folded, sliced = (
        trainer().train(part, examples(), seed=1) for part in (start.folded(3), start.sliced(3))
    )

    assert folded.tobytes() == sliced.tobytes()


def test_training_with_a_rest_leaves_no_trace() -> None:
    """Results follow the arguments alone, after other ranks, other rests, diverged and interrupted calls."""
    used, fresh = trainer(), trainer()
    digest = base_digest(BASE)
    used.train(moved(seed=3).folded(3), examples(seed=5), seed=9)
    used.train(moved(seed=4).folded(5), examples(), seed=1)
    broken = examples()
    broken.images[:] = np.nan
    assert not np.isfinite(used.train(moved().folded(3), broken, seed=1)).all()
    wrong = LabelledImages(images=examples().images, labels=np.full(40, 10))
    with pytest.raises(IndexError):
        used.train(moved().folded(3), wrong, seed=1)

    folded = used.train(moved().folded(3), examples(), seed=1)
    sliced = used.train(moved().sliced(3), examples(), seed=1)

    assert folded.tobytes() == fresh.train(moved().folded(3), examples(), seed=1).tobytes()
    assert sliced.tobytes() == trainer().train(moved().sliced(3), examples(), seed=1).tobytes()
    assert folded.tobytes() != sliced.tobytes()
    assert base_digest(BASE) == digest
    assert all(base_digest(model.unload()) == digest for model in used._models.values())


@pytest.mark.parametrize("inner", [2, 3])
def test_a_call_inside_a_call_disturbs_neither(inner: int) -> None:
    """Of the same rank or another, with another rest: each has a model of its own while it trains."""
    local: LocalTrainer
    nested: list[np.ndarray] = []

    def descent(_: nn.Module, optimizer: torch.optim.Optimizer, losses: Losses, seed: int) -> None:
        plain_steps(optimizer, losses)
        if seed == 1:
            nested.append(local.train(moved(seed=6).folded(inner), examples(seed=2), seed=2))
        plain_steps(optimizer, losses)

    def alone(_: nn.Module, optimizer: torch.optim.Optimizer, losses: Losses, __: int) -> None:
        plain_steps(optimizer, losses)
        plain_steps(optimizer, losses)

    local = trainer(descent=descent)
    for rank in {3, inner}:  # from now on there is a model to take
        local.train(moved(seed=7).folded(rank), examples(), seed=0)

    outer = local.train(moved().folded(3), examples(), seed=1)

    quiet = trainer(descent=alone)
    assert outer.tobytes() == quiet.train(moved().folded(3), examples(), seed=1).tobytes()
    assert nested[0].tobytes() == quiet.train(moved(seed=6).folded(inner), examples(seed=2), seed=2).tobytes()


def test_training_costs_what_the_own_rank_costs() -> None:
    """Folded into a plain base, a rest adds no operation, no parameter and no state to the descent."""
    seen: list[Operations] = []
    counts: list[tuple[int, int]] = []

    def descent(network: nn.Module, optimizer: torch.optim.Optimizer, losses: Losses, __: int) -> None:
        seen.append(Operations())
        with seen[-1]:
            plain_steps(optimizer, losses)
        trained = sum(value.numel() for value in network.parameters() if value.requires_grad)
        state = sum(part.numel() for each in optimizer.state.values() for part in each.values())
        counts.append((trained, state))

    local = trainer(descent=descent)
    for adapter in (moved().sliced(2), moved().folded(2), moved()):
        local.train(adapter, examples(), seed=1)

    sliced, folded, whole = (operations.seen for operations in seen)
    assert folded == sliced
    assert folded != whole
    assert counts[0] == counts[1]
    assert counts[1][0] == 2 * LAYOUT.row_length
    assert counts[2][0] == 4 * counts[1][0]


def test_frozen_factors_stay_frozen_beside_a_rest() -> None:
    """FFA: lora_A comes back to the bit, lora_B moves."""
    rows = trainer(factors=Factors.LORA_B).train(moved().folded(3), examples(), seed=1)

    columns = LAYOUT.lora_B_columns
    assert np.array_equal(rows[:, ~columns], moved().rows[:3, ~columns])
    assert not np.array_equal(rows[:, columns], moved().rows[:3, columns])


@pytest.mark.parametrize(
    ("kind", "tolerance"), [(torch.float64, 1e-7), (torch.bfloat16, 0.1), (torch.float16, 0.002)]
)
def test_a_base_of_another_type_takes_the_first_step_of_the_whole(
    kind: torch.dtype, tolerance: float
) -> None:
    """float64 folds into the weights, bfloat16 and float16 beside them: the step differs by rounding alone."""
    base = AsFloat(build_mlp(seed=0).requires_grad_(False).eval(), kind)
    digest = base_digest(base)
    adapter = Adapter(layout=find_linear(base, scaling=2.0), rows=moved().rows)
    local = trainer(base, optimizer=Optimizer.SGD, learning_rate=1.0, steps=1)
    whole, folded, sliced = (
        local.train(part, examples(), seed=1)[:2] - adapter.rows[:2]
        for part in (adapter, adapter.folded(2), adapter.sliced(2))
    )

    scale = np.linalg.norm(whole)

    assert np.linalg.norm(folded - whole) < tolerance * scale
    assert np.linalg.norm(sliced - whole) > 0.2 * scale  # control
    assert base_digest(base) == digest


TURNS = (1, 3, 5, 8)


@pytest.mark.parametrize("optimizer", list(Optimizer))
def test_in_turns_a_row_is_trained_alike_by_everybody_who_holds_it(optimizer: Optimizer) -> None:
    """To the bit: of the same adapter, examples and seed, whatever the client's rank."""
    local = trainer(optimizer=optimizer, turns=TURNS)
    whole = local.train(moved(), examples(), seed=1)

    for rank in TURNS:
        rows = local.train(moved().folded(rank), examples(), seed=1)

        assert rows.shape == (rank, LAYOUT.row_length)
        assert rows.tobytes() == whole[:rank].tobytes()
    together = trainer(optimizer=optimizer)  # control
    for rank in TURNS[:-1]:
        rows = together.train(moved().folded(rank), examples(), seed=1)
        assert not np.array_equal(rows, together.train(moved(), examples(), seed=1)[:rank])


def test_in_turns_every_band_is_trained_from_the_bands_below_and_above() -> None:
    """Band for band what training that band alone gives, the others frozen: those below as trained, above as sent."""
    alone, data = trainer(), examples()
    rows = moved().rows.copy()
    for start, stop in ((0, 1), (1, 3), (3, 5)):
        part = Adapter(
            layout=LAYOUT, rows=rows[start:stop].copy(), rest=np.delete(rows, slice(start, stop), axis=0)
        )
        seed = derive_seed(1, "turn", start) if start else 1
        rows[start:stop] = alone.train(part, data, seed=seed)

    found = trainer(turns=TURNS).train(moved().folded(5), data, seed=1)

    assert found.tobytes() == rows[:5].tobytes()


def test_a_rank_between_two_ends_trains_what_it_has_of_the_last_band() -> None:
    """Whoever trains an adapter of any other rank, such as a reference, trains all of its rows."""
    rows = trainer(turns=TURNS).train(moved().folded(4), examples(), seed=1)

    assert rows.shape == (4, LAYOUT.row_length)
    assert all((rows[i] != moved().rows[i]).any() for i in range(4))


def test_turns_end_where_training_diverges() -> None:
    """Rows that are not finite come back for the caller to refuse, and nothing raises."""
    local = trainer(turns=TURNS, optimizer=Optimizer.SGD, learning_rate=1e30, epochs=3)

    assert not np.isfinite(local.train(moved().folded(5), examples(), seed=1)).all()


def test_turns_end_where_what_was_trained_can_no_longer_be_folded() -> None:
    """Finite rows of a low band may have an infinite product: it costs the later bands, as for those who hold none."""
    terms: dict[str, Any] = {"optimizer": Optimizer.SGD, "learning_rate": 1e25, "steps": 1}
    local = trainer(turns=TURNS, **terms)
    low = local.train(moved().folded(1), examples(), seed=1)

    rows = local.train(moved().folded(5), examples(), seed=1)

    assert np.isfinite(low).all()
    assert rows[:1].tobytes() == low.tobytes()
    assert np.isnan(rows[1:3]).all()
    assert rows[3:].tobytes() == moved().rows[3:5].tobytes()


def test_a_rest_that_was_sent_too_large_is_refused_before_the_first_turn() -> None:
    """By everybody alike: it is the same for all ranks."""
    rows = moved().rows.copy()
    rows[6:] = 1e30
    for rank in TURNS[:-1]:
        with pytest.raises(AdapterError, match="finite"):
            trainer(turns=TURNS).train(Adapter(layout=LAYOUT, rows=rows).folded(rank), examples(), seed=1)


def test_steps_with_noise_are_not_taken_in_turns() -> None:
    """The ledger counts a round's steps once."""
    with pytest.raises(PrivacyError, match="turns=\\(1, 3, 5, 8\\) must be empty"):
        trainer(descent=lambda *_: None, turns=TURNS)
