"""Gradients of single examples as the steps see them, and a careless party that computes them in batches."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from opacus.grad_sample import GradSampleHooks
from torch import nn

from protocols.primitives.prg import KEY_SIZE, UniformStream
from rbla_secure.privacy import sample_level
from rbla_secure.privacy.sampled_gaussian import SampledGaussian

Loss = Callable[[torch.Tensor], torch.Tensor]
Rows = npt.NDArray[np.float64]


def trained_values(model: nn.Module) -> list[nn.Parameter]:
    """What the optimizer holds."""
    return [value for value in model.parameters() if value.requires_grad]


def in_steps(model: nn.Module, loss: Loss, made_up: Callable[[], torch.Tensor], order: Sequence[int]) -> Rows:
    """Shape (examples, trained values): what `train_privately` computes of these examples in one step, before clipping."""
    seen: list[Rows] = []
    clip = sample_level.clipped_sum

    def watching(gradients: Rows, mechanism: SampledGaussian) -> npt.NDArray[np.int64]:
        seen.append(gradients.copy())
        return clip(gradients, mechanism)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample_level, "clipped_sum", watching)
        patch.setattr(sample_level, "poisson_batch", lambda *_: torch.tensor(order, dtype=torch.int64))
        sample_level.train_privately(
            model,
            torch.optim.SGD(trained_values(model), lr=0.0),
            loss,
            made_up=made_up,
            mechanism=SampledGaussian(noise_multiplier=1.0, clip_norm=1.0, sample_rate=1.0, steps=1),
            batch_size=1.0,
            examples=max(order) + 1,
            stream=UniformStream(bytes(KEY_SIZE)),
        )
    return np.concatenate(seen)


def in_one_batch(model: nn.Module, loss: Loss, order: Sequence[int], *, mixing: bool = False) -> Rows:
    """The careless party: the same by the hooks of Opacus, all examples side by side; in training mode layers may mix them."""
    model.train(mixing)
    for module in model.modules():
        module.training |= any(value.requires_grad for value in module.parameters(recurse=False))
    hooks = GradSampleHooks(model, loss_reduction="sum")
    values = trained_values(model)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
            loss(torch.tensor(order)).backward()
        parts = [value.grad_sample.reshape(len(order), -1) for value in values]  # type: ignore[attr-defined]
        rows: Rows = torch.cat(parts, dim=1).double().numpy()
    finally:
        hooks.cleanup()
        model.eval()
        for value in values:
            value.grad = None
    return rows
