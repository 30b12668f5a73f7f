"""Accuracy against epsilon on MNIST: client level with 100 and 1,000 clients, sample level with 10.

    python benchmarks/privacy_utility.py --data mnist.npz     runs what results/privacy_utility.json lacks
    python benchmarks/privacy_utility.py --compare            the cells with settings of their own, from that file
    python benchmarks/privacy_utility.py --draw               plot, and the table of docs/privacy.md, from that file

A cell is a level, a number of clients, the trained factors, a clipping rule and an epsilon; it is run with three seeds, those compared seed by seed with ten. Every
run is written down as soon as it has ended, so that an interrupted experiment goes on where it stopped.

What is real: data, partition, local training, clipping, rounding, noise on the sum, division and accounting are the
product's functions, called in its order. What is left out: messages and masks, which change nothing of a sum (tests
compare the modes byte for byte). At client level the noise is the trusted server's, whose law distributed noise follows to
1 % (tests/rbla_secure/privacy/test_noise.py), so its epsilon is that of the sums. It grows from the seed: runs repeat.

The task: a perceptron that has seen 1,000 mirrored images and reads upright ones badly; LoRA on all its layers; 20 rounds,
everybody in each; Dirichlet partition, alpha 1; a quarter of the clients each at ranks 2, 4, 8 and 16 (sample level: 2, 2, 2
and 4). Learning rates and clip norms are the same in all cells of a level but two. They were chosen on seed 0 at
epsilon 8 (client level: 1,000 clients), and cost no privacy in these figures, as they would if chosen on private data. The
cells with settings of their own have 100 clients: a third of the clip norm, twice the step for it, and gamma 1, and in one of them
five local steps for two; `--compare` holds them against the best of the common settings, seed by seed. Those with weighted bands
differ in nothing else from the cells beside them: the clip norm is then of the weighted update. In all cells a client trains on its own rows alone
(lora.rest=dropped).
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from protocols.interface import SumResult
from protocols.session import RUN_ID_SIZE, Session
from rbla_secure.atomic_files import write_atomic
from rbla_secure.config import Config, load_config
from rbla_secure.config.choices import Rest
from rbla_secure.federation.client.contribution import contribution
from rbla_secure.federation.round import average
from rbla_secure.federation.server.opened_totals import release
from rbla_secure.federation.server.sessions import clip_norm
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.average import apply_average
from rbla_secure.lora.bands import spread
from rbla_secure.lora.peft_io import find_linear
from rbla_secure.lora.update import BandTotal
from rbla_secure.planning.noise import views
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.accounting import (
    SampledSteps,
    epsilon,
    epsilon_of_steps,
    noise_multiplier_for,
    noise_multiplier_of_steps,
)
from rbla_secure.privacy.ledger import Observer
from rbla_secure.privacy.noise import Release
from rbla_secure.privacy.quantize import dequantize
from rbla_secure.seeding import derive_key, derive_seed
from rbla_secure.tasks.base_model import base_digest, train_base
from rbla_secure.tasks.configured_training import private_descent
from rbla_secure.tasks.scoring import Scorer
from rbla_secure.tasks.splits import load_data
from rbla_secure.tasks.training import LocalTrainer, use_one_thread

RESULTS = Path(__file__).parent / "results" / "privacy_utility.json"
SEEDS = (1, 2, 3)
ROUNDS = 20
DELTA = 1e-5
RANKS = (2, 4, 8, 16)
SETTLED = 5
BEGIN, END = "<!-- privacy_utility: begin -->", "<!-- privacy_utility: end -->"
EPSILONS = (math.inf, 8.0, 2.0)

CLIENT_LEVEL = (
    "clip-norm=0.3",
    "server-learning-rate=2.0",
    "training.steps=2",
    "training.optimizer=sgd",
    "training.learning-rate=0.05",
    "quantization.bits=20",
    "privacy.mechanism=central",
    "lora.rest=dropped",
)
# Cells with settings in the place of those of their level, chosen on seed 0; the longer training was seen on seed 1 as well.
SHORT_CLIP = "clip 0.1, gamma 1"
LONGER = "clip 0.1, gamma 1, five local steps"
WEIGHTED, WEIGHTED_DECAY = "weighted bands", "weighted bands, decay 1"
VARIANTS = {
    SHORT_CLIP: ("clip-norm=0.1", "server-learning-rate=12.0", "gamma=1.0"),
    LONGER: ("clip-norm=0.1", "server-learning-rate=12.0", "gamma=1.0", "training.steps=5"),
    WEIGHTED: ("privacy.band-weights=holders",),
    WEIGHTED_DECAY: ("privacy.band-weights=holders", "privacy.rank-decay=1.0"),
}
# Of the cells of a hundred clients at epsilon 8 that are compared seed by seed. The first three are those of the table.
MORE_SEEDS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
FRESH_SEEDS = MORE_SEEDS[5:]  # seen by nobody while settings were chosen or described
STEPS, SAMPLE_RATE = 10, 0.01
# Of the cell of sample level that stands for none: the least that a configuration can have, a tenth of one clipped gradient.
NO_NOISE = 0.1
SAMPLE_LEVEL = (
    "clip-norm=3.0",
    f"training.steps={STEPS}",
    "training.optimizer=sgd",
    "training.learning-rate=1.0",
    "quantization.bits=20",
    "quantization.bound=0.5",
    f"sample-level.sample-rate={SAMPLE_RATE}",
    "training.batch-size=59",  # sample rate x the examples of an average client
    "sample-level.clip-norm=0.3",
    "lora.rest=dropped",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One place of the grid.

    Args:
        level: "client" or "sample".
        clients: All of them in every round.
        factors: "both" or "lora-b".
        clipping: "fixed" or "adaptive".
        epsilon: The target at delta 1e-5; infinite without noise.
        variant: Of `VARIANTS`; empty for the settings of the level.
    """

    level: str
    clients: int
    factors: str
    clipping: str
    epsilon: float
    variant: str = ""

    @property
    def name(self) -> str:
        """The key in the results."""
        text = f"{self.level} n={self.clients} {self.factors} {self.clipping} eps={self.epsilon:g}"
        return f"{text} {self.variant}".rstrip()

    @property
    def seeds(self) -> tuple[int, ...]:
        """What is measured; the table has the first three."""
        return MORE_SEEDS if self in {BEST_BEFORE, *TUNED} else SEEDS


