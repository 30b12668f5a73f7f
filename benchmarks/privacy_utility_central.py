"""Accuracy against epsilon where a trusted server adds the noise and not everybody takes part in every round.

    python benchmarks/privacy_utility_central.py --data mnist.npz    runs what results/privacy_utility_central.json lacks
    python benchmarks/privacy_utility_central.py                     prints the table of that file

Task, functions of the product and what is left out are those of privacy_utility.py, with the rows beyond a client's rank folded in
as the product does by default. Learning rates and clip norm are those of its table; nothing was chosen on these seeds. The schemes:

    everyone     20 rounds of all clients, independent noise: four times the client trainings of the others
    few          5 rounds of all clients, independent noise
    few, long    the same with four times the server's learning rate: the total step of 20 rounds
    drawn        20 rounds of a quarter, drawn by a public seed, independent noise: epsilon is of the client that was drawn most
    in turns     20 rounds of a quarter, each client in every fourth, noise that cancels over rounds (banded matrix)
    poisson      20 rounds, each client in each with probability 1/4, in secret: epsilon is that of readers and other clients, who do
                 not learn who takes part; all others hold whoever knows it
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from protocols.interface import SumResult
from protocols.session import RUN_ID_SIZE
from rbla_secure.atomic_files import write_atomic
from rbla_secure.config import Config, load_config
from rbla_secure.config.choices import Rest
from rbla_secure.federation.client.contribution import contribution
from rbla_secure.federation.round import average
from rbla_secure.federation.secret_cohorts import SecretCohorts
from rbla_secure.federation.server.opened_totals import release
from rbla_secure.lora.average import apply_average
from rbla_secure.lora.bands import spread
from rbla_secure.lora.peft_io import find_linear
from rbla_secure.planning.budget import participations
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.accounting import noise_multiplier_for
from rbla_secure.seeding import derive_seed
from rbla_secure.tasks.base_model import base_digest, train_base
from rbla_secure.tasks.scoring import Scorer
from rbla_secure.tasks.splits import load_data
from rbla_secure.tasks.training import LocalTrainer, use_one_thread

RESULTS = Path(__file__).parent / "results" / "privacy_utility_central.json"
SEEDS = (1, 2, 3)
DELTA = 1e-5
EPSILONS = (8.0, 2.0)
PART = 4
ROUNDS, FEW = 20, 5
SCHEMES = ("everyone", "few", "few, long", "drawn", "in turns", "poisson")
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
        scheme: As above.
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


def cells() -> Iterator[Cell]:
    """Those of a hundred clients first, which take seconds."""
    for clients, targets in ((100, EPSILONS), (1000, EPSILONS)):
        for factors in ("lora-b", "both") if clients == 100 else ("both",):
            for target in targets:
                for scheme in SCHEMES:
                    if scheme == "everyone" and clients == 1000:
                        continue  # in privacy_utility.json
                    rounds = FEW if scheme.startswith("few") else ROUNDS
                    yield Cell(scheme=scheme, clients=clients, factors=factors, rounds=rounds, epsilon=target)


def config_of(cell: Cell, data: str, seed: int) -> Config:
    """The product's configuration of a cell."""
    # Of 100 clients 96: tiers of 24, so that a quarter of each is a number.
    each = cell.clients // (len(TIERS) * PART) * PART
    part = each // PART if cell.scheme in {"drawn", "in turns"} else 0
    settings = [
        *SETTINGS,
        f"seed={seed}",
        f"rounds={cell.rounds}",
        f"task.root={json.dumps(data)}",
        f"lora.factors={cell.factors}",
        f"server-learning-rate={2.0 * PART if cell.scheme == 'few, long' else 2.0}",
        *(f"tiers.{tier}.clients={each}" for tier in TIERS),
        *(f"tiers.{tier}.cohort={part}" for tier in TIERS),
        *_scheme(cell),
    ]
    # A hair more noise than the target takes: the slack of integers is to fit in.
    config = load_config(None, [*settings, "noise-multiplier=1"])
    multiplier = _multiplier(config, cell.epsilon) * (1 + 1e-6)
    return load_config(None, [*settings, f"noise-multiplier={multiplier}"])


