"""What it costs to compute every example alone: a step of sample level against one that computes the batch at once.

    python benchmarks/single_example_cost.py [--examples 64] [--repeats 20]

The default task's model with adapters of ranks 1, 4 and 16, on one thread. "At once" are the hooks of Opacus over the whole batch,
which is not private: there one example changes the rounding of others (docs/privacy-analysis.md). Both end in the same
clipping. Printed is the median time of a batch either way, and their ratio, taken alternately in one run.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from opacus.grad_sample import GradSampleHooks
from torch import nn
from torch.nn import functional

from protocols.primitives.prg import KEY_SIZE, UniformStream
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.peft_io import attach, find_linear, write_rows
from rbla_secure.privacy.sample_level import clipped_sum, train_privately
from rbla_secure.privacy.sampled_gaussian import SampledGaussian
from rbla_secure.tasks.base_model import build_mlp
from rbla_secure.tasks.datasets import CLASSES, PIXELS
from rbla_secure.tasks.training import use_one_thread

Work = Callable[[], None]


def at_once(network: nn.Module, loss: Callable[[torch.Tensor], torch.Tensor], count: int) -> Work:
    """One batch by per-example hooks, clipped and summed."""
    mechanism = SampledGaussian(noise_multiplier=1.0, clip_norm=1.0, sample_rate=1.0, steps=1)
    values = [value for value in network.parameters() if value.requires_grad]

    def work() -> None:
        loss(torch.arange(count)).backward()  # type: ignore[no-untyped-call]
        rows = torch.cat([value.grad_sample.reshape(count, -1) for value in values], dim=1)  # type: ignore[attr-defined]
        clipped_sum(rows.double().numpy(), mechanism)
        for value in values:
            value.grad = value.grad_sample = None  # type: ignore[attr-defined]

    return work


def one_by_one(
    network: nn.Module, loss: Callable[[torch.Tensor], torch.Tensor], count: int, steps: int
) -> Work:
    """So many steps as clients take them, noise included."""
    mechanism = SampledGaussian(noise_multiplier=1.0, clip_norm=1.0, sample_rate=1.0, steps=steps)
    values = [value for value in network.parameters() if value.requires_grad]

    def work() -> None:
        train_privately(
            network,
            torch.optim.SGD(values, lr=0.0),
            loss,
            made_up=lambda: network(torch.zeros(1, PIXELS)).square().sum(),
            mechanism=mechanism,
            batch_size=1.0,
            examples=count,
            stream=UniformStream(bytes(KEY_SIZE)),
        )

    return work


def seconds(work: Work) -> float:
    """Of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure(rank: int, count: int, repeats: int) -> tuple[float, float, float]:
    """Median seconds of a batch at once, of a batch one by one, and of one by one without an example (noise and checks)."""
    base = build_mlp(seed=3).requires_grad_(False).eval()
    layout = find_linear(base, scaling=2.0)
    model = attach(base, layout=layout, rank=rank).eval()
    rows = 0.05 * np.random.default_rng(0).standard_normal((rank, layout.row_length))
    write_rows(model, Adapter(layout=layout, rows=rows.astype(np.float32)))
    network = model.get_base_model()
    images, labels = torch.rand(count, PIXELS), torch.randint(CLASSES, (count,))

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(network(images[chosen]), labels[chosen], reduction="sum")

    alone, empty = one_by_one(network, loss, count, 1), one_by_one(network, loss, 0, 1)
    batch: list[float] = []
    singles: list[float] = []
    nobody: list[float] = []
    together = at_once(network, loss, count)
    for _ in range(repeats):
        network.train()
        hooks = GradSampleHooks(network, loss_reduction="sum")
        together()
        batch.append(seconds(together))
        hooks.cleanup()
        singles.append(seconds(alone))
        nobody.append(seconds(empty))
    return statistics.median(batch), statistics.median(singles), statistics.median(nobody)


def main() -> None:
    """Print a line for each rank."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    use_one_thread()
    warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
    print("| rank | at once, ms | one by one, ms | ratio | of it noise, ms |\n|---|---|---|---|---|")
    for rank in (1, 4, 16):
        batch, singles, nobody = measure(rank, options.examples, options.repeats)
        ratio = (singles - nobody) / batch
        print(
            f"| {rank} | {1e3 * batch:.1f} | {1e3 * (singles - nobody):.1f} | {ratio:.1f} | {1e3 * nobody:.1f} |"
        )


if __name__ == "__main__":
    main()
