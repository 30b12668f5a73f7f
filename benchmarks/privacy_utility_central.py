"""Accuracy against epsilon where a trusted server adds the noise and not everybody takes part in every round.

    python benchmarks/privacy_utility_central.py --data mnist.npz    runs what results/privacy_utility_central.json lacks
    python benchmarks/privacy_utility_central.py                     prints the table of that file

Task, functions of the product and what is left out are those of privacy_utility.py, with the rows beyond a client's rank folded in
as the product does by default. Every cell has the same number of client trainings, 20 of each client on average, and the same
total step: the server's learning rate is 2 where 20 rounds have everybody, and 1/2 where 80 rounds have a quarter. Nothing was chosen
on these seeds. The schemes:

    everyone   20 rounds of all clients, independent noise
    drawn      80 rounds of a quarter, drawn by a public seed, independent noise: epsilon is of the client that was drawn most
    in turns   80 rounds of a quarter, each client in every fourth, noise that cancels over rounds (banded matrix)
    poisson    80 rounds, each client in each with probability 1/4, in secret: epsilon is that of a reader who knows nothing of it

What an epsilon is about differs, and is told in the table: the first three hold whoever knows who took part. A row of "few" has fewer
rounds of everybody, with the learning rate 2: less noise, and less training.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from protocols.interface import SumResult
from protocols.session import RUN_ID_SIZE
from rbla_secure.choices import Rest
from rbla_secure.config import Config, load_config
from rbla_secure.durable import write_atomic
from rbla_secure.federation.budget import participations
from rbla_secure.federation.contribution import contribution
from rbla_secure.federation.plan import Plan
from rbla_secure.federation.release import matrix_noise, release
from rbla_secure.federation.round import average
from rbla_secure.lora.average import apply_average
from rbla_secure.lora.bands import spread
from rbla_secure.lora.peft_io import find_linear
from rbla_secure.privacy.accounting import noise_multiplier_for
from rbla_secure.seeding import derive_seed
from rbla_secure.tasks.base_model import base_digest, train_base
from rbla_secure.tasks.dealing import load_data
from rbla_secure.tasks.scoring import Scorer
from rbla_secure.tasks.training import LocalTrainer, use_one_thread

RESULTS = Path(__file__).parent / "results" / "privacy_utility_central.json"
SEEDS = (1, 2, 3)
DELTA = 1e-5
EPSILONS = (8.0, 2.0)
PART = 4
ROUNDS = 20
FEW = (5, 10)
SETTLED = 5
TIERS = ("phone", "laptop", "workstation", "datacenter")  # of ranks 2, 4, 8, 16
SETTINGS = (
    "clip-norm=0.3",
    "training.steps=2",
    "training.optimizer=sgd",
    "training.learning-rate=0.05",
    "quantization.bits=20",
    "secure-sum=plain",
    "privacy.simulation=true",
    "dropout-rate=0.0",
    "task.data=mnist",
    "task.held-out=10000",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One place of the grid.

    Args:
        scheme: "everyone", "drawn", "in turns", "poisson" or "few".
        clients: All of them.
        factors: "both" or "lora-b".
        rounds: Of the run.
        epsilon: The target at delta 1e-5.
    """

    scheme: str
    clients: int
    factors: str
    rounds: int
    epsilon: float

    @property
    def name(self) -> str:
        """The key in the results."""
        return f"{self.scheme} n={self.clients} {self.factors} rounds={self.rounds} eps={self.epsilon:g}"

    @property
    def whole(self) -> bool:
        """Whether every round has everybody."""
        return self.scheme in {"everyone", "few"}


def cells() -> Iterator[Cell]:
    """Those of a hundred clients first, which take seconds."""
    for clients in (100, 1000):
        for factors in ("both", "lora-b") if clients == 100 else ("both",):
            for target in EPSILONS:
                for scheme in ("everyone", "drawn", "in turns", "poisson"):
                    rounds = ROUNDS if scheme == "everyone" else ROUNDS * PART
                    yield Cell(scheme=scheme, clients=clients, factors=factors, rounds=rounds, epsilon=target)
                if clients == 100:
                    for rounds in FEW:
                        yield Cell(
                            scheme="few", clients=clients, factors=factors, rounds=rounds, epsilon=target
                        )


def config_of(cell: Cell, data: str, seed: int) -> Config:
    """The product's configuration of a cell."""
    each = cell.clients // len(TIERS)
    # A quarter of every tier; 24 of 100 clients, whose tiers of 25 are no multiples of four.
    settings = [
        *SETTINGS,
        f"seed={seed}",
        f"rounds={cell.rounds}",
        f"task.root={json.dumps(data)}",
        f"lora.factors={cell.factors}",
        f"server-learning-rate={2.0 if cell.whole else 2.0 / PART}",
        *(f"tiers.{tier}.clients={each}" for tier in TIERS),
        *(f"tiers.{tier}.cohort={0 if cell.whole else each // PART}" for tier in TIERS),
        *_scheme(cell),
    ]
    config = load_config(None, settings)
    return load_config(None, [*settings, f"noise-multiplier={_multiplier(config, cell.epsilon)}"])


