"""Time and memory of the robust rules: one process per rule, so that each has a peak of its own.

    OPENBLAS_NUM_THREADS=1 python benchmarks/robust_rules_memory.py [--clients 100] [--length 1000000]

One BLAS thread: on a busy machine two made the Gram matrix of 100 clients many times slower. Printed are the wall-clock
seconds, the processor seconds, and the peak resident memory of the whole process, interpreter and input included. Rules
on distances take longer on rows that nearly coincide: each such pair is computed anew, about 3 ms per million values.
"""

import argparse
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np

from rbla_secure.robustness.rules.clipping import centered_clipping, norm_bound
from rbla_secure.robustness.rules.coordinatewise import coordinate_median, trimmed_mean
from rbla_secure.robustness.rules.directional import fltrust
from rbla_secure.robustness.rules.geometric import geometric_median
from rbla_secure.robustness.rules.krum import multi_krum
from rbla_secure.robustness.rules.matrix import mean
from rbla_secure.robustness.rules.mixing import bucketing, nearest_neighbor_mixing
from rbla_secure.robustness.rules.spectral import divide_and_conquer

Array = Any
RULES: dict[str, Callable[[Array, int], Array]] = {
    "mean": lambda x, _: mean(x),
    "median": lambda x, _: coordinate_median(x),
    "trimmed-mean": lambda x, f: trimmed_mean(x, f=f),
    "multi-krum": lambda x, f: multi_krum(x, f=f),
    "geometric-median": lambda x, _: geometric_median(x),
    "centered-clipping": lambda x, _: centered_clipping(x, center=np.zeros(x.shape[1]), radius=1.0),
    "norm-bound": lambda x, _: norm_bound(x, bound=1.0),
    "dnc": lambda x, f: divide_and_conquer(x, f=f, generator=np.random.default_rng(1)),
    "fltrust": lambda x, _: fltrust(x, reference=np.ones(x.shape[1])),
    "neighbor-mixing": lambda x, f: nearest_neighbor_mixing(x, f=f),
    "bucketing": lambda x, _: bucketing(x, s=2, order=np.random.default_rng(1).permutation(len(x))),
}


def measure(name: str, clients: int, length: int) -> tuple[float, float, float]:
    """Wall-clock seconds, processor seconds, and peak GiB of one rule against a fifth of the clients."""
    x = np.random.default_rng(1).standard_normal(size=(clients, length), dtype=np.float32)
    wall, processor = time.perf_counter(), time.process_time()
    RULES[name](x, clients // 5)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return wall, processor, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """One line per rule."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--length", type=int, default=1_000_000)
    arguments = parser.parse_args()
    print(f"n={arguments.clients}, d={arguments.length}, float32\n{'rule':18} wall s   cpu s   peak GiB")
    for name in RULES:
        with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
            wall, processor, peak = pool.submit(measure, name, arguments.clients, arguments.length).result()
        print(f"{name:18} {wall:6.2f} {processor:7.2f} {peak:10.2f}")


if __name__ == "__main__":
    main()
