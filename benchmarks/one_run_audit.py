"""One run with many canaries: the lower bound on epsilon by mode and noise. A section of privacy_attacks.py.

Client level: CANARIES clients beside the forty that train, in ROUNDS rounds of ten steps from the first adapter. Sample level: one
client's examples and CANARIES made-up ones, from the warm adapter. `rbla_secure.evaluation.privacy_attacks.canaries` has both.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from attacked_federation import BATCH, CLIENTS, CLIP, RANK, RANKS, RATE, WARM_STEPS, Bench

from protocols.primitives.prg import UniformStream
from rbla_secure.config import Config, TrainingConfig
from rbla_secure.config.choices import Optimizer
from rbla_secure.evaluation.privacy_attacks.canaries import ADAPTERS, Trial, client_level, example_level
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.update import UpdateRows
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.accounting import SampledSteps, epsilon, epsilon_of_steps
from rbla_secure.privacy.noise import Release
from rbla_secure.privacy.one_run import Coins
from rbla_secure.privacy.sample_level import train_privately
from rbla_secure.privacy.sampled_gaussian import SampledGaussian
from rbla_secure.seeding import derive_key, derive_seed
from rbla_secure.tasks.datasets import LabelledImages
from rbla_secure.tasks.training import LocalTrainer

CANARIES, ROUNDS, CANARY_RANK = 1000, 1, 2
DELTA = 1e-5
GROUPS = (1, 3, 5)
# Mechanism and multiplier of client level.
CLIENT_NOISE = (
    ("none", 0.0),
    ("distributed", 0.2),
    ("distributed", 1.0),
    ("distributed", 4.0),
    ("central", 1.0),
)
# Multiplier, sampling rate and steps of sample level.
SAMPLE_NOISE = ((1e-4, 1.0, 1), (0.2, 1.0, 1), (1.0, 1.0, 1), (1.0, 0.25, 4), (2.0, 1.0, 1))
EXAMPLE_CLIP = 0.5
OWN = 100  # of the client's own examples beside the canaries

Figures = dict[str, Any]
VIEW_NAMES = {ADAPTERS: "the adapters", 1: "every change alone"}


def audits(bench: Bench, *, canaries: int, seed: int) -> Iterator[Figures]:
    """Every mode and noise of both levels."""
    for mechanism, multiplier in CLIENT_NOISE:
        yield from _client_level(bench, mechanism, multiplier, canaries=canaries, seed=seed)
    for multiplier, rate, steps in SAMPLE_NOISE:
        yield _sample_level(bench, multiplier, rate, steps, canaries=canaries, seed=seed)


def _client_level(
    bench: Bench, mechanism: str, multiplier: float, *, canaries: int, seed: int
) -> Iterator[Figures]:
    plan = _plan(bench, mechanism, multiplier, canaries=canaries, seed=seed)
    names = [name for name in plan.ranks if not name.startswith("canary")]
    of_client = dict(zip(names, _by_rank(plan, names), strict=True))

    def train(adapter: Adapter) -> dict[str, UpdateRows]:
        # As it comes: what bounds it, and counts a change that is not finite as zero, is the pipeline's own.
        trainer = bench.trainer(WARM_STEPS, BATCH, RATE)
        changes = {}
        for name, k in of_client.items():
            own = adapter.sliced(int(RANKS[k]))
            trained = trainer.train(own, bench.clients[k], seed=derive_seed(seed, k))
            changes[name] = trained.astype(np.float64) - own.rows
        return changes

    trial = client_level(
        plan,
        canaries=[name for name in plan.ranks if name.startswith("canary")],
        rounds=ROUNDS,
        train=train,
        groups=GROUPS,
        seed=derive_seed(seed, mechanism, str(multiplier)),
    )
    for group in (*GROUPS, ADAPTERS):
        yield {
            "level": "client",
            "noise": multiplier,
            "mechanism": mechanism,
            "rounds": ROUNDS,
            "group": group,
            **_spent(plan, group),
            **_shown(trial, group),
        }


def _spent(plan: Plan, group: int) -> Figures:
    """Of noise as it is in the sum: epsilon and mu over the rounds; the ledger's figure where the sum is over everybody."""
    if plan.mechanism is None or (plan.config.privacy.mechanism == "central" and group != ADAPTERS):
        return {"epsilon": None, "true_mu": None}
    uploaders = {index: shares.uploaders for index, shares in enumerate(plan.mechanism.bands)}
    release = plan.mechanism.event({0: group} if group else uploaders)
    together = Release(noise_multiplier=release.noise_multiplier / ROUNDS**0.5, slack=0.0, rho=0.0)
    return {"epsilon": epsilon([together], DELTA), "true_mu": 1 / together.noise_multiplier}


def _shown(trial: Trial, group: int = ADAPTERS) -> Figures:
    found = trial.audit(group, delta=DELTA)
    return {"bound": found.epsilon, "mu": found.mu, "delta": DELTA, **asdict(found.guesses)}


def _plan(bench: Bench, mechanism: str, multiplier: float, *, canaries: int, seed: int) -> Plan:
    ranks, counts = np.unique(RANKS, return_counts=True)
    tiers = {f"rank{r}": {"rank": int(r), "clients": int(n)} for r, n in zip(ranks, counts, strict=True)}
    privacy: dict[str, Any] = {"colluders": 0, "simulation": True}
    if mechanism == "central":
        privacy["mechanism"] = mechanism
    config = Config.model_validate(
        {
            "seed": seed,
            "tiers": {**tiers, "canary": {"rank": CANARY_RANK, "clients": canaries}},
            "secure_sum": "masking",
            "masking": {"profile": "semi-honest"},
            "rounds": ROUNDS,
            "noise_multiplier": multiplier,
            "clip_norm": CLIP,
            "quantization": {"bound": CLIP},
            "privacy": privacy,
        }
    )
    return Plan.build(config, layout=bench.layout, base_digest=bytes(32))