BEST_BEFORE = Cell(level="client", clients=100, factors="lora-b", clipping="fixed", epsilon=8.0)
TUNED = tuple(replace(BEST_BEFORE, variant=variant) for variant in (SHORT_CLIP, LONGER))


def cells() -> Iterator[Cell]:
    """All of them. Without noise there is nothing to adapt the clip norm with, or to weight bands for."""
    for clients in (1000, 100):
        for target in EPSILONS:
            for factors in ("both", "lora-b"):
                for clipping in ("fixed", "adaptive") if target < math.inf else ("fixed",):
                    yield Cell(
                        level="client", clients=clients, factors=factors, clipping=clipping, epsilon=target
                    )
    for target in EPSILONS:
        yield Cell(level="sample", clients=10, factors="both", clipping="fixed", epsilon=target)
    yield from TUNED
    for clients, factors in ((100, "both"), (100, "lora-b"), (1000, "both")):
        for target in EPSILONS[1:]:
            for variant in (WEIGHTED, WEIGHTED_DECAY) if clients == 100 else (WEIGHTED,):
                yield Cell(
                    level="client",
                    clients=clients,
                    factors=factors,
                    clipping="fixed",
                    epsilon=target,
                    variant=variant,
                )


def config_of(cell: Cell, data: str, seed: int) -> Config:
    """The product's configuration of a cell."""
    tiers = ("phone", "laptop", "workstation", "datacenter")  # of ranks 2, 4, 8, 16
    quarter = cell.clients // 4
    sizes = (quarter, quarter, quarter, cell.clients - 3 * quarter)
    settings = [
        f"seed={seed}",
        f"rounds={ROUNDS}",
        "secure-sum=plain",
        "privacy.simulation=true",
        "dropout-rate=0.0",
        "task.data=mnist",
        f"task.root={json.dumps(data)}",
        "task.held-out=10000",
        f"lora.factors={cell.factors}",
        *(f"tiers.{tier}.clients={size}" for tier, size in zip(tiers, sizes, strict=True)),
        *(CLIENT_LEVEL if cell.level == "client" else SAMPLE_LEVEL),
    ]
    return load_config(None, settings + noise(cell) + list(VARIANTS.get(cell.variant, ())))


def noise(cell: Cell) -> list[str]:
    """The keys that set a cell's epsilon."""
    if cell.level == "sample":
        steps = ROUNDS * STEPS
        found = NO_NOISE
        if cell.epsilon < math.inf:
            found = noise_multiplier_of_steps(cell.epsilon, delta=DELTA, sample_rate=SAMPLE_RATE, steps=steps)
        return [f"sample-level.noise-multiplier={found}"]
    if cell.epsilon == math.inf:
        return []
    # A hair more noise than the closed form: the slack of integers is to fit in.
    multiplier = noise_multiplier_for(cell.epsilon, delta=DELTA, releases=ROUNDS) * (1 + 1e-6)
    clipping = "adaptive" if cell.clipping == "adaptive" else "flat"
    return [f"noise-multiplier={multiplier}", f"privacy.clipping={clipping}"]


