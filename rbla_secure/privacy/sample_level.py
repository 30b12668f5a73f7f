"""DP-SGD inside a client, on any torch module: one backward pass for each example, clipping, noise, a step.

Examples of one client are neighbours in one machine's floating-point arithmetic. What has gone wrong silently elsewhere is
closed here, each by a line with a test that fails without it:

* A matrix product rounds a row differently in a batch of another size or at another place of it, and a pre-activation near
  zero then flips: the presence of one example changes the gradients of others by more than any noise is scaled for. So each
  example is computed in a batch of its own, and its gradient has the same bits whoever else is there. Nothing can mix
  examples either (batch normalisation, padding), and whatever has an ordinary backward pass can be trained.
* The whole model is in evaluation mode, and torch's random numbers begin anew for every example. After each one whatever can be
  reached from the model is put back as it was (`kept_model.py`): modules, containers, and tensors with their content, memory, graph
  and hooks, but for the content of frozen values (observers of quantization, look-ups that renormalize, running maxima). A model that computes a made-up example differently the second time keeps a state elsewhere, and is refused; so are tables
  that a look-up renormalizes (`max_norm`), trained or not.
* The divisor of a step is public. Noise of integers divided by a client's own count lies on a grid that tells the count.
* An empty Poisson batch is a step like any other: noise alone. Nothing is made up to fill it.
* An example whose gradient is not finite counts as zero; otherwise one record would turn all of the model into NaN. So does
  one whose loss or gradient cannot be computed: an error that leaves the client tells that the record is there. What is
  wrong with the model itself shows on the made-up example, before any data is looked at.
* The sampling rate is used as it is: batches are drawn by it, not by whole numbers.
* An optimizer that holds other parameters than the model's (a copy, a moved model) is refused.

Not covered: how long training takes, which grows with the batches; and the few things that `kept_model.py` names as not put back,
which a made-up example does not show. None of the product's models does any of them.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from protocols.primitives.prg import UniformStream
from protocols.ring import IntegerVector
from rbla_secure.errors import PrivacyError
from rbla_secure.privacy.discrete_gaussian import discrete_gaussian
from rbla_secure.privacy.kept_model import KeptModel
from rbla_secure.privacy.sampled_gaussian import UNITS, SampledGaussian

_LOG = logging.getLogger(__name__)

# Indices of some examples -> the sum of their losses. It is asked for one at a time, and must copy it out of its data: views
# of another place in memory may be rounded differently.
SummedLoss = Callable[[torch.Tensor], torch.Tensor]
# -> the loss of an example that is nobody's, through the same model.
MadeUpLoss = Callable[[], torch.Tensor]

# A norm computed in float64 may be too small by its last digits; the factor keeps the clipped one below the bound.
_SAFETY = 1 - 2.0**-40
_WORDS = 2.0**32


def train_privately(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: SummedLoss,
    *,
    made_up: MadeUpLoss,
    mechanism: SampledGaussian,
    batch_size: float,
    examples: int,
    stream: UniformStream,
) -> None:
    """Take a round's steps of DP-SGD. Run by the client.

    Whether it raises depends on the model and the made-up example alone, but for the two cases named in `kept_model.py`. Examples
    that cannot be computed are counted in the client's own log and nowhere else.

    Args:
        model: On the CPU. Its trained values are those that require gradients. Left in evaluation mode.
        optimizer: Over exactly these values; anything that reads gradients, as post-processing.
        loss: Computes the summed loss over some of the client's own examples.
        made_up: A public loss, for finding out whether the model can be trained.
        mechanism: Clip norm, noise, sampling rate and steps.
        batch_size: What a step's noisy sum is divided by; public, so never taken from the data.
        examples: How many the client has, 0 or more; does not leave here.
        stream: Randomness of the batches and the noise: from the operating system, or the steps protect nothing.

    Raises:
        PrivacyError: The batch size is not a number above 0, the optimizer does not hold the model's values, a trained value
            has no gradient, the model computes the made-up example differently the second time, or it cannot be put back after
            an example.
    """
    if not 0 < batch_size < np.inf:
        raise PrivacyError(f"batch_size={batch_size} must be above 0 and finite")
    values = _trained_values(model, optimizer)
    dimension = sum(value.numel() for value in values)
    model.eval()
    with _fresh_draws() as fresh:
        _check_putting_back(model, values)
        kept = KeptModel(model, values)
        _check_made_up(values, made_up, fresh)
        # Whether this works must not depend on an example: it is tried before one is looked at.
        kept.put_back()
        gradients = _OwnGradients(values, loss, fresh)
        for _ in range(mechanism.steps):
            gradients.keep(KeptModel(model, values))
            summed = np.zeros(dimension, dtype=np.int64)
            for example in poisson_batch(examples, mechanism.sample_rate, stream)[:, None]:
                summed += clipped_sum(gradients.of(example), mechanism)
            noisy = summed + discrete_gaussian(mechanism.noise_std(dimension), dimension, stream)
            _set_gradients(values, noisy.astype(np.float64) * (mechanism.unit / batch_size))
            optimizer.step()
            _forget(values)
    gradients.log_failures()


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
        Shape (trained values,). One example's part has an L2 norm of at most ``mechanism.sensitivity``, and is the same
        whatever the other rows are.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", gradients, gradients))
    gradients[~np.isfinite(norms)] = 0.0
    longer = norms > mechanism.clip_norm
    factors = np.where(longer, UNITS / np.where(longer, norms, 1.0), UNITS / mechanism.clip_norm) * _SAFETY
    gradients *= factors[:, None]
    # Sums of so many integers below 2^53 are exact in float64, in any order.
    summed: IntegerVector = np.rint(gradients, out=gradients).sum(axis=0).astype(np.int64)
    return summed


@final
class _OwnGradients:
    """Gradients of single examples, each computed alone; counts those that failed."""

    def __init__(self, values: Sequence[nn.Parameter], loss: SummedLoss, fresh: Callable[[], None]) -> None:
        self._values = values
        self._loss = loss
        self._fresh = fresh
        self._failures: list[str] = []
        self._kept: KeptModel | None = None

    def keep(self, kept: KeptModel) -> None:
        """Set the state that is restored after every example from now on."""
        self._kept = kept

    def of(self, example: torch.Tensor) -> npt.NDArray[np.float64]:
        """Shape (1, trained values); zeros where the gradient cannot be computed."""
        try:
            self._fresh()
            return _flat(self._values, _backward(self._values, self._loss(example)))[None]
        except (Exception, SystemExit, GeneratorExit) as error:  # noqa: BLE001  # it is about the example: nobody else may see it
            self._failures.append(_said_of(error))
            return np.zeros((1, sum(value.numel() for value in self._values)))
        finally:
            _forget(self._values)
            if self._kept is not None:
                self._kept.put_back()

    def log_failures(self) -> None:
        """Log the failures for the client, who owns the data."""
        if self._failures:
            _LOG.warning(
                "the gradients of %d drawn examples could not be computed and counted as zero; the first: %s",
                len(self._failures),
                self._failures[0],
            )


def _trained_values(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    values = [value for value in model.parameters() if value.requires_grad]
    held = {id(value) for group in optimizer.param_groups for value in group["params"]}
    for module in model.modules():
        if getattr(module, "max_norm", None) is not None:
            raise PrivacyError(
                f"{type(module).__name__} renormalizes its table at every look-up (max_norm={module.max_norm}), which leaves without "
                "noise: set it to None"
            )
    if not values or held != {id(value) for value in values}:
        raise PrivacyError(
            "the optimizer must hold exactly the model's trained values: make it after the model has been moved or copied"
        )
    _forget(values)
    return values


@contextmanager
def _fresh_draws() -> Iterator[Callable[[], None]]:
    """A function that lets torch's global random generator begin anew; afterwards the generator is as it was."""
    state = torch.get_rng_state()
    try:
        yield lambda: torch.set_rng_state(state)
    finally:
        torch.set_rng_state(state)


