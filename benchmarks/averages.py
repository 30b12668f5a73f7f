"""How the averages compare on the default job: RBLA, its gamma family and zero padding, over seeds and skews.

    python benchmarks/averages.py [--seeds 5] [--out benchmarks/results/averages.json]

Every cell is one whole run in plain mode (masking gives the same bytes) with the default 5 % drop-outs. Reported are
the accuracy after round 5 and the mean of the last five rounds; the table prints the mean over seeds and in how many
seeds RBLA ended above the rule.
"""

import argparse
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from rbla_secure import __version__
from rbla_secure.config import load_config
from rbla_secure.job import run_job
from rbla_secure.report.console import ConsoleReport
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.run_folder.records import RoundRecord

RULES = {
    "rbla": (),
    "zero-pad": ("average=zero-pad",),
    "gamma 0.5": ("gamma=0.5",),
    "gamma 1": ("gamma=1.0",),
    "rbla, no quorum": ("min-holders=1",),
}
ALPHAS = (1.0, 0.1)


def cells(seeds: int) -> Iterator[dict[str, object]]:
    """Run every cell and yield its figures."""
    for alpha in ALPHAS:
        for rule, overrides in RULES.items():
            for seed in range(seeds):
                records = run([f"task.alpha={alpha}", f"seed={seed}", "secure-sum=plain", *overrides])
                accuracies = [record.accuracy for record in records]
                yield {
                    "alpha": alpha,
                    "rule": rule,
                    "seed": seed,
                    "round5": accuracies[4],
                    "last5": sum(accuracies[-5:]) / 5,
                }


def run(overrides: list[str]) -> list[RoundRecord]:
    """One run; its round records."""
    with tempfile.TemporaryDirectory() as directory:
        folder = RunFolder.create(Path(directory) / "run", load_config(None, overrides))
        with ConsoleReport(Console(file=io.StringIO()), folder.config) as report:
            run_job(folder, report)
        lines = (folder.path / "metrics.jsonl").read_text().splitlines()
        folder.close()
        return [RoundRecord.model_validate_json(line) for line in lines]


def table(results: list[dict[str, object]]) -> Iterator[str]:
    """Means over seeds as Markdown."""
    yield "| alpha | rule | round 5 | last 5 | seeds in which RBLA ended higher |"
    yield "|---|---|---|---|---|"
    for alpha in ALPHAS:
        reference = _column(results, alpha, "rbla", "last5")
        for rule in RULES:
            first, last = (_column(results, alpha, rule, name) for name in ("round5", "last5"))
            wins = sum(a > b for a, b in zip(reference, last, strict=True))
            beaten = "" if rule == "rbla" else f"{wins} of {len(last)}"
            yield (
                f"| {alpha} | {rule} | {sum(first) / len(first):.3f} | {sum(last) / len(last):.3f} | {beaten} |"
            )


def _column(results: list[dict[str, object]], alpha: float, rule: str, name: str) -> list[float]:
    return [float(str(c[name])) for c in results if c["alpha"] == alpha and c["rule"] == rule]


def main() -> None:
    """Run, save, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "averages.json")
    options = parser.parse_args()
    results = []
    for cell in cells(options.seeds):
        print(cell, flush=True)
        results.append(cell)
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps({"version": __version__, "cells": results}, indent=1) + "\n")
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
