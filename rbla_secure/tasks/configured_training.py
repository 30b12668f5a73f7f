"""Local training as a configuration sets it: which rows in which order, and noise for privacy of single examples."""

from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from protocols.primitives.prg import KEY_SIZE, UniformStream
from protocols.primitives.secret import SYSTEM_RANDOM
from rbla_secure.config import Config
from rbla_secure.config.choices import RowOrder
from rbla_secure.lora.adapter import AdapterLayout
from rbla_secure.privacy.sample_level import train_privately
from rbla_secure.privacy.sampled_gaussian import SampledGaussian
from rbla_secure.seeding import derive_key
from rbla_secure.tasks.training import Descent, LocalTrainer, Losses


def configured_trainer(
    config: Config,
    base: nn.Module,
    layout: AdapterLayout,
    *,
    noise: SampledGaussian | None,
    band_ends: Sequence[int],
) -> LocalTrainer:
    """Build the local training of a configuration; one for all clients, since it keeps nothing between calls.

    Args:
        config: Configuration of the run.
        base: Frozen base model.
        layout: Its adapted layers.
        noise: Noise inside each client's training; None without.
        band_ends: Last row, from 1, of every rank band, increasing; read where rows are trained in turns.

    Raises:
        PrivacyError: Rows are to be trained in turns, and with noise.
    """
    return LocalTrainer(
        base,
        layout,
        config.training,
        factors=config.lora.factors,
        descent=private_descent(config, noise),
        turns=band_ends if config.training.rows is RowOrder.IN_TURNS else (),
    )


def private_descent(config: Config, noise: SampledGaussian | None) -> Descent | None:
    """Build local steps with noise on every one of them; None where no noise is wanted.

    Batches and noise come from the operating system, or in a run marked as simulation from the public seed. What a step is
    divided by is the plan's batch size, the same for everybody.

    Args:
        config: Configuration of the run.
        noise: Mechanism that adds noise to every step; None for no noise.
    """
    if noise is None:
        return None

    def descent(network: nn.Module, optimizer: Optimizer, losses: Losses, seed: int) -> None:
        key = derive_key(seed, "steps") if config.privacy.simulation else SYSTEM_RANDOM(KEY_SIZE)
        train_privately(
            network,
            optimizer,
            losses.of,
            made_up=losses.made_up,
            mechanism=noise,
            batch_size=config.training.batch_size,
            examples=losses.count,
            stream=UniformStream(key),
        )

    return descent
