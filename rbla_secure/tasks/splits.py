"""The split of a data set into held-out, public and private examples, and the clients' parts."""

from dataclasses import dataclass
from typing import final

from rbla_secure.config import Config
from rbla_secure.config.choices import Partition
from rbla_secure.seeding import derive_seed
from rbla_secure.tasks.datasets import LabelledImages, Split, load_images, split
from rbla_secure.tasks.partition import partition_dirichlet, partition_iid


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The examples of a run, each with one owner."""

    held_out: LabelledImages
    public: LabelledImages
    clients: tuple[LabelledImages, ...]


def load_data(config: Config) -> Data:
    """Read, split and deal the examples.

    Raises:
        DataError: The set is missing or malformed, or too small for the split.
    """
    images = load_images(config.task)
    parts: Split = split(
        images,
        held_out=config.task.held_out,
        public=config.task.public,
        seed=derive_seed(config.seed, "split"),
    )
    clients = sum(tier.clients for tier in config.tiers.values())
    seed = derive_seed(config.seed, "partition")
    if config.task.partition is Partition.IID:
        dealt = partition_iid(parts.private.labels, clients=clients, seed=seed)
    else:
        dealt = partition_dirichlet(parts.private.labels, clients=clients, alpha=config.task.alpha, seed=seed)
    return Data(
        held_out=parts.held_out,
        public=parts.public,
        clients=tuple(parts.private.take(indices) for indices in dealt),
    )
