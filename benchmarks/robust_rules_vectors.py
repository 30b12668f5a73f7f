"""Writes tests/vectors/robust_rules.json: what other people's robust rules return on random matrices.

    python -m venv oracles
    oracles/bin/pip install --no-deps byzfl==0.0.11 byzpy==0.1.4 cloudpickle
    oracles/bin/pip install numpy scipy torch 'flwr>=1.41,<1.42'
    oracles/bin/python benchmarks/robust_rules_vectors.py

An environment of its own, as these packages pin old versions of numpy and torch; without `--no-deps` byzfl pulls
several gigabytes. What to know about the peers, each found by comparing them with the formulas of the papers:

- byzfl's package imports its benchmark, which needs torchvision: an empty module stands in for it. Its clipping rules
  overwrite their input, and CenteredClipping keeps state between calls: every call gets a copy and a fresh object.
- byzfl and byzpy take n - f - 1 neighbors in Krum, and byzfl keeps m = n - f in Multi-Krum; flwr takes the paper's
  n - f - 2.
- byzpy's median is torch's lower one: no oracle for an even n, so it is not asked.
- byzfl's geometric median starts at zero; byzpy's starts at the median and runs until it stands still.
"""

import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

sys.modules["byzfl.benchmark"] = ModuleType("byzfl.benchmark")

import byzfl  # noqa: E402  its benchmark must be replaced before
import torch  # noqa: E402
from byzpy.aggregators.coordinate_wise.trimmed_mean import CoordinateWiseTrimmedMean  # noqa: E402
from byzpy.aggregators.geometric_wise.geometric_median import GeometricMedian  # noqa: E402
from byzpy.aggregators.geometric_wise.krum import Krum, MultiKrum  # noqa: E402
from byzpy.aggregators.norm_wise.center_clipping import CenteredClipping  # noqa: E402
from byzpy.pre_aggregators.nnm import NearestNeighborMixing  # noqa: E402
from flwr.server.strategy.aggregate import aggregate_krum, aggregate_median, aggregate_trimmed_avg  # noqa: E402

TARGET = Path(__file__).parent.parent / "tests" / "vectors" / "robust_rules.json"
SEED = 20240819
CASES = 40
DIGITS = 4  # of the inputs: exact in JSON, and generic enough that no distances tie

Array = Any
Peer = tuple[str, str, Callable[[Array, int], Array]]


def flower(x: Array) -> list[tuple[list[Array], int]]:
    """One layer per client, each from one example; a new list per call, as some of flwr's rules pop from it."""
    return [([row.copy()], 1) for row in x]


def tensors(x: Array) -> list[Any]:
    """What byzpy's default backend takes."""
    return list(torch.from_numpy(x.copy()))


def mixed_by_byzpy(x: Array, f: int) -> Array:
    """Rows of byzpy's mixing."""
    return torch.stack(NearestNeighborMixing(f).pre_aggregate(tensors(x)))


def peers() -> Iterator[Peer]:
    """Peer, rule, and how to ask it for n rows and f."""
    yield "byzfl", "median", lambda x, _: byzfl.Median()(x)
    yield "flwr", "median", lambda x, _: aggregate_median(flower(x))[0]
    yield "byzfl", "trimmed-mean", lambda x, f: byzfl.TrMean(f)(x)
    yield "byzpy", "trimmed-mean", lambda x, f: CoordinateWiseTrimmedMean(f).aggregate(tensors(x))
    yield "flwr", "trimmed-mean", lambda x, f: aggregate_trimmed_avg(flower(x), (f + 0.5) / len(x))[0]
    yield "byzfl", "krum", lambda x, f: byzfl.Krum(f)(x)
    yield "byzpy", "krum", lambda x, f: Krum(f).aggregate(tensors(x))
    yield "flwr", "krum", lambda x, f: aggregate_krum(flower(x), f, 0)[0]
    yield "byzfl", "multi-krum", lambda x, f: byzfl.MultiKrum(f)(x)
    yield "byzpy", "multi-krum", lambda x, f: MultiKrum(f, len(x) - f).aggregate(tensors(x))
    yield "flwr", "multi-krum", lambda x, f: aggregate_krum(flower(x), f, len(x) - f)[0]
    yield "byzfl", "geometric-median", lambda x, _: byzfl.GeometricMedian(nu=0.1, T=3)(x)
    yield (
        "byzpy",
        "geometric-median",
        lambda x, _: GeometricMedian(tol=1e-13, max_iter=5000).aggregate(tensors(x)),
    )
    yield "byzfl", "centered-clipping", lambda x, _: byzfl.CenteredClipping(L=3, tau=1.5)(x)
    yield (
        "byzpy",
        "centered-clipping",
        lambda x, _: CenteredClipping(c_tau=1.5, M=3, init="zero").aggregate(tensors(x)),
    )
    yield "byzfl", "nearest-neighbor-mixing", lambda x, f: byzfl.NNM(f)(x)
    yield "byzpy", "nearest-neighbor-mixing", mixed_by_byzpy


def inputs() -> list[dict[str, Any]]:
    """Random matrices with f rows moved away; half of them spread unequally over the coordinates."""
    generator = np.random.default_rng(SEED)
    found = []
    for case in range(CASES):
        f = int(generator.integers(0, 4))
        n, d = 2 * f + 3 + int(generator.integers(0, 3)), int(generator.integers(2, 6))
        x = generator.normal(size=(n, d)) * (generator.lognormal(size=d) if case % 2 else 1.0)
        x[generator.choice(n, size=f, replace=False)] += generator.normal(scale=4.0, size=(f, d))
        found.append({"f": f, "x": np.round(x, DIGITS).tolist()})
    return found


def main() -> None:
    """Ask every peer about every matrix."""
    cases = inputs()
    answers = [
        {
            "peer": peer,
            "version": version(peer),
            "rule": rule,
            # 13 digits: far below the tolerance of the comparison, and a smaller file.
            "results": [
                json.loads(
                    json.dumps(np.asarray(ask(np.array(c["x"]), c["f"])).tolist()), parse_float=rounded
                )
                for c in cases
            ],
        }
        for peer, rule, ask in peers()
    ]
    # One answer per line: readable differences, and no indentation of single numbers.
    lines = ",\n".join(json.dumps(answer, separators=(",", ":")) for answer in answers)
    TARGET.write_text(
        f'{{"seed":{SEED},\n"cases":{json.dumps(cases, separators=(",", ":"))},\n"answers":[\n{lines}\n]}}\n'
    )


def rounded(text: str) -> float:
    """A number to 13 significant digits."""
    return float(f"{float(text):.13g}")


if __name__ == "__main__":
    main()