def _scheme(cell: Cell) -> list[str]:
    match cell.scheme:
        case "in turns":
            return ["privacy.mechanism=banded-matrix", f"privacy.separation={PART}"]
        case "poisson":
            return [
                "privacy.mechanism=central",
                "privacy.adjacency=add-or-remove",
                f"privacy.sample-rate={1 / PART}",
            ]
        case _:
            return ["privacy.mechanism=central"]


def _multiplier(config: Config, target: float) -> float:
    return _found(target, participations(config), config.privacy.sample_rate)


@lru_cache
def _found(target: float, rounds: int, rate: float) -> float:
    """The same for all seeds; a search over sampled rounds takes half a minute."""
    return noise_multiplier_for(target, delta=DELTA, releases=rounds, sample_rate=rate)


def run(config: Config) -> dict[str, Any]:
    """One run: the accuracy after every round."""
    data = load_data(config)
    base = train_base(data.public, seed=derive_seed(config.seed, "base"))
    layout = find_linear(base, scaling=config.lora.scaling)
    plan = Plan.build(config, layout=layout, base_digest=base_digest(base))
    scorer = Scorer(base, layout, data.held_out)
    trainer = LocalTrainer(base, layout, config.training, factors=config.lora.factors)
    examples = dict(zip(plan.ranks, data.clients, strict=True))
    adapter, correlated, accuracies = plan.initial_adapter, plan.correlated_noise(), []
    cohorts = SecretCohorts.of(plan)
    for number in range(1, config.rounds + 1):
        session = plan.session(run=bytes(RUN_ID_SIZE), round_number=number, attempt=1)
        mechanism = plan.mechanism_of(session)
        if mechanism is None:
            raise AssertionError("every cell has noise")
        summed = [np.zeros(segment.length, dtype=np.int64) for segment in session.segments]
        drawn = cohorts.asked(session.members, number) if cohorts is not None else session.members
        for name in sorted(drawn):
            rank = plan.ranks[name]
            start = adapter.folded(rank) if config.lora.rest is Rest.FOLDED else adapter.sliced(rank)
            seed = derive_seed(config.seed, "training", number, name)
            change = trainer.train(start, examples[name], seed=seed).astype(np.float64) - start.rows
            sent = contribution(plan, session, name, change, weight=1.0, noise_key=bytes(16))
            for index, values in sent.items():
                summed[index] += values
        sums = SumResult(survivors=tuple(sorted(drawn)), sums=dict(enumerate(summed)), refused={})
        totals = release(plan, session, mechanism, sums, correlated).totals
        averaged = average(plan, spread(totals, plan.bands, plan.columns))
        adapter = apply_average(adapter, averaged, learning_rate=config.server_learning_rate)
        accuracies.append(scorer.score(adapter).accuracy)
    return {
        "base": scorer.score(None).accuracy,
        "accuracy": accuracies,
        "noise_multiplier": config.noise_multiplier,
        "participations": participations(config),
        "sample_rate": config.privacy.sample_rate,
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
    """Mean accuracy of the last quarter of a run, over seeds, and their standard deviation."""
    rows: dict[str, dict[float, str]] = {}
    for cell in cells():
        keys = [f"{cell.name} seed={seed}" for seed in SEEDS]
        last = -(cell.rounds // PART)
        settled = [fmean(runs[key]["accuracy"][last:]) for key in keys if key in runs]
        if not settled:
            continue
        what = "A and B" if cell.factors == "both" else "B alone (FFA)"
        name = f"n = {cell.clients // 16 * 16:,}, {what}, {cell.scheme}, {cell.rounds} rounds"
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
