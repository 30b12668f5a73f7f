"""The federation that attacks on privacy are measured on: forty clients, a frozen base, an adapter that is warm.

Ranks 2, 4, 8 and 16, ten clients each; the base was trained on images upside down, so that most examples have a loss; five
rounds of ten steps, after which lora_B is not zero any more.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import nn

from rbla_secure.config import TaskConfig, TrainingConfig
from rbla_secure.config.choices import DataSet, Optimizer
from rbla_secure.evaluation.privacy_attacks.gradients import ExampleGradients
from rbla_secure.evaluation.privacy_attacks.views import seen
from rbla_secure.lora.adapter import Adapter, AdapterLayout
from rbla_secure.lora.peft_io import find_linear
from rbla_secure.lora.update import ClientUpdate, UpdateRows
from rbla_secure.privacy.clipping import clip
from rbla_secure.seeding import derive_seed
from rbla_secure.tasks.base_model import train_base
from rbla_secure.tasks.datasets import LabelledImages, load_images, split
from rbla_secure.tasks.partition import partition_dirichlet
from rbla_secure.tasks.training import LocalTrainer

RANKS = np.array([2, 4, 8, 16] * 10)
CLIENTS, RANK = len(RANKS), 16
CLIP, RATE, SCALING = 0.6, 0.05, 2.0
WARM_ROUNDS, WARM_STEPS, BATCH = 5, 10, 32
OTHERS = 32  # examples of the client that were not trained on, at most


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A federation whose adapter has been trained for a while."""

    base: nn.Module
    layout: AdapterLayout
    trainer: Callable[[int, int, float], LocalTrainer]
    gradients: ExampleGradients
    clients: list[LabelledImages]
    adapter: Adapter

    def change(
        self, client: int, adapter: Adapter, examples: LabelledImages, *, steps: int, batch: int, seed: int
    ) -> UpdateRows:
        """A client's bounded change."""
        own = adapter.sliced(int(RANKS[client]))
        rows = self.trainer(steps, batch, RATE).train(own, examples, seed=seed)
        update = ClientUpdate(rows=rows.astype(np.float64) - own.rows, weight=1.0)
        return clip(update, clip_norm=CLIP).rows

    def round(
        self, adapter: Adapter, cohort: np.ndarray, *, seed: int, rate: float
    ) -> tuple[Adapter, list[UpdateRows]]:
        """Ten steps of everyone in the cohort, and the average by rank rows."""
        changes = [
            self.change(
                k, adapter, self.clients[k], steps=WARM_STEPS, batch=BATCH, seed=derive_seed(seed, int(k))
            )
            for k in cohort
        ]
        holders = (RANKS[cohort][:, None] > np.arange(RANK)).sum(axis=0)
        step = seen(changes, rank=RANK) / np.maximum(holders, 1)[:, None]
        return Adapter(layout=self.layout, rows=(adapter.rows + rate * step).astype(np.float32)), changes


def build(data: DataSet, *, per_client: int, seed: int) -> Bench:
    """Data, base and a warm adapter."""
    images = load_images(TaskConfig(data=data))
    public = min(4000, len(images) // 4)
    parts = split(images, held_out=1, public=public, seed=seed)
    private = parts.private.take(np.arange(min(len(parts.private), per_client * CLIENTS)))
    # train_base mirrors them: turned by half a circle before, they end upside down.
    turned = np.ascontiguousarray(parts.public.images[:, ::-1])
    base = train_base(LabelledImages(images=turned, labels=parts.public.labels), seed=seed)
    layout = find_linear(base, scaling=SCALING)
    trainers: dict[tuple[int, int], LocalTrainer] = {}

    def trainer(steps: int, batch: int, rate: float) -> LocalTrainer:
        if (steps, batch) not in trainers:
            config = TrainingConfig(
                steps=steps, batch_size=batch, optimizer=Optimizer.SGD, learning_rate=rate
            )
            trainers[steps, batch] = LocalTrainer(base, layout, config)
        return trainers[steps, batch]

    dealt = partition_dirichlet(private.labels, clients=CLIENTS, alpha=0.5, seed=seed)
    bench = Bench(
        base=base,
        layout=layout,
        trainer=trainer,
        gradients=ExampleGradients(base, layout),
        clients=[private.take(part) for part in dealt],
        adapter=Adapter.initial(layout, rank=RANK, seed=seed),
    )
    adapter = bench.adapter
    for number in range(WARM_ROUNDS):
        adapter, _ = bench.round(
            adapter, np.arange(CLIENTS), seed=derive_seed(seed, "warm", number), rate=1.0
        )
    return Bench(**{**vars(bench), "adapter": adapter})


def drawn_examples(
    data: LabelledImages, wanted: int, generator: np.random.Generator
) -> tuple[LabelledImages, LabelledImages]:
    """Examples to train on, at most half of a client's, and others of its own."""
    order = generator.permutation(len(data))
    count = min(wanted, len(data) // 2)
    return data.take(order[:count]), data.take(order[count : count + OTHERS])