def _said_of(error: BaseException) -> str:
    """Describe an error in words; its own description may fail too."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001
        return type(error).__name__


def _check_putting_back(model: nn.Module, values: Sequence[nn.Parameter]) -> None:
    """Refuse a model that could not be put back after an example (scripted modules, tensors that have no memory of their own)."""
    try:
        KeptModel(model, values).put_back()
    except PrivacyError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever torch raises, it is said in one way
        raise PrivacyError(
            f"the model cannot be put back as it was after an example ({_said_of(error)}): its tensors must lie in "
            "the CPU's memory, dense or of the layout sparse_coo"
        ) from None


def _check_made_up(values: Sequence[nn.Parameter], made_up: MadeUpLoss, fresh: Callable[[], None]) -> None:
    """Refuse a model that could not be trained on any example, without looking at one."""
    seen = []
    for _ in range(2):
        fresh()
        try:
            found = _backward(values, made_up())
            seen.append(_flat(values, found).tobytes())
        except Exception as error:  # noqa: BLE001  # whatever torch raises, it is said in one way
            raise PrivacyError(
                f"the model gives no gradient of a single example: {_said_of(error)}"
            ) from None
        finally:
            _forget(values)
        if any(gradient is None for gradient in found):
            raise PrivacyError(
                "a trained value has no gradient of its own for an example: its layer was not used; freeze it"
            )
    if seen[0] != seen[1]:
        raise PrivacyError(
            "the model computes one example differently the second time: a layer keeps state or draws numbers that are not "
            "torch's, and examples would share them; replace it"
        )


def _backward(values: Sequence[nn.Parameter], loss: torch.Tensor) -> list[torch.Tensor | None]:
    loss.backward()  # type: ignore[no-untyped-call]  # torch declares no types here
    return [value.grad for value in values]


def _flat(
    values: Sequence[nn.Parameter], gradients: Sequence[torch.Tensor | None]
) -> npt.NDArray[np.float64]:
    """Shape (trained values,); zeros for a value that an example does not use."""
    parts = [
        (value.detach().new_zeros(value.numel()) if gradient is None else gradient.reshape(-1)).double()
        for value, gradient in zip(values, gradients, strict=True)
    ]
    flat: npt.NDArray[np.float64] = torch.cat(parts).numpy()
    return flat


def _forget(values: Sequence[nn.Parameter]) -> None:
    for value in values:
        value.grad = None


def _set_gradients(values: Sequence[nn.Parameter], flat: npt.NDArray[np.float64]) -> None:
    ends = np.cumsum([value.numel() for value in values])
    for value, part in zip(values, np.split(flat, ends[:-1]), strict=True):
        value.grad = torch.from_numpy(part).to(value.dtype).reshape(value.shape)
