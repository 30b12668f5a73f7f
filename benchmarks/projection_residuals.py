"""Membership by projection residuals beside membership by gradient alignment: the same rounds, views and noise.

A section of privacy_attacks.py. Noise at client level is that of the other sections. At sample level every client trains by
`train_privately`: clipped to `EXAMPLE_CLIP`, noise of multiplier z on every step, each of its drawn examples in a batch with
probability batch / examples, so that batches have the same expected size as without noise.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from attacked_federation import CLIENTS, CLIP, RANK, RANKS, RATE, Bench, drawn_examples

from protocols.primitives.prg import UniformStream
from rbla_secure.config import TrainingConfig
from rbla_secure.config.choices import Optimizer
from rbla_secure.evaluation.privacy_attacks import membership, residuals
from rbla_secure.evaluation.privacy_attacks.views import Noise, View, random_groups, seen
from rbla_secure.evaluation.statistics import auc_by_client, true_positive_rate
from rbla_secure.lora.update import ClientUpdate, UpdateRows
from rbla_secure.privacy.accounting import SampledSteps, epsilon_of_steps
from rbla_secure.privacy.clipping import clip
from rbla_secure.privacy.sample_level import train_privately
from rbla_secure.privacy.sampled_gaussian import SampledGaussian
from rbla_secure.seeding import derive_key, derive_seed
from rbla_secure.tasks.datasets import LabelledImages
from rbla_secure.tasks.training import Descent, LocalTrainer

# (steps, batch size)
WORK = ((1, 4), (1, 32), (10, 4), (10, 32))
VIEWS = (
    View(name="plain: every change alone", group=1),
    View(name="groups of 3", group=3),
    View(name="groups of 5", group=5),
    View(name="masked, or homomorphic with the key: sum over 40", group=0),
)
# Where it is added, and its multiplier.
NOISES = (("none", 0.0), ("client", 0.2), ("client", 1.0), ("sample", 0.2), ("sample", 1.0))
ATTACKS = ("residuals", "alignment")
EXAMPLE_CLIP = 1.0
RATE_OF_FALSE = 0.01
DELTA = 1e-5

Figures = dict[str, Any]
# By view, noise and attack, and by client: the scores of every repeat
Found = dict[tuple[str, tuple[str, float], str], dict[int, list[membership.Scored]]]


def attacks(bench: Bench, *, repeats: int, seed: int) -> Iterator[Figures]:
    """Both attacks, for every amount of work, view and noise."""
    for steps, batch in WORK:
        found: Found = {}
        rates: list[float] = []
        for repeat in range(repeats):
            generator = np.random.default_rng(derive_seed(seed, "residuals", steps, batch, repeat))
            drawn = [drawn_examples(data, steps * batch, generator) for data in bench.clients]
            rates += [batch / len(members) for members, _ in drawn]
            _attack(bench, drawn, found, steps=steps, batch=batch, repeat=repeat, generator=generator)
        for (view, (where, multiplier), attack), trials in found.items():
            part = SampledSteps(noise_multiplier=multiplier, sample_rate=min(1.0, max(rates)), steps=steps)
            yield {
                "repeats": repeats,
                "private_examples": sum(len(data) for data in bench.clients),
                "steps": steps,
                "batch": batch,
                "view": view,
                "where": where,
                "noise": multiplier,
                "attack": attack,
                "epsilon": epsilon_of_steps([part], DELTA) if where == "sample" else None,
                **_figures(trials, seed=seed),
            }


def _attack(
    bench: Bench,
    drawn: list[tuple[LabelledImages, LabelledImages]],
    found: Found,
    *,
    steps: int,
    batch: int,
    repeat: int,
    generator: np.random.Generator,
) -> None:
    """One round: everybody's change, what is seen of it in every view, and what both attacks make of it."""
    own = [bench.adapter.sliced(int(rank)) for rank in RANKS]
    inputs = [[bench.gradients.inputs(own[k], part) for part in parts] for k, parts in enumerate(drawn)]
    gradients = [[bench.gradients.of(own[k], part) for part in parts] for k, parts in enumerate(drawn)]
    exact = [
        bench.change(k, bench.adapter, members, steps=steps, batch=batch, seed=repeat)
        for k, (members, _) in enumerate(drawn)
    ]
    for where, multiplier in NOISES:
        changes = exact
        if where == "sample":
            changes = [
                _private_change(bench, k, members, steps=steps, batch=batch, noise=multiplier, seed=repeat)
                for k, (members, _) in enumerate(drawn)
            ]
        noise = Noise(
            multiplier=multiplier if where == "client" else 0.0,
            clip_norm=CLIP,
            ranks=tuple(RANKS.tolist()),
        )
        for view in VIEWS:
            for group in random_groups(CLIENTS, view.group, generator):
                total = seen([changes[k] for k in group], rank=RANK, noise=noise, generator=generator)
                spaces = residuals.row_spaces(total, bench.layout)
                for k in group:
                    scored = {
                        "residuals": residuals.score(spaces, members=inputs[k][0], others=inputs[k][1]),
                        "alignment": membership.score(total, members=gradients[k][0], others=gradients[k][1]),
                    }
                    for attack, one in scored.items():
                        key = (view.name, (where, multiplier), attack)
                        found.setdefault(key, {}).setdefault(int(k), []).append(one)