def _by_rank(plan: Plan, names: list[str]) -> list[int]:
    """For each name a client of the bench of its rank."""
    free = {rank: list(np.flatnonzero(rank == RANKS)) for rank in set(RANKS.tolist())}
    return [int(free[plan.ranks[name]].pop()) for name in names]


def _sample_level(
    bench: Bench, multiplier: float, rate: float, steps: int, *, canaries: int, seed: int
) -> Figures:
    generator = np.random.default_rng(derive_seed(seed, "canary examples"))
    made = LabelledImages(
        images=generator.standard_normal((canaries, bench.clients[0].images.shape[1])).astype(np.float32),
        labels=generator.integers(0, 10, canaries),
    )
    client = int(np.flatnonzero(RANKS == RANK)[0])
    own = bench.clients[client].take(np.arange(min(OWN, len(bench.clients[client]))))
    batch = round(rate * (canaries / 2 + len(own)))
    mechanism = SampledGaussian(
        noise_multiplier=multiplier, clip_norm=EXAMPLE_CLIP, sample_rate=rate, steps=steps
    )
    key = derive_key(seed, "canary steps", str(multiplier), str(rate), steps)

    def descent(network: Any, optimizer: Any, losses: Any, _: int) -> None:
        train_privately(
            network,
            optimizer,
            losses.of,
            made_up=losses.made_up,
            mechanism=mechanism,
            batch_size=batch,
            examples=losses.count,
            stream=UniformStream(key),
        )

    config = TrainingConfig(steps=steps, batch_size=batch, optimizer=Optimizer.SGD, learning_rate=RATE)
    trainer = LocalTrainer(bench.base, bench.layout, config, descent=descent)

    def train(coins: Coins) -> UpdateRows:
        chosen = made.take(np.flatnonzero(coins))
        examples = LabelledImages(
            images=np.concatenate([own.images, chosen.images]),
            labels=np.concatenate([own.labels, chosen.labels]),
        )
        return trainer.train(bench.adapter, examples, seed=0).astype(np.float64) - bench.adapter.rows

    unit = RATE * EXAMPLE_CLIP * steps * rate / batch
    known = bench.gradients.of(bench.adapter, own).astype(np.float64)
    norms = np.sqrt(np.square(known).sum(axis=(1, 2), keepdims=True))
    trial = example_level(
        train,
        bench.gradients.of(bench.adapter, made),
        unit=unit,
        clip_norm=EXAMPLE_CLIP,
        noise=multiplier / (rate * steps**0.5),
        expected=-unit * (known / np.maximum(norms, EXAMPLE_CLIP)).sum(axis=0),
        seed=derive_seed(seed, str(multiplier), str(rate)),
    )
    part = SampledSteps(noise_multiplier=multiplier, sample_rate=rate, steps=steps)
    return {
        "level": "sample",
        "noise": multiplier,
        "rate": rate,
        "steps": steps,
        "epsilon": epsilon_of_steps([part], DELTA) if multiplier > 1e-3 else None,
        "true_mu": steps**0.5 / multiplier if rate == 1 and multiplier > 1e-3 else None,
        **_shown(trial),
    }


def table(lines: list[Figures]) -> Iterator[str]:
    """The section as Markdown."""
    yield ""
    yield "## One run with many canaries"
    yield ""
    yield (
        "Each canary is in by a fair coin; a tenth of them are guessed. The bound is that of Steinke, Nasr, Jagielski 2023 (arXiv 2305.08846, "
        f"Theorem 5.2) at delta {DELTA:g} and 95 %; the last columns are for Gaussian mechanisms (arXiv 2410.22235). Claimed: for "
        "the adapters the ledger's figure; for uploads and groups what the noise in them would be worth, which nobody is promised. With a hundred "
        "guesses, all right, the bound is the largest there is: it reads 'at least', and where much is open far from the truth."
    )
    yield ""
    yield f"### Client level: canary clients beside {CLIENTS} that train, {ROUNDS} round of {WARM_STEPS} steps"
    yield ""
    yield "| seen | noise | right guesses | epsilon at least | epsilon of the noise | mu at least | mu of the noise |"
    yield "|---|---|---|---|---|---|---|"
    for x in lines:
        if x["level"] == "client":
            seen = VIEW_NAMES.get(x["group"], f"sums of {x['group']}")
            noise = x["mechanism"] if x["mechanism"] == "none" else f"{x['mechanism']}, z {x['noise']:g}"
            yield f"| {seen} | {noise} | {_columns(x)} |"
    yield ""
    yield f"### Sample level: canary examples beside up to {OWN} of one client, seen in its change alone"
    yield ""
    yield "| noise z | sampling rate | steps | right guesses | epsilon at least | epsilon claimed | mu at least | mu claimed |"
    yield "|---|---|---|---|---|---|---|---|"
    for x in lines:
        if x["level"] == "sample":
            yield f"| {x['noise']:g} | {x['rate']:g} | {x['steps']} | {_columns(x)} |"


def _columns(x: Figures) -> str:
    figures = [_number(x[name]) for name in ("bound", "epsilon", "mu", "true_mu")]
    return " | ".join([f"{x['correct']} of {x['made']}, of {x['canaries']}", *figures])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
