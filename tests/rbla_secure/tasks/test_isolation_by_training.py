"""An adapter that is dead for all at the first step and comes to life for those who train higher rows.

The server sends the same adapter to everybody. With the other clients of the largest rank declared dropped, low bands
would open to the one that is left: all others sent zeros. Trained in turns, low rows stay dead for it too.
"""

import numpy as np
import pytest

from rbla_secure.config import TrainingConfig
from rbla_secure.config.choices import Optimizer
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.peft_io import find_linear
from rbla_secure.tasks.base_model import build_mlp
from rbla_secure.tasks.datasets import LabelledImages
from rbla_secure.tasks.training import LocalTrainer, use_one_thread

use_one_thread()

BASE = build_mlp(seed=0).requires_grad_(False).eval()
LAYOUT = find_linear(BASE, scaling=2.0)
EDGES = (2, 4, 8, 16)
LOW = 8
UNIT = 5  # of the second layer: the only one that the adapter leaves alive


def examples(seed: int, count: int = 96) -> LabelledImages:
    generator = np.random.default_rng(seed)
    images = generator.random((count, 784), dtype=np.float32)
    return LabelledImages(images=images, labels=generator.integers(0, 10, size=count))


def dead_until_trained() -> Adapter:
    """Row 9 of the second layer silences all units but one, and row 16 of the head cancels what that one says."""
    rows = Adapter.initial(LAYOUT, rank=16, seed=0).rows.copy()
    reads, writes = LAYOUT.columns["hidden2"]
    rows[LOW, reads] = 1.0  # the first layer's outputs are never negative
    rows[LOW, writes] = -1.0
    rows[LOW, writes.start + UNIT] = 0.5
    reads, writes = LAYOUT.columns["head"]
    rows[:LOW, reads.start + UNIT] = 0.0
    rows[-1, reads] = 0.0
    rows[-1, reads.start + UNIT] = 0.5
    rows[-1, writes] = -BASE.head.weight.numpy()[:, UNIT]  # times 0.5 and the scaling 2: to the bit
    return Adapter(layout=LAYOUT, rows=rows)


def changes(trainer: LocalTrainer) -> dict[int, np.ndarray]:
    """What a client of every rank would send."""
    found = {}
    for rank in EDGES:
        part = dead_until_trained().folded(rank)
        found[rank] = trainer.train(part, examples(rank), seed=rank) - part.rows
    return found


@pytest.mark.parametrize("optimizer", list(Optimizer))
def test_rows_that_wake_by_training_move_for_no_rank_in_turns(optimizer: Optimizer) -> None:
    """Low bands open to zeros, whoever is left; only the band that was alive for all its holders moves."""
    config = TrainingConfig(optimizer=optimizer, learning_rate=0.005)
    together, in_turns = LocalTrainer(BASE, LAYOUT, config), LocalTrainer(BASE, LAYOUT, config, turns=EDGES)

    careless, careful = changes(together), changes(in_turns)

    assert careless[16][:LOW].any(), (
        "control: trained together, the low rows of the largest rank come to life"
    )
    for rank in EDGES:
        assert not careful[rank][:LOW].any()
        assert rank == 16 or not careless[rank].any()
    assert careful[16][LOW:].any()


def test_one_step_together_is_as_safe() -> None:
    """The fold's own promise: at the first step all compute from one function, so a dead row is dead for all."""
    trainer = LocalTrainer(
        BASE, LAYOUT, TrainingConfig(steps=1, optimizer=Optimizer.SGD, learning_rate=0.005)
    )

    found = changes(trainer)

    assert all(np.abs(change[:LOW]).max() < 1e-8 for change in found.values())
    assert found[16][LOW:].any()
