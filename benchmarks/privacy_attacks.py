"""What each party learns of clients' examples, view by view: span inversion, membership, differencing, singleton rows.

    python benchmarks/privacy_attacks.py [--quick] [--data fashion-mnist] [--out benchmarks/results/privacy_attacks.json]
    python benchmarks/privacy_attacks.py --table benchmarks/results/privacy_attacks.json

Forty clients of ranks 2, 4, 8 and 16 (ten each) fine-tune LoRA adapters on a frozen perceptron that was trained on
images upside down, so that most examples have a loss; Dirichlet 0.5, SGD at 0.05, updates clipped to 0.6. After five rounds of ten steps (lora_B is not zero
any more) every client is attacked on its next change, several times over. `--table` makes the Markdown from a result
file; a run writes both. Intervals are 95 %: resampled clients for means and areas, Clopper-Pearson for shares.

Noise is that of client-level differential privacy with multiplier z: shares of z C / sqrt(holders), so that the sum over
all holders of a row has z C. Differencing adds it to sums of a run without noise, which favours the attacker.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import one_run_audit
import projection_residuals
from attacked_federation import (
    CLIENTS,
    CLIP,
    OTHERS,
    RANK,
    RANKS,
    WARM_ROUNDS,
    Bench,
    build,
    drawn_examples,
)

from rbla_secure import __version__
from rbla_secure.config.choices import DataSet
from rbla_secure.evaluation.privacy_attacks import differencing, inversion, membership
from rbla_secure.evaluation.privacy_attacks.singletons import singleton_probability, singletons
from rbla_secure.evaluation.privacy_attacks.views import Noise, View, random_groups, seen
from rbla_secure.lora.update import UpdateRows
from rbla_secure.seeding import derive_seed
from rbla_secure.tasks.datasets import LabelledImages
from rbla_secure.tasks.training import use_one_thread

NOISES = (0.0, 0.2, 1.0)
# (steps, batch size) of the attacked round
WORK = ((1, 4), (1, 32), (10, 4), (10, 32))
ROUNDS = (20, 60, 120)
SLOW = 0.1  # server step while sums are collected, so that clients stay what they are

VIEWS = (
    View(name="plain: every change alone", group=1),
    View(name="groups of 3, no quorum", group=3),
    View(name="groups of 5, no quorum", group=5),
    View(name="groups of 3, quorum 3", group=3, quorum=3),
    View(name="groups of 5, quorum 3", group=5, quorum=3),
    View(name="masked, or homomorphic with the key: sum over 40", group=0),
)
SECTIONS = ("one_round", "strangers", "differencing", "singletons", "residuals", "one_run")
NOTHING = "homomorphic, server: ciphertexts"

Figures = dict[str, Any]
T = TypeVar("T")
# By view and noise, and by client: one result for every repeat
Trials = dict[tuple[str, float], dict[int, list[T]]]


def one_round(bench: Bench, *, repeats: int, seed: int) -> Iterator[Figures]:
    """Span inversion and membership, for every amount of work, view and noise."""
    image_columns = bench.layout.columns[bench.layout.layers[0].name][0]
    for steps, batch in WORK:
        scored: Trials[membership.Scored] = {}
        recovered: Trials[inversion.Recovery] = {}
        for repeat in range(repeats):
            generator = np.random.default_rng(derive_seed(seed, "round", steps, batch, repeat))
            drawn = [drawn_examples(data, steps * batch, generator) for data in bench.clients]
            changes = [
                bench.change(k, bench.adapter, members, steps=steps, batch=batch, seed=repeat)
                for k, (members, _) in enumerate(drawn)
            ]
            gradients = [
                tuple(bench.gradients.of(bench.adapter.sliced(int(RANKS[k])), part) for part in parts)
                for k, parts in enumerate(drawn)
            ]
            for view in VIEWS:
                groups = random_groups(CLIENTS, view.group, generator)
                for multiplier in NOISES:
                    noise = Noise(multiplier=multiplier, clip_norm=CLIP, ranks=tuple(RANKS.tolist()))
                    key = (view.name, multiplier)
                    for group in groups:
                        total = seen(
                            [changes[k] for k in group],
                            rank=RANK,
                            quorum=view.quorum,
                            noise=noise,
                            generator=generator,
                        )
                        for k in group:
                            members, others = gradients[k]
                            scored.setdefault(key, {}).setdefault(int(k), []).append(
                                membership.score(total, members=members, others=others)
                            )
                            # Fewer rows than inputs cannot span them: only clients that can be inverted are.
                            if steps == 1 and RANKS[k] >= batch:
                                recovered.setdefault(key, {}).setdefault(int(k), []).append(
                                    inversion.recover(
                                        total[:, image_columns],
                                        members=drawn[k][0].images.astype(np.float64),
                                        others=drawn[k][1].images.astype(np.float64),
                                        count=len(group) * batch,
                                    )
                                )
        for key, trials in scored.items():
            found = membership.summarize([_scored(one) for one in trials.values()], seed=seed)
            line: Figures = {
                "steps": steps,
                "batch": batch,
                "view": key[0],
                "noise": key[1],
                "membership": asdict(found),
            }
            if key in recovered:
                line["inversion"] = asdict(
                    inversion.summarize([_recovery(one) for one in recovered[key].values()], seed=seed)
                )
            yield line


def strangers(bench: Bench, *, repeats: int, seed: int) -> Iterator[Figures]:
    """Membership after one step on four examples, beside other clients' examples instead of the client's own."""
    scored: Trials[membership.Scored] = {}
    for repeat in range(repeats):
        generator = np.random.default_rng(derive_seed(seed, "strangers", repeat))
        drawn = [drawn_examples(data, 4, generator) for data in bench.clients]
        changes = [
            bench.change(k, bench.adapter, members, steps=1, batch=4, seed=repeat)
            for k, (members, _) in enumerate(drawn)
        ]
        pool = LabelledImages(
            images=np.concatenate([others.images for _, others in drawn]),
            labels=np.concatenate([others.labels for _, others in drawn]),
        )
        owner = np.repeat(np.arange(CLIENTS), [len(others) for _, others in drawn])
        gradients = []
        for k, (members, _) in enumerate(drawn):
            chosen = generator.permutation(np.flatnonzero(owner != k))[:OTHERS]
            adapter = bench.adapter.sliced(int(RANKS[k]))
            gradients.append([bench.gradients.of(adapter, part) for part in (members, pool.take(chosen))])
        for view in VIEWS:
            groups = random_groups(CLIENTS, view.group, generator)
            for multiplier in NOISES:
                noise = Noise(multiplier=multiplier, clip_norm=CLIP, ranks=tuple(RANKS.tolist()))
                for group in groups:
                    total = seen(
                        [changes[k] for k in group],
                        rank=RANK,
                        quorum=view.quorum,
                        noise=noise,
                        generator=generator,
                    )
                    for k in group:
                        members, others = gradients[k]
                        found = membership.score(total, members=members, others=others)
                        scored.setdefault((view.name, multiplier), {}).setdefault(int(k), []).append(found)
    for (name, multiplier), trials in scored.items():
        found = membership.summarize([_scored(one) for one in trials.values()], seed=seed)
        yield {"view": name, "noise": multiplier, "membership": asdict(found)}


def many_rounds(bench: Bench, *, rounds: tuple[int, ...], seed: int) -> Iterator[Figures]:
    """Differencing: half of all clients in every round, chosen at random, and nothing but sums seen."""
    generator = np.random.default_rng(derive_seed(seed, "differencing"))
    sizes = (3, 5, 0)
    sums: dict[int, list[UpdateRows]] = {size: [] for size in sizes}
    present: dict[int, list[np.ndarray]] = {size: [] for size in sizes}
    shares: dict[int, list[np.ndarray]] = {size: [] for size in sizes}
    truth = np.zeros((CLIENTS, RANK, bench.layout.row_length), dtype=np.float32)
    times = np.zeros(CLIENTS)
    adapter = bench.adapter
    for number in range(1, max(rounds) + 1):
        cohort = generator.permutation(CLIENTS)[: CLIENTS // 2]
        adapter, changes = bench.round(
            adapter, cohort, seed=derive_seed(seed, "difference", number), rate=SLOW
        )
        for k, change in zip(cohort, changes, strict=True):
            truth[k, : len(change)] += change.astype(np.float32)
            times[k] += 1
        share = Noise(multiplier=1.0, clip_norm=CLIP, ranks=tuple(RANKS[cohort].tolist())).share_std()
        for size in sizes:
            for group in random_groups(len(cohort), size, generator):
                total = seen([changes[i] for i in group], rank=RANK)
                sums[size].append(total.astype(np.float32))
                present[size].append(np.isin(np.arange(CLIENTS), cohort[group]))
                holders = (RANKS[cohort[group]][:, None] > np.arange(len(share))).sum(axis=0)
                shares[size].append(np.pad(share * np.sqrt(holders), (0, RANK - len(share))))
        if number in rounds:
            own = truth / np.maximum(times, 1)[:, None, None]
            for size in sizes:
                for multiplier in NOISES:
                    stack = np.stack(sums[size])
                    if multiplier:
                        deviations = multiplier * np.stack(shares[size]).astype(np.float32)
                        stack += deviations[:, :, None] * generator.standard_normal(
                            stack.shape, dtype=np.float32
                        )
                    recovered = differencing.recovered_changes(np.stack(present[size]), stack, RANKS)
                    yield {
                        "rounds": number,
                        "group": size,
                        "noise": multiplier,
                        "whole": asdict(differencing.attack(recovered, own, RANKS, seed=seed)),
                        "common_rows": asdict(
                            differencing.attack(recovered[:, :2], own[:, :2], np.full(CLIENTS, 2), seed=seed)
                        ),
                    }


def rows_of_one(*, draws: int, seed: int) -> Iterator[Figures]:
    """Singleton rows of random groups, counted and reckoned."""
    generator = np.random.default_rng(derive_seed(seed, "singletons"))
    for size in (1, 2, 3, 4, 5, 10, 20, 40):
        groups = [generator.permutation(CLIENTS)[:size] for _ in range(draws)]
        for quorum in (1, 3):
            yield {
                "group": size,
                "quorum": quorum,
                "reckoned": singleton_probability(RANKS.tolist(), size) if quorum == 1 else 0.0,
                **asdict(singletons(RANKS, groups, quorum=quorum, seed=seed)),
            }


def _scored(trials: list[membership.Scored]) -> membership.Scored:
    """All scores of one client: intervals are over clients, however often each was attacked."""
    return membership.Scored(
        members=np.concatenate([trial.members for trial in trials]),
        others=np.concatenate([trial.others for trial in trials]),
    )


def _recovery(trials: list[inversion.Recovery]) -> inversion.Recovery:
    """The same of span inversion."""
    return inversion.Recovery(
        members=np.concatenate([trial.members for trial in trials]),
        others=np.concatenate([trial.others for trial in trials]),
        single_row=float(np.mean([trial.single_row for trial in trials])),
    )


def table(results: Figures) -> Iterator[str]:
    """Views against attacks, and the details, as Markdown."""
    lines, rounds = results["one_round"], results["differencing"]
    settings = results["settings"]
    yield "# What each party learns of clients' examples"
    yield ""
    yield (
        f"{settings['data']}, {CLIENTS} clients of ranks 2, 4, 8, 16; Dirichlet 0.5; clip {CLIP}; every client attacked "
        f"{settings['repeats']} times. Values with 95 % confidence intervals. Made from `privacy_attacks.json` by "
        "`benchmarks/privacy_attacks.py --table`."
    )
    yield ""
    yield "## By view"
    yield ""
    yield (
        "One step on four examples, the attacker's best case. Energy: of a true input inside the recovered span "
        "(in brackets that of examples that were not trained on); an example without loss leaves no trace, so it stays "
        "below 1 by as much as the model knows already. Differencing: clients identified after 60 rounds of "
        "half the clients each, 1/40 by chance. Singleton rows: share of sums that show some client's rows alone."
    )
    yield ""
    yield "| view | noise z | span inversion: energy | membership AUC | differencing, 60 rounds | singleton rows |"
    yield "|---|---|---|---|---|---|"
    for view in VIEWS:
        for noise in NOISES:
            [line] = [
                x
                for x in lines
                if (x["steps"], x["batch"], x["view"], x["noise"]) == (1, 4, view.name, noise)
            ]
            inverted = line["inversion"]
            energy = f"{_text(inverted['energy'])} ({inverted['others']['value']:.3f})"
            yield (
                f"| {view.name} | {noise:g} | {energy} | {_text(line['membership']['auc'])} | "
                f"{_differencing(rounds, view, noise)} | {_singletons(results['singletons'], view)} |"
            )
    yield f"| {NOTHING} | any | nothing to invert | 0.5 by construction | nothing to solve | none |"
    yield from _membership_table(lines, results["strangers"])
    yield from _inversion_table(lines)
    yield from _differencing_table(rounds)
    yield from _singleton_table(results["singletons"])
    # These two may not have been run yet.
    if results.get("residuals"):
        yield from projection_residuals.table(results["residuals"])
    if results.get("one_run"):
        yield from one_run_audit.table(results["one_run"])


def _membership_table(lines: list[Figures], beside: list[Figures]) -> Iterator[str]:
    yield ""
    yield "## Membership by gradient alignment, AUC"
    yield ""
    works = [f"{steps} x {batch}" for steps, batch in WORK]
    yield "| view | noise z | " + " | ".join([*works, "1 x 4, other clients' examples"]) + " |"
    yield "|---|---|" + "---|" * (len(WORK) + 1)
    for view in VIEWS:
        for noise in NOISES:
            found = [
                _text(x["membership"]["auc"])
                for work in WORK
                for x in lines
                if (x["steps"], x["batch"]) == work and (x["view"], x["noise"]) == (view.name, noise)
            ]
            found += [
                _text(x["membership"]["auc"]) for x in beside if (x["view"], x["noise"]) == (view.name, noise)
            ]
            yield f"| {view.name} | {noise:g} | " + " | ".join(found) + " |"
    yield ""
    yield (
        "Columns: local steps x batch size. Members are told from other examples of the same client; in the last column "
        "from examples of other clients, which differ from members by their labels too: the higher figure says more of "
        "whose data it is than of what was trained on."
    )


def _inversion_table(lines: list[Figures]) -> Iterator[str]:
    yield ""
    yield "## Span inversion of one step, clients of rank >= batch size"
    yield ""
    yield "| view | noise z | batch | energy | of others | span membership AUC | best single row, cosine | n |"
    yield "|---|---|---|---|---|---|---|---|"
    for x in lines:
        if "inversion" in x:
            found = x["inversion"]
            texts = [_text(found[name]) for name in ("energy", "others", "membership", "single_row")]
            yield (
                f"| {x['view']} | {x['noise']:g} | {x['batch']} | "
                + " | ".join(texts)
                + f" | {found['energy']['count']} |"
            )


def _differencing_table(rounds: list[Figures]) -> Iterator[str]:
    yield ""
    yield "## Differencing"
    yield ""
    yield (
        "Identified: whole changes, solved band by band; and the two rows that everybody holds alone, as it would be "
        "with equal ranks."
    )
    yield ""
    yield "| sums over | noise z | rounds | identified | cosine | identified, common rows | cosine, common rows |"
    yield "|---|---|---|---|---|---|---|"
    for x in sorted(rounds, key=lambda x: (-(x["group"] or CLIENTS), x["noise"], x["rounds"])):
        who = f"groups of {x['group']}" if x["group"] else "all of the cohort"
        figures = [
            _text(x[part][name]) for part in ("whole", "common_rows") for name in ("identified", "cosine")
        ]
        yield f"| {who} | {x['noise']:g} | {x['rounds']} | " + " | ".join(figures) + " |"


def _singleton_table(lines: list[Figures]) -> Iterator[str]:
    yield ""
    yield "## Singleton rows of random groups"
    yield ""
    yield "| group | quorum | share of groups | reckoned | own rows that the single holder shows |"
    yield "|---|---|---|---|---|"
    for x in lines:
        read = _text(x["rows_read"]) if x["rows_read"] else "-"
        yield f"| {x['group']} | {x['quorum']} | {_text(x['groups'])} | {x['reckoned']:.3f} | {read} |"


def _differencing(rounds: list[Figures], view: View, noise: float) -> str:
    if view.group == 1:
        return "not needed: names are on the changes"
    wanted = max(x["rounds"] for x in rounds if x["rounds"] <= 60)
    [line] = [x for x in rounds if (x["group"], x["noise"], x["rounds"]) == (view.group, noise, wanted)]
    # A quorum hides rows that few of a group hold; the rows that everybody holds it always shows.
    if view.quorum > 1:
        return f"{_text(line['common_rows']['identified'])} from common rows"
    return _text(line["whole"]["identified"])


def _singletons(lines: list[Figures], view: View) -> str:
    [line] = [
        x for x in lines if x["group"] == (view.group or CLIENTS) and x["quorum"] == max(1, view.quorum)
    ]
    return _text(line["groups"])


def _text(estimate: Figures) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def run(*, data: DataSet, quick: bool, seed: int, only: str | None) -> Figures:
    """All attacks, or one section of the results."""
    repeats = 1 if quick else 4
    rounds = ROUNDS[:1] if quick else ROUNDS
    bench = build(data, per_client=100 if quick else 300, seed=seed)
    sections: dict[str, Callable[[], Iterator[Figures]]] = {
        "one_round": lambda: one_round(bench, repeats=repeats, seed=seed),
        "strangers": lambda: strangers(bench, repeats=repeats, seed=seed),
        "differencing": lambda: many_rounds(bench, rounds=rounds, seed=seed),
        "singletons": lambda: rows_of_one(draws=200 if quick else 2000, seed=seed),
        "residuals": lambda: projection_residuals.attacks(bench, repeats=repeats, seed=seed),
        "one_run": lambda: one_run_audit.audits(
            bench, canaries=200 if quick else one_run_audit.CANARIES, seed=seed
        ),
    }
    return {
        "version": __version__,
        "settings": {
            "data": str(data),
            "seed": seed,
            "repeats": repeats,
            "clip": CLIP,
            "warm_rounds": WARM_ROUNDS,
        },
        **{name: list(attack()) for name, attack in sections.items() if only in {None, name}},
    }


def main() -> None:
    """Run and save, or only print the table of a saved run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="once, 20 rounds: a check, no result")
    parser.add_argument("--data", type=DataSet, default=DataSet.FASHION_MNIST, choices=list(DataSet))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "privacy_attacks.json"
    )
    parser.add_argument(
        "--only", choices=SECTIONS, help="run one section again and keep the rest of the file"
    )
    parser.add_argument("--table", type=Path, help="print the table of this file, run nothing")
    options = parser.parse_args()
    if options.table:
        print("\n".join(table(json.loads(options.table.read_text()))))
        return
    use_one_thread()
    start = time.process_time()
    results = run(data=options.data, quick=options.quick, seed=options.seed, only=options.only)
    if options.only:
        results = {**json.loads(options.out.read_text()), options.only: results[options.only]}
    else:
        results["settings"]["processor_seconds"] = round(time.process_time() - start, 1)
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    text = "\n".join(table(json.loads(options.out.read_text()))) + "\n"
    options.out.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