def run(config: Config) -> dict[str, Any]:
    """One run: the accuracy after every round, and what it spent."""
    data = load_data(config)
    base = train_base(data.public, seed=derive_seed(config.seed, "base"))
    layout = find_linear(base, scaling=config.lora.scaling)
    plan = Plan.build(config, layout=layout, base_digest=base_digest(base))
    scorer = Scorer(base, layout, data.held_out)
    descent = private_descent(config, plan.sample_level)
    trainer = LocalTrainer(base, layout, config.training, factors=config.lora.factors, descent=descent)
    seed = derive_seed(config.seed, "initial adapter")
    adapter = Adapter.initial(layout, rank=plan.max_rank, seed=seed)
    cohort = tuple(plan.ranks)
    accuracies, norms, counts, spent = [], [], [], []
    for number in range(1, config.rounds + 1):
        norm = clip_norm(plan, counts[: max(0, number - 2)])
        session = plan.session(
            run=bytes(RUN_ID_SIZE), round_number=number, attempt=1, cohort=cohort, clip_norm=norm
        )
        summed = [np.zeros(segment.length, dtype=np.int64) for segment in session.segments]
        for name, examples in zip(cohort, data.clients, strict=True):
            rank = plan.ranks[name]
            start = adapter.folded(rank) if config.lora.rest is Rest.FOLDED else adapter.sliced(rank)
            seed = derive_seed(config.seed, "training", number, name)
            change = trainer.train(start, examples, seed=seed).astype(np.float64) - start.rows
            key = derive_key(config.seed, "noise", number, name)
            for index, values in contribution(plan, session, name, change, weight=1.0, noise_key=key).items():
                summed[index] += values
        sums = SumResult(survivors=cohort, sums=dict(enumerate(summed)), refused={})
        totals = _totals(plan, session, sums, counts, spent)
        averaged = average(plan, spread(totals, plan.bands, plan.columns))
        adapter = apply_average(adapter, averaged, learning_rate=config.server_learning_rate)
        accuracies.append(scorer.score(adapter).accuracy)
        norms.append(norm)
    if config.sample_level.noise_multiplier > NO_NOISE:
        told = epsilon_of_steps([_steps(config)], DELTA)
    else:
        told = epsilon(spent, DELTA) if spent else None
    return {
        "base": scorer.score(None).accuracy,
        "accuracy": accuracies,
        "clip_norms": norms,
        "noise_multiplier": config.noise_multiplier or config.sample_level.noise_multiplier,
        "values": int(plan.columns.sum()) * plan.max_rank,
        "spent": told,
    }


def _steps(config: Config) -> SampledSteps:
    wanted = config.sample_level
    return SampledSteps(
        noise_multiplier=wanted.noise_multiplier,
        sample_rate=wanted.sample_rate,
        steps=config.training.steps * config.rounds,
    )


def _totals(
    plan: Plan, session: Session, sums: SumResult, counts: list[float | None], spent: list[Release]
) -> dict[int, BandTotal]:
    mechanism = plan.mechanism_of(session)
    if mechanism is None:
        holders = {segment.index: len(segment.holders) for segment in session.segments}
        return dict(dequantize(sums.sums, plan.quantizer, holders=holders))
    released = release(plan, session, mechanism, sums)
    counts.append(released.unclipped)
    present = {segment.index: len(segment.members) for segment in session.segments}
    spent.append(views(plan.promises, mechanism, present=present, colluding=0)[Observer.PUBLIC])
    return dict(released.totals)


def measure(data: str, *, only: str) -> None:
    """Run what is missing; after every run the results are on the disk."""
    use_one_thread()
    done: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else {}
    for cell in cells():
        for seed in cell.seeds:
            key = f"{cell.name} seed={seed}"
            if key in done or only not in cell.name:
                continue
            started = time.process_time()
            found = run(config_of(cell, data, seed))
            place = asdict(cell) | {
                "epsilon": None if cell.epsilon == math.inf else cell.epsilon,
                "seed": seed,
            }
            done[key] = place | found
            done[key]["cpu_seconds"] = round(time.process_time() - started, 1)
            record = {"rounds": ROUNDS, "delta": DELTA, "runs": done}
            write_atomic(RESULTS, (json.dumps(record, indent=1) + "\n").encode())
            print(f"{key}: {found['accuracy'][-1]:.4f} in {done[key]['cpu_seconds']} s", flush=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The seeds of a cell together: mean of the last five rounds' accuracies."""

    mean: float
    spread: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.spread:.3f}"


def points(runs: dict[str, dict[str, Any]]) -> dict[Cell, Point]:
    """By cell; cells without results are left out."""
    found = {}
    for cell in cells():
        settled = [
            fmean(runs[key]["accuracy"][-SETTLED:])
            for seed in SEEDS
            if (key := f"{cell.name} seed={seed}") in runs
        ]
        if settled:
            spread = stdev(settled) if len(settled) > 1 else math.nan
            found[cell] = Point(mean=fmean(settled), spread=spread, seeds=len(settled))
    return found


