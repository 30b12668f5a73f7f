"""How many rounds a lying server needs to grow a model that isolates one client, past every check that a client can make.

    python benchmarks/model_attacks.py [--seed 0] [--alpha 1.0 0.1] [--out benchmarks/results/model_attacks.json]

Clients accept a model whose every value, band and whole lies within (rounds) x (one honest step) of the seeded first
adapter. Inside these limits this looks for two models by projected gradient descent, both the same for everybody:

    dead        the second hidden layer is dead for every example of every client: no row of any layer gets a gradient
    one victim  it is dead for every example of all clients but one, and alive for that one

and reports the first round before which such a model passes, an upper bound: a better search may need fewer. With the
second one, every sum that opens is the victim's update. No check of the model helps against it: it is plausible, and one
and the same for all. Noise does.
"""

import argparse
import json
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch.nn import functional

from rbla_secure.config import load_config
from rbla_secure.federation.client.movement import Movement
from rbla_secure.federation.step_bound import average_limits, in_one_round, step_limit
from rbla_secure.lora.peft_io import find_linear
from rbla_secure.planning.plan import Plan
from rbla_secure.seeding import derive_seed
from rbla_secure.tasks.base_model import base_digest, train_base
from rbla_secure.tasks.splits import load_data
from rbla_secure.tasks.training import use_one_thread

STEPS: Final = 300  # of the search, for each number of rounds
MARGIN: Final = 0.05  # by which pre-activations are pushed below zero
MOST_ROUNDS: Final = 16
VICTIMS: Final = 4  # clients that are tried, one of each tier


class Search:
    """The search for bad models around the first adapter of a plan."""

    def __init__(self, plan: Plan, base: torch.nn.Sequential, clients: list[torch.Tensor]) -> None:
        self.plan, self.base, self.clients = plan, base, clients
        self.start = torch.tensor(np.array(plan.initial_adapter.rows))
        self.first, self.second = (base.get_submodule(name) for name in ("hidden1", "hidden2"))

    def hidden(self, rows: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Pre-activations of the second hidden layer, shape (n, 64)."""
        h = images
        for name, layer in (("hidden1", self.first), ("hidden2", self.second)):
            lora_A, lora_B = (rows[:, part] for part in self.plan.layout.columns[name])
            h = functional.relu(h) if name == "hidden2" else h
            h = layer(h) + self.plan.layout.scaling * (h @ lora_A.T) @ lora_B
        return h

    def attempt(self, rounds: int, victim: int | None) -> bool:
        """Whether a model of the wanted kind was found within the limits of so many rounds."""
        others = torch.cat([each for i, each in enumerate(self.clients) if i != victim])
        move = torch.zeros_like(self.start)
        lora_A, lora_B = self.plan.layout.columns["hidden2"]
        move[:, lora_A], move[:, lora_B] = 0.02, -0.02  # towards the plainest dead model
        move.requires_grad_(True)
        optimizer = torch.optim.Adam([move], lr=0.01)
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = functional.relu(self.hidden(self.start + move, others) + MARGIN).sum(dim=1).mean()
            if victim is not None:
                alive = self.hidden(self.start + move, self.clients[victim]).amax()
                loss = loss + 5 * functional.relu(0.5 - alive)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                self._project(move, rounds)
                if self._found(move, others, victim):
                    return self._passes(move, rounds)
        return False

    def _project(self, move: torch.Tensor, rounds: int) -> None:
        """Back into what clients accept: every value, every band and all rows."""
        limits = average_limits(self.plan)
        for band in self.plan.bands:
            rows = move[band.start : band.stop]
            value = rounds * in_one_round(self.plan, limits.coordinates[band.index])
            rows.clamp_(-value, value)
            length = rounds * in_one_round(self.plan, limits.bands[band.index])
            rows *= min(1.0, length / max(float(rows.norm()), 1e-12))
        move *= min(1.0, rounds * step_limit(self.plan) / max(float(move.norm()), 1e-12))

    def _found(self, move: torch.Tensor, others: torch.Tensor, victim: int | None) -> bool:
        if bool((self.hidden(self.start + move, others) > 0).any()):
            return False
        return victim is None or bool((self.hidden(self.start + move, self.clients[victim]) > 0).any())

    def _passes(self, move: torch.Tensor, rounds: int) -> bool:
        """The clients' own check."""
        before = np.array(self.start.numpy())
        after = (before + move.detach().numpy()).astype(np.float32)
        Movement(before=before, after=after, rounds=rounds).check(self.plan, average_limits(self.plan))
        return True

    def rounds(self, victim: int | None) -> int | None:
        """The first round before which such a model passes; None if none was found."""
        for rounds in range(1, MOST_ROUNDS):
            if self.attempt(rounds, victim):
                return rounds + 1
        return None


def measure(seed: int, alpha: float) -> dict[str, object]:
    """Both numbers on the default job of a seed and a skew."""
    config = load_config(None, [f"seed={seed}", f"task.alpha={alpha}"])
    data = load_data(config)
    base = train_base(data.public, seed=derive_seed(config.seed, "base"))
    layout = find_linear(base, scaling=config.lora.scaling)
    plan = Plan.build(config, layout=layout, base_digest=base_digest(base))
    search = Search(plan, base, [torch.tensor(each.images) for each in data.clients])
    chosen = range(0, len(data.clients), -(-len(data.clients) // VICTIMS))
    victims = {list(plan.ranks)[victim]: search.rounds(victim) for victim in chosen}
    return {
        "seed": seed,
        "alpha": alpha,
        "step_limit": round(step_limit(plan), 4),
        "dead_for_all_before_round": search.rounds(None),
        "one_victim_before_round": victims,
    }


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alpha", type=float, nargs="+", default=[1.0, 0.1])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/model_attacks.json"))
    options = parser.parse_args()
    use_one_thread()
    found = []
    for alpha in options.alpha:
        found.append(measure(options.seed, alpha))
        print(json.dumps(found[-1]))
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
