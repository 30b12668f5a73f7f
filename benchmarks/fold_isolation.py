"""Can a server choose one adapter that moves the low rows of the largest ranks alone? And how far from honest is it?

    python benchmarks/fold_isolation.py [--margin 1.0] [--seed 0]

The default job (ranks 2, 2, 4, 4, 8, 8, 16, 16, 16, 16), rows beyond a client's rank folded, so that all start a round
from one function. The adapter, the same for everybody, is built from public images only:

* rows 9 to 16 of the second hidden layer hold every unit but one below zero for all images, with a margin;
* row 16 of the head cancels the weights of the unit that is left (exactly: halves and negatives), and rows 1 to 8 of the
  head do not read it.

Then no row of the bands 1-2, 3-4 and 5-8 has a gradient, for nobody, at the first step; rows 9 to 16 of the head have.
Whoever trains them together with the low rows revives the unit, and with it everything below. Printed are the adapter's
distance from the seeded first one (over the largest step that a round of clip norm and server learning rate allows) and
the norm of every client's change by band, rows trained together and in turns.
"""

import argparse

import numpy as np
import torch
from torch import nn

from rbla_secure.config import Config, load_config
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.peft_io import find_linear
from rbla_secure.planning.plan import Plan
from rbla_secure.seeding import derive_seed
from rbla_secure.tasks.base_model import base_digest, train_base
from rbla_secure.tasks.splits import Data, load_data
from rbla_secure.tasks.training import LocalTrainer, use_one_thread

LOW = 8
STEPS = 3000
EDGES = (2, 4, 8, 16)


def live_unit(base: nn.Sequential, images: torch.Tensor) -> tuple[int, torch.Tensor, torch.Tensor]:
    """The unit of the second layer that most images excite, the first layer's outputs, the second's inputs to ReLU."""
    hidden = base.hidden1(images).relu()
    before = base.hidden2(hidden)
    return int((before > 0).float().mean(dim=0).argmax()), hidden, before


def silencing(
    base: nn.Sequential, first: Adapter, images: torch.Tensor, margin: float
) -> tuple[np.ndarray, np.ndarray]:
    """Values of rows 9 to 16 of the second layer, close to the first adapter's, that hold all units but one down."""
    unit, hidden, before = live_unit(base, images)
    others = [i for i in range(before.shape[1]) if i != unit]
    start = torch.tensor(first.lora_A("hidden2")[LOW:])
    down, up = start.clone(), torch.zeros(before.shape[1], len(start))
    down[0] += 0.12
    up[others, 0] = -0.2
    down.requires_grad_()
    up.requires_grad_()
    optimizer = torch.optim.Adam([down, up])
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / STEPS) + 1e-4
        after = before + first.layout.scaling * (hidden @ down.T) @ up.T
        excess = (after[:, others] + margin).clamp(min=0).amax(dim=1)
        loss = (down - start).square().sum() + up.square().sum() + 90 * excess.mean() + 30 * excess.max()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return down.detach().numpy(), up.detach().numpy()


def isolating(base: nn.Sequential, first: Adapter, images: torch.Tensor, margin: float) -> Adapter:
    """The adapter that the docstring describes."""
    unit, _, _ = live_unit(base, images)
    rows, columns = first.rows.copy(), first.layout.columns
    rows[LOW:, columns["hidden2"][0]], up = silencing(base, first, images, margin)
    rows[LOW:, columns["hidden2"][1]] = up.T
    reads, writes = columns["head"]
    rows[:LOW, reads.start + unit] = 0.0
    rows[-1, reads] = 0.0
    rows[-1, reads.start + unit] = 0.5
    rows[-1, writes] = -base.head.weight.detach().numpy()[:, unit] / (0.5 * first.layout.scaling)
    return Adapter(layout=first.layout, rows=rows)


def moved(config: Config, plan: Plan, base: nn.Module, data: Data, adapter: Adapter) -> None:
    """Print what every client's change is, by band, in both ways of training."""
    for name, turns in (("together", ()), ("in turns", EDGES)):
        trainer = LocalTrainer(base, plan.layout, config.training, turns=turns)
        print(f"\nrows trained {name}: norm of the change of rows 1-2, 3-4, 5-8, 9-16")
        for (client, rank), examples in zip(plan.ranks.items(), data.clients, strict=True):
            part = adapter.folded(rank)
            change = trainer.train(part, examples, seed=derive_seed(config.seed, client)) - part.rows
            bands = np.split(change, [edge for edge in EDGES if edge < rank])
            print(f"  {client:16} rank {rank:2}: " + "  ".join(f"{np.linalg.norm(b):.4f}" for b in bands))


def main() -> None:
    """Build the adapter and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--margin", type=float, default=1.0, help="below zero, for images the server has not seen"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    use_one_thread()
    config = load_config(None, [f"seed={arguments.seed}"])
    data = load_data(config)
    base = train_base(data.public, seed=derive_seed(config.seed, "base"))
    layout = find_linear(base, scaling=config.lora.scaling)
    plan = Plan.build(config, layout=layout, base_digest=base_digest(base))
    first = plan.initial_adapter
    adapter = isolating(base, first, torch.tensor(data.public.images), arguments.margin)
    distance = float(np.linalg.norm(adapter.rows.astype(np.float64) - first.rows))
    print(f"distance from the first adapter: {distance:.2f}; clip norm {config.clip_norm}")
    moved(config, plan, base, data, adapter)


if __name__ == "__main__":
    main()