def _private_change(
    bench: Bench, client: int, examples: LabelledImages, *, steps: int, batch: int, noise: float, seed: int
) -> UpdateRows:
    """A client's bounded change after steps with noise on every one of them."""
    mechanism = SampledGaussian(
        noise_multiplier=noise,
        clip_norm=EXAMPLE_CLIP,
        sample_rate=min(1.0, batch / len(examples)),
        steps=steps,
    )
    key = derive_key(seed, "steps", client, str(noise), steps, batch)

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

    taken: Descent = descent
    config = TrainingConfig(steps=steps, batch_size=batch, optimizer=Optimizer.SGD, learning_rate=RATE)
    own = bench.adapter.sliced(int(RANKS[client]))
    rows = LocalTrainer(bench.base, bench.layout, config, descent=taken).train(own, examples, seed=seed)
    return clip(ClientUpdate(rows=rows.astype(np.float64) - own.rows, weight=1.0), clip_norm=CLIP).rows


def _figures(trials: dict[int, list[membership.Scored]], *, seed: int) -> Figures:
    members = [np.concatenate([one.members for one in ones]) for ones in trials.values()]
    others = [np.concatenate([one.others for one in ones]) for ones in trials.values()]
    rate = true_positive_rate(
        np.concatenate(members), np.concatenate(others), false_positive_rate=RATE_OF_FALSE
    )
    return {
        "auc": asdict(auc_by_client(members, others, seed=seed)),
        "true_positive_rate": asdict(rate),
        "others": sum(len(scores) for scores in others),
    }


def table(lines: list[Figures]) -> Iterator[str]:
    """The section as Markdown."""
    yield ""
    yield "## Membership by projection residuals, beside gradient alignment"
    yield ""
    yield (
        "Residuals: of the hidden embeddings of an example, outside of the row space of the observed change of lora_A, after the "
        "idea in the abstract of arXiv 2604.21197 (ProjRes; not the paper's code or text). Members against other examples of the same "
        f"client, as above. Noise at client level: multiplier of the whole sum over 40. At sample level: on every step, examples "
        f"clipped to {EXAMPLE_CLIP:g}; the epsilon is one example's in this one round, delta {DELTA:g}, at the highest sampling rate "
        f"of a client. TPR: at 1 % false positives, Clopper-Pearson over members. Every client attacked {lines[0]['repeats']} times; all "
        f"clients together have {lines[0]['private_examples']:,} examples."
    )
    for steps, batch in WORK:
        yield ""
        yield f"### {steps} x {batch} (local steps x batch size)"
        yield ""
        yield "| view | noise | epsilon of an example | residuals, AUC | residuals, TPR | alignment, AUC | alignment, TPR |"
        yield "|---|---|---|---|---|---|---|"
        for view in VIEWS:
            for where, multiplier in NOISES:
                cells = [
                    next(
                        x
                        for x in lines
                        if (x["steps"], x["batch"], x["view"]) == (steps, batch, view.name)
                        and (x["where"], x["noise"], x["attack"]) == (where, multiplier, attack)
                    )
                    for attack in ATTACKS
                ]
                name = "none" if where == "none" else f"{where} {multiplier:g}"
                spent = cells[0]["epsilon"]
                figures = [text(x[part]) for x in cells for part in ("auc", "true_positive_rate")]
                yield (
                    f"| {view.name} | {name} | {'-' if spent is None else f'{spent:.1f}'} | "
                    + " | ".join(figures)
                    + " |"
                )


def text(estimate: Figures) -> str:
    """A figure with its interval."""
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