def series(found: dict[Cell, Point]) -> dict[str, dict[float, Point]]:
    """Cells that differ in epsilon alone, under the name that table and plot give them."""
    table: dict[str, dict[float, Point]] = {}
    for cell, point in found.items():
        what = "A and B" if cell.factors == "both" else "B alone (FFA)"
        for clipping in ("fixed", "adaptive"):
            # Without noise both clipping rules are one run.
            if cell.clipping == clipping or (cell.epsilon == math.inf and cell.level == "client"):
                name = f"{cell.level} level, n = {cell.clients:,}, {what}, {clipping} clip"
                name += f", {cell.variant}" * bool(cell.variant)
                table.setdefault(name, {})[cell.epsilon] = point
    return table


def table(found: dict[Cell, Point]) -> str:
    """For docs/privacy.md."""
    lines = [
        "| | " + " | ".join("no noise" if e == math.inf else f"epsilon {e:g}" for e in EPSILONS) + " |",
        "|---|---|---|---|",
    ]
    for name, by_epsilon in series(found).items():
        lines.append(f"| {name} | " + " | ".join(str(by_epsilon.get(e, "-")) for e in EPSILONS) + " |")
    return "\n".join(lines)


def compare() -> None:
    """The cells with settings of their own against the best of the common settings, seed by seed."""
    runs = json.loads(RESULTS.read_text())["runs"]
    for cell in TUNED:
        print(f"{cell.variant}:")
        for seeds in (SEEDS, FRESH_SEEDS, MORE_SEEDS):
            print(f"  seeds {seeds[0]}-{seeds[-1]}: {_gain(runs, cell, seeds)}")


def _gain(runs: dict[str, dict[str, Any]], cell: Cell, seeds: tuple[int, ...]) -> str:
    old, new = (
        [fmean(runs[f"{one.name} seed={seed}"]["accuracy"][-SETTLED:]) for seed in seeds]
        for one in (BEST_BEFORE, cell)
    )
    gains = [after - before for before, after in zip(old, new, strict=True)]
    error = stdev(gains) / math.sqrt(len(gains))
    last = fmean(runs[f"{cell.name} seed={seed}"]["accuracy"][-1] for seed in seeds)
    return (
        f"{fmean(old):.3f} -> {fmean(new):.3f} (last round {last:.3f}), gain {fmean(gains):.3f}, "
        f"standard error {error:.3f}"
    )


def draw() -> None:
    """The plot beside the results, and the table between its marks in docs/privacy.md."""
    import matplotlib as mpl  # noqa: PLC0415  # wanted only here

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    found = points(json.loads(RESULTS.read_text())["runs"])
    plt.rcParams["svg.hashsalt"] = "privacy_utility"  # the same results give the same bytes
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    at = {math.inf: 2, 8.0: 1, 2.0: 0}
    styles = {"1,000": "tab:blue", "100": "tab:orange", "10": "tab:green"}
    for name, by_epsilon in series(found).items():
        clients = name.split("n = ")[1].split(", ")[0]
        order = sorted(by_epsilon, key=lambda e: at[e])
        axes.errorbar(
            [at[e] for e in order],
            [by_epsilon[e].mean for e in order],
            yerr=[by_epsilon[e].spread for e in order],
            color=styles[clients],
            linestyle="-" if "fixed" in name else "--",
            marker="s" if "FFA" in name else "o",
            capsize=3,
            label=name,
        )
    axes.set_xticks([0, 1, 2], ["2", "8", "no noise"])
    axes.set_xlabel("epsilon at delta 1e-5, 20 rounds")
    axes.set_ylabel("accuracy on 10,000 MNIST images")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.savefig(RESULTS.with_suffix(".svg"), metadata={"Date": None})
    page = Path(__file__).parent.parent / "docs" / "privacy.md"
    text = page.read_text()
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    page.write_text(f"{head}{BEGIN}\n{table(found)}\n{END}{tail}")


def main() -> None:
    """Measure or draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", metavar="FILE", help="mnist.npz")
    parser.add_argument("--only", default="", metavar="TEXT", help="cells with this text in their names")
    parser.add_argument(
        "--compare", action="store_true", help="cells with settings of their own, seed by seed"
    )
    parser.add_argument("--draw", action="store_true", help="plot and table from the results there are")
    options = parser.parse_args()
    if options.draw:
        draw()
    elif options.compare:
        compare()
    elif options.data:
        measure(options.data, only=options.only)
    else:
        parser.error("--data or --draw is needed")


if __name__ == "__main__":
    main()