def _scheme(cell: Cell) -> list[str]:
    match cell.scheme:
        case "in turns":
            return ["privacy.mechanism=banded-matrix", f"privacy.separation={PART}"]
        case "poisson":
            return [
                "privacy.mechanism=central",
                "privacy.adjacency=add-or-remove",
                "privacy.cohorts=poisson",
            ]
        case _:
            return ["privacy.mechanism=central"]


def _multiplier(config: Config, target: float) -> float:
    """A hair more noise than the target takes: the slack of integers is to fit in."""
    found = noise_multiplier_for(target, delta=DELTA, releases=participations(config))
    return found * (1 + 1e-6)


def run(config: Config) -> dict[str, Any]:
    """One run: the accuracy after every round."""
    data = load_data(config)
    base = train_base(data.public, seed=derive_seed(config.seed, "base"))
    layout = find_linear(base, scaling=config.lora.scaling)
    plan = Plan.build(config, layout=layout, base_digest=base_digest(base))
    scorer = Scorer(base, layout, data.held_out)
    trainer = LocalTrainer(base, layout, config.training, factors=config.lora.factors)
    examples = dict(zip(plan.ranks, data.clients, strict=True))
    adapter, matrix, accuracies = plan.initial_adapter, matrix_noise(plan), []
    for number in range(1, config.rounds + 1):
        session = plan.session(run=bytes(RUN_ID_SIZE), round_number=number, attempt=1)
        mechanism = plan.mechanism_of(session)
        if mechanism is None:
            raise AssertionError("every cell has noise")
        summed = [np.zeros(segment.length, dtype=np.int64) for segment in session.segments]
        for name in session.members:
            rank = plan.ranks[name]
            start = adapter.folded(rank) if config.lora.rest is Rest.FOLDED else adapter.sliced(rank)
            seed = derive_seed(config.seed, "training", number, name)
            change = trainer.train(start, examples[name], seed=seed).astype(np.float64) - start.rows
            sent = contribution(plan, session, name, change, weight=1.0, noise_key=bytes(16))
            for index, values in sent.items():
                summed[index] += values
        sums = SumResult(survivors=session.members, sums=dict(enumerate(summed)), refused={})
        totals = release(plan, session, mechanism, sums, matrix).totals
        averaged = average(plan, spread(totals, plan.bands, plan.columns))
        adapter = apply_average(adapter, averaged, learning_rate=config.server_learning_rate)
        accuracies.append(scorer.score(adapter).accuracy)
    return {
        "base": scorer.score(None).accuracy,
        "accuracy": accuracies,
        "noise_multiplier": config.noise_multiplier,
        "participations": participations(config),
        "values": int(plan.columns.sum()) * plan.max_rank,
    }


def measure(data: str, *, only: str) -> None:
    """Run what is missing; after every run the results are on the disk."""
    use_one_thread()
    done: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else {}
    for cell in cells():
        for seed in SEEDS:
            key = f"{cell.name} seed={seed}"
            if key in done or only not in cell.name:
                continue
            started = time.process_time()
            done[key] = asdict(cell) | {"seed": seed} | run(config_of(cell, data, seed))
            done[key]["cpu_seconds"] = round(time.process_time() - started, 1)
            record = {"delta": DELTA, "part": PART, "runs": done}
            write_atomic(RESULTS, (json.dumps(record, indent=1) + "\n").encode())
            print(f"{key}: {done[key]['accuracy'][-1]:.4f} in {done[key]['cpu_seconds']} s", flush=True)


def table(runs: dict[str, dict[str, Any]]) -> str:
    """Mean of the last five rounds' accuracies, over seeds, and their standard deviation."""
    rows: dict[str, dict[float, str]] = {}
    for cell in cells():
        keys = [f"{cell.name} seed={seed}" for seed in SEEDS]
        settled = [fmean(runs[key]["accuracy"][-SETTLED:]) for key in keys if key in runs]
        if not settled:
            continue
        what = "A and B" if cell.factors == "both" else "B alone (FFA)"
        name = f"n = {cell.clients:,}, {what}, {cell.scheme}, {cell.rounds} rounds"
        spread = stdev(settled) if len(settled) > 1 else math.nan
        rows.setdefault(name, {})[cell.epsilon] = f"{fmean(settled):.3f} ± {spread:.3f}"
    head = ["| | epsilon 8 | epsilon 2 |", "|---|---|---|"]
    return "\n".join(
        head
        + [f"| {name} | {' | '.join(found.get(e, '-') for e in EPSILONS)} |" for name, found in rows.items()]
    )


def main() -> None:
    """Measure or print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", metavar="FILE", help="mnist.npz")
    parser.add_argument("--only", default="", metavar="TEXT", help="cells whose name contains it")
    given = parser.parse_args()
    if given.data:
        measure(given.data, only=given.only)
    print(table(json.loads(RESULTS.read_text())["runs"]))


if __name__ == "__main__":
    main()
