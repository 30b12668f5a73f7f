"""Attackers that alone hold the top rank put a backdoor into the model, and a quorum of holders keeps it out.

Twelve clients in a loop of its own: real training, the client's clip, the average by rank rows. Nothing here is the
federation's code but those two steps, so what is shown is a property of the average.
"""

from functools import cache

import numpy as np
import torch

from rbla_secure.config import Config, TaskConfig, TierConfig, TrainingConfig
from rbla_secure.config.choices import AverageRule
from rbla_secure.evaluation.poisoning.coalition import Coalition
from rbla_secure.evaluation.poisoning.knowledge import FederationFacts, Member
from rbla_secure.evaluation.poisoning.placement import placement
from rbla_secure.evaluation.poisoning.registry import AttackName
from rbla_secure.evaluation.poisoning.triggers import corner_patch, triggered
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.average import apply_average, averaging_rule
from rbla_secure.lora.bands import pack, rank_bands
from rbla_secure.lora.peft_io import find_linear
from rbla_secure.lora.update import BandTotal, ClientUpdate
from rbla_secure.planning.cohort import roster
from rbla_secure.privacy.clipping import clip
from rbla_secure.tasks.base_model import train_base
from rbla_secure.tasks.datasets import LabelledImages, Split, load_images, split
from rbla_secure.tasks.partition import partition_iid
from rbla_secure.tasks.scoring import Scorer
from rbla_secure.tasks.training import LocalTrainer, use_one_thread

use_one_thread()

ROUNDS = 8
CLIP = 0.6
TIERS = {
    "a": TierConfig(rank=2, clients=3),
    "b": TierConfig(rank=4, clients=3),
    "c": TierConfig(rank=8, clients=3),
    "d": TierConfig(rank=16, clients=3),
}


@cache
def data() -> tuple[Split, torch.nn.Module]:
    parts = split(load_images(TaskConfig()), held_out=500, public=1000, seed=0)
    return parts, train_base(parts.public, seed=0)


def run(attack: AttackName, *, min_holders: int) -> tuple[float, float]:
    """Accuracy, and the success of the trigger."""
    parts, base = data()
    layout = find_linear(base, scaling=2.0)
    trainer = LocalTrainer(base, layout, TrainingConfig(steps=10, batch_size=32))
    placed = placement(attack, Config(tiers=TIERS), share=0.25, seed=0)
    ranks = roster(placed.config.tiers)
    dealt = partition_iid(parts.private.labels, clients=len(ranks), seed=0)
    owned = {name: parts.private.take(part) for name, part in zip(ranks, dealt, strict=True)}

    def train(adapter: Adapter, examples: LabelledImages, seed: int) -> np.ndarray:
        return trainer.train(adapter, examples, seed=seed)

    members = {name: Member(rank=ranks[name], examples=owned[name]) for name in placed.attackers}
    federation = FederationFacts(clients=len(ranks), clip_norm=CLIP, captured_from=placed.captured_from)
    attackers = Coalition(attack, members=members, federation=federation, train=train) if members else None
    bands = rank_bands(ranks.values())
    adapter = Adapter.initial(layout, rank=max(ranks.values()), seed=0)
    for number in range(ROUNDS):
        sums: dict[int, list[np.ndarray]] = {}
        for name, rank in ranks.items():
            own = adapter.sliced(rank)
            if attackers is not None and name in members:
                rows = attackers.train_of(name)(own, number)
            else:
                rows = train(own, owned[name], number)
            update = ClientUpdate(rows=rows.astype(np.float64) - own.rows, weight=1.0)
            for index, values in pack(clip(update, clip_norm=CLIP), bands).bands.items():
                sums.setdefault(index, []).append(values)
        totals = {
            index: BandTotal(weighted_sum=np.sum(parts, axis=0), weight=float(len(parts)), cut_off=None)
            for index, parts in sums.items()
            if len(parts) >= min_holders
        }
        adapter = apply_average(
            adapter,
            averaging_rule(AverageRule.RBLA).average(totals, bands, layout, gamma=0.0),
            learning_rate=1.0,
        )
    clean = Scorer(base, layout, parts.held_out).score(adapter).accuracy
    return clean, Scorer(base, layout, triggered(parts.held_out, corner_patch())).score(adapter).accuracy


def test_a_quorum_of_holders_keeps_captured_rows_shut() -> None:
    """Three of twelve attack: with 2 f + 1 = 7 holders to a row the backdoor is gone, without it is the model's."""
    open_accuracy, open_success = run(AttackName.RANK_INFLATION, min_holders=1)
    shut_accuracy, shut_success = run(AttackName.RANK_INFLATION, min_holders=7)

    assert open_success > 0.8
    assert shut_success < 0.2
    assert min(open_accuracy, shut_accuracy) > 0.5


def test_rows_of_ones_own_are_enough_for_a_backdoor() -> None:
    """Sole owners leave all rows that anybody else holds as they are."""
    accuracy, success = run(AttackName.SOLE_OWNER, min_holders=1)

    assert success > 0.8
    assert accuracy > 0.5


def test_without_an_attack_there_is_no_backdoor() -> None:
    """What the base mistakes for the target without any trigger is what success has to be compared with."""
    accuracy, success = run(AttackName.NONE, min_holders=1)

    assert accuracy > 0.5
    assert success < 0.1
