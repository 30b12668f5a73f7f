"""DP-SGD inside a client, on any torch module: Opacus gives the gradients of single examples, this file does the rest.

The only file that imports Opacus (its hooks, without wrapping the model). What has gone wrong silently elsewhere is closed
here, each by a line with a test that fails without it:

* A layer that mixes examples (batch normalisation in training mode, also a frozen one) makes per-example gradients
  wrong: only modules that hold trained values are in training mode, and a trained batch normalisation is refused.
* An empty Poisson batch is a step like any other: noise alone. Nothing is made up to fill it.
* An example whose gradient is not finite counts as zero; otherwise one record would turn all of the model into NaN.
* The sampling rate is used as it is: batches are drawn by it, the sum is divided by rate x examples, not by whole numbers.
* An optimizer or hooks that hold other parameters than the model's (a copy, a moved model) are refused.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from opacus.grad_sample import GradSampleHooks
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from protocols.primitives.prg import UniformStream
from protocols.ring import IntegerVector
from rbla_secure.errors import PrivacyError
from rbla_secure.privacy.discrete_gaussian import discrete_gaussian
from rbla_secure.privacy.sampled_gaussian import UNITS, SampledGaussian

# Indices of some examples -> the sum of their losses; each example's loss may depend on no other example.
SummedLoss = Callable[[torch.Tensor], torch.Tensor]

# Examples at a time. A matrix product may round a row differently in a batch of another size or at another place of it, and
# a pre-activation near zero then flips: the gradient of one example would depend on who stands beside it. So each stands alone.
CHUNK = 1
# A norm computed in float64 may be too small by its last digits; the factor keeps the clipped one below the bound.
_SAFETY = 1 - 2.0**-40
_WORDS = 2.0**32


def train_privately(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: SummedLoss,
    *,
    mechanism: SampledGaussian,
    examples: int,
    stream: UniformStream,
) -> None:
    """Take a round's steps of DP-SGD. Run by the client.

    Args:
        model: Its trained values are those that require gradients. Left in evaluation mode.
        optimizer: Over exactly these values; anything that reads gradients, as post-processing.
        loss: Of the client's own examples.
        mechanism: Clip norm, noise, sampling rate and steps.
        examples: How many the client has; public.
        stream: Of the batches and the noise: from the operating system, or the steps protect nothing.

    Raises:
        PrivacyError: The optimizer does not hold the model's values, a layer mixes examples, or a trained value
            has no gradient of its own for every example.
    """
    values = _trained_values(model, optimizer)
    dimension = sum(value.numel() for value in values)
    with _per_example_gradients(model):
        for _ in range(mechanism.steps):
            summed = np.zeros(dimension, dtype=np.int64)
            for chunk in torch.split(poisson_batch(examples, mechanism.sample_rate, stream), CHUNK):
                if len(chunk):
                    summed += clipped_sum(_gradients(values, loss, chunk), mechanism)
            noisy = summed + discrete_gaussian(mechanism.noise_std(dimension), dimension, stream)
            step = mechanism.unit / (mechanism.sample_rate * examples)
            _set_gradients(values, noisy.astype(np.float64) * step)
            optimizer.step()
            optimizer.zero_grad()


def poisson_batch(examples: int, rate: float, stream: UniformStream) -> torch.Tensor:
    """The indices of one batch: each example with probability `rate` (to 2^-32, never more), on its own."""
    chosen = stream.words(examples) < np.uint64(int(rate * _WORDS))
    return torch.from_numpy(np.flatnonzero(chosen))


def clipped_sum(gradients: npt.NDArray[np.float64], mechanism: SampledGaussian) -> IntegerVector:
    """The sum of clipped and rounded gradients, in units.

    Args:
        gradients: Shape (examples, trained values). Rows that are not finite, or whose squares overflow, count as zero.
            Overwritten.
        mechanism: Clip norm and unit.

    Returns:
        Shape (trained values,). One example's part has an L2 norm of at most ``mechanism.sensitivity``.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", gradients, gradients))
    gradients[~np.isfinite(norms)] = 0.0
    longer = norms > mechanism.clip_norm
    factors = np.where(longer, UNITS / np.where(longer, norms, 1.0), UNITS / mechanism.clip_norm) * _SAFETY
    gradients *= factors[:, None]
    # Sums of so many integers below 2^53 are exact in float64.
    summed: IntegerVector = np.rint(gradients, out=gradients).sum(axis=0).astype(np.int64)
    return summed


def _trained_values(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    values = [value for value in model.parameters() if value.requires_grad]
    held = {id(value) for group in optimizer.param_groups for value in group["params"]}
    if not values or held != {id(value) for value in values}:
        raise PrivacyError(
            "the optimizer must hold exactly the model's trained values: make it after the model has been moved or copied"
        )
    return values


@contextmanager
def _per_example_gradients(model: nn.Module) -> Iterator[None]:
    """Opacus's hooks for a while, with only those modules in training mode that hold trained values."""
    _let_no_layer_mix_examples(model)
    try:
        hooks = GradSampleHooks(model, loss_reduction="sum")
    except (NotImplementedError, ValueError) as error:
        raise PrivacyError(f"the model has no gradients of single examples: {error}") from None
    try:
        yield
    finally:
        hooks.cleanup()
        model.eval()


def _let_no_layer_mix_examples(model: nn.Module) -> None:
    model.eval()
    for name, module in model.named_modules():
        if not any(value.requires_grad for value in module.parameters(recurse=False)):
            continue
        if isinstance(module, _BatchNorm):
            raise PrivacyError(
                f"{name} is a trained batch normalisation, which mixes examples: freeze or replace it"
            )
        module.training = True


def _gradients(
    values: Sequence[nn.Parameter], loss: SummedLoss, chunk: torch.Tensor
) -> npt.NDArray[np.float64]:
    """Shape (examples of the chunk, trained values)."""
    try:
        with warnings.catch_warnings():
            # The first layer's input needs no gradient, and its hook is told so on every call.
            warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
            loss(chunk).backward()  # type: ignore[no-untyped-call]  # torch declares no types here
        rows = np.empty((len(chunk), sum(value.numel() for value in values)))
        at = 0
        for value in values:
            rows[:, at : at + value.numel()] = _own_gradient(value, len(chunk))
            at += value.numel()
    except (RuntimeError, TypeError, ValueError) as error:
        raise PrivacyError(f"the model has no gradients of single examples: {error}") from None
    finally:
        for value in values:
            _forget(value)
    return rows


def _own_gradient(value: Any, examples: int) -> npt.NDArray[np.float32]:
    gradient = getattr(value, "grad_sample", None)
    if not isinstance(gradient, torch.Tensor) or len(gradient) != examples:
        raise PrivacyError(
            "a trained value has no gradient of its own for every example: its layer was not used, or is of a kind "
            "that Opacus does not know"
        )
    rows: npt.NDArray[np.float32] = gradient.reshape(examples, -1).float().numpy()
    return rows


def _forget(value: Any) -> None:
    value.grad_sample = None
    value.grad = None


def _set_gradients(values: Sequence[nn.Parameter], flat: npt.NDArray[np.float64]) -> None:
    ends = np.cumsum([value.numel() for value in values])
    for value, part in zip(values, np.split(flat, ends[:-1]), strict=True):
        value.grad = torch.from_numpy(part).to(value.dtype).reshape(value.shape)
