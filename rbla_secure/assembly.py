"""What a run and an evaluation of runs both put together: local training, public references, checks of steps."""

from collections.abc import Sequence

import numpy as np
from torch import nn
from torch.optim import Optimizer

from protocols.primitives.prg import KEY_SIZE, UniformStream
from protocols.primitives.secret import SYSTEM_RANDOM
from rbla_secure.config import Config
from rbla_secure.config.choices import RowOrder
from rbla_secure.evaluation.poisoning.triggers import corner_patches, most_drawn_to, stamp
from rbla_secure.federation.server.defence import Reference
from rbla_secure.federation.server.step_checks import Guard, PublicTests, wants_checks
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.parameters import sample_level
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.sample_level import train_privately
from rbla_secure.seeding import derive_key, derive_seed
from rbla_secure.tasks.datasets import LabelledImages
from rbla_secure.tasks.scoring import Scorer
from rbla_secure.tasks.splits import Data
from rbla_secure.tasks.training import Descent, LocalTrainer, Losses


def trainer_of(plan: Plan, base: nn.Module) -> LocalTrainer:
    """Local training as the plan wants it; one for all clients, since it keeps nothing between calls."""
    config = plan.config
    in_turns = config.training.rows is RowOrder.IN_TURNS
    return LocalTrainer(
        base,
        plan.layout,
        config.training,
        factors=config.lora.factors,
        descent=private_descent(config),
        turns=[band.stop for band in plan.bands] if in_turns else (),
    )


def initial_adapter(plan: Plan) -> Adapter:
    """The adapter before round 1."""
    return plan.initial_adapter


def reference_of(plan: Plan, base: nn.Module, data: Data) -> Reference:
    """Training on some of the public examples, upright as the clients': what fl-trust compares with."""
    root = data.public.take(np.arange(min(len(data.public), plan.config.robustness.root_examples)))
    trainer = LocalTrainer(base, plan.layout, plan.config.training, factors=plan.config.lora.factors)
    seed = plan.config.seed
    return lambda adapter, number: trainer.train(adapter, root, seed=derive_seed(seed, "reference", number))


def guard_of(plan: Plan, base: nn.Module, data: Data, remembered: Sequence[Adapter] = ()) -> Guard | None:
    """The checks of every step that the plan wants, with the adapters of the last rounds of an interrupted run."""
    wanted = plan.config.robustness
    if not wants_checks(wanted):
        return None
    public = data.public
    scorer = Scorer(base, plan.layout, public)
    stamped = {
        name: LabelledImages(images=stamp(public.images, trigger), labels=public.labels)
        for name, trigger in corner_patches().items()
    }
    scanned = {name: Scorer(base, plan.layout, examples) for name, examples in stamped.items()}
    tests = PublicTests(
        accuracy=lambda adapter: scorer.score(adapter).accuracy,
        triggers=lambda adapter: {
            name: most_drawn_to(each.predict(adapter), public.labels) for name, each in scanned.items()
        },
    )
    return Guard(wanted=wanted, tests=tests, first=initial_adapter(plan), remembered=remembered)


def private_descent(config: Config) -> Descent | None:
    """Local steps with noise on every one of them, where the configuration wants privacy of single examples.

    Batches and noise come from the operating system, or in a run marked as simulation from the public seed. What a step is
    divided by is the plan's batch size, the same for everybody.
    """
    mechanism = sample_level(config)
    if mechanism is None:
        return None

    def descent(network: nn.Module, optimizer: Optimizer, losses: Losses, seed: int) -> None:
        key = derive_key(seed, "steps") if config.privacy.simulation else SYSTEM_RANDOM(KEY_SIZE)
        train_privately(
            network,
            optimizer,
            losses.of,
            made_up=losses.made_up,
            mechanism=mechanism,
            batch_size=config.training.batch_size,
            examples=losses.count,
            stream=UniformStream(key),
        )

    return descent
