"""Local training: what one client does with the global adapter and its own examples in one round."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import final

import numpy as np
import torch
from peft import PeftModel
from torch import nn
from torch.nn import functional

from rbla_secure.config import TrainingConfig
from rbla_secure.config.choices import Factors, Optimizer
from rbla_secure.errors import AdapterError, DataError, PrivacyError
from rbla_secure.lora.adapter import Adapter, AdapterLayout, Rows
from rbla_secure.lora.fold import computing
from rbla_secure.lora.peft_io import attach, freeze_lora_A, read_rows
from rbla_secure.seeding import derive_seed
from rbla_secure.tasks.datasets import LabelledImages


def use_one_thread() -> None:
    """Let torch compute on one thread, in the whole process.

    On models of this size more threads cost more than they bring, and results repeat byte for byte only where the
    number of threads does.
    """
    torch.set_num_threads(1)


# Indices of some examples -> the sum of their losses.
SummedLoss = Callable[[torch.Tensor], torch.Tensor]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """The losses of a client's examples through the network, which a descent minimises.

    Args:
        of: Computes the sum of the losses over some examples.
        made_up: The loss of a blank image, which belongs to nobody, through the same network.
        count: How many examples there are.
    """

    of: SummedLoss
    made_up: Callable[[], torch.Tensor]
    count: int


# (network, optimizer, losses, seed): takes a round's steps and leaves nothing but the trained values.
Descent = Callable[[nn.Module, torch.optim.Optimizer, Losses, int], None]


class LocalTrainer:
    """Trains adapters of any rank on one frozen base. A client runs it; nothing here sees another client.

    Guarantees: :meth:`train` depends on its arguments alone, not on what was trained before or is being trained, and
    leaves torch's global random generator and every bit of the base as they were, also where it raises or diverges.
    Parameters, gradients and the optimizer's state are those of the adapter's own rank, whatever its rest.

    In turns (`turns`): the rows of one rank band after another are trained, each for the whole of the configured epochs
    or batches, while all other rows are folded, the bands below as they were just trained and those above as they
    were sent. Then the rows of a band after training are the same function of (whole adapter, examples, seed) for
    every client that holds the band, whatever its rank, to the bit. Without turns that is so for the first step
    alone: a client of larger rank has then moved rows that others keep frozen, so an adapter can be made that leaves
    low bands without any gradient for low ranks and brings them to life for the largest (:mod:`rbla_secure.lora.fold`).
    What is sent of a band is one function too, since each is clipped and rounded alone (`federation/contribution.py`).
    Cost: as many passes over the examples as the client holds bands.

    Args:
        base: The frozen base model. Copied once for every rank.
        layout: The adapted layers.
        config: Epochs or batches, batch size and optimizer.
        factors: Which factors are trained; a frozen lora_A stays as it is to the bit.
        descent: Takes the steps instead of plain batches, such as with noise on every one of them.
        turns: The ends of the federation's rank bands, increasing; empty trains all rows together.

    Raises:
        PrivacyError: Turns are wanted of steps with noise: each turn would take as many as a round is accounted for.
    """

    def __init__(
        self,
        base: nn.Module,
        layout: AdapterLayout,
        config: TrainingConfig,
        *,
        factors: Factors = Factors.BOTH,
        descent: Descent | None = None,
        turns: Sequence[int] = (),
    ) -> None:
        if descent is not None and turns:
            raise PrivacyError(
                f"turns={tuple(turns)} must be empty with steps that are accounted for by the round"
            )
        self._base = base
        self._layout = layout
        self._config = config
        self._factors = factors
        self._descent = descent
        self._turns = tuple(turns)
        self._models: dict[int, PeftModel] = {}

    def train(self, adapter: Adapter, examples: LabelledImages, *, seed: int) -> Rows:
        """Train an adapter on examples with a fresh optimizer, or in turns with a fresh one for each.

        Args:
            adapter: Where training starts. Its rank is the client's rank; its rest, if any, is part of the function
                and is not trained (:mod:`rbla_secure.lora.fold`).
            examples: The client's own, at least one. A descent of its own may do without: that there are none must not
                show where the number of examples is to be hidden.
            seed: Seed for the order of the examples.

        Returns:
            The rows after training, shape (adapter.rank, row_length), float32. Where training diverged they hold NaN
            or infinity: the caller refuses them. In turns the bands below the one that diverged are as trained, those
            above as they were sent; bands whose values can no longer be folded into a later one count as its divergence.

        Raises:
            DataError: There are no examples to take plain batches of.
            AdapterError: The adapter's rest is too large to be folded.
            PrivacyError: From a descent with noise: the network has no gradients that it could use, with any examples.
        """
        if not len(examples) and self._descent is None:
            raise DataError("a client needs at least one example to train on")
        images, labels = torch.tensor(examples.images), torch.tensor(examples.labels)
        rows = adapter.whole().rows.copy()
        for start, stop in pairwise([0, *(end for end in self._turns if end < adapter.rank), adapter.rank]):
            own, others = rows[start:stop].copy(), np.delete(rows, slice(start, stop), axis=0)
            part = Adapter(layout=self._layout, rows=own, rest=others if len(others) else None)
            of_turn = derive_seed(seed, "turn", start) if start else seed
            try:
                rows[start:stop] = self._trained(part, images, labels, of_turn)
            except AdapterError:
                if not start:
                    raise
                # The first turn has folded all that was sent: it is what this client has trained since that is too large.
                rows[start:stop] = np.nan
            if not np.isfinite(rows[start:stop]).all():
                break
        return rows[: adapter.rank]

    def _trained(self, adapter: Adapter, images: torch.Tensor, labels: torch.Tensor, seed: int) -> Rows:
        with self._model(adapter.rank) as model, computing(model, adapter):
            self._descend(model, images, labels, seed)
            return read_rows(model, self._layout)

    def _descend(self, model: PeftModel, images: torch.Tensor, labels: torch.Tensor, seed: int) -> None:
        if self._descent is None:
            batches = _batches(len(labels), self._config, seed)
            _descend(model, images, labels, batches=batches, config=self._config)
        else:
            self._descend_by(self._descent, model, images, labels, seed)

    def _descend_by(
        self, descent: Descent, model: PeftModel, images: torch.Tensor, labels: torch.Tensor, seed: int
    ) -> None:
        network = model.get_base_model()
        optimizer = _optimizer([value for value in model.parameters() if value.requires_grad], self._config)

        def loss(chosen: torch.Tensor) -> torch.Tensor:
            return functional.cross_entropy(network(images[chosen]), labels[chosen], reduction="sum")

        def made_up() -> torch.Tensor:
            return functional.cross_entropy(
                network(images.new_zeros(1, images.shape[1])), labels.new_zeros(1)
            )

        descent(network, optimizer, Losses(of=loss, made_up=made_up, count=len(labels)), seed)

    @contextmanager
    def _model(self, rank: int) -> Iterator[PeftModel]:
        """Lend the model of a rank to one user at a time: a nested or concurrent call gets another one."""
        model = self._models.pop(rank, None)
        if model is None:
            model = self._attached(rank)
        try:
            yield model
        finally:
            self._models[rank] = model

    def _attached(self, rank: int) -> PeftModel:
        # Evaluation mode, in training too: a frozen base neither drops units nor updates running statistics.
        model = attach(self._base, layout=self._layout, rank=rank).eval()
        if self._factors is Factors.LORA_B:
            freeze_lora_A(model, self._layout)
        return model


def _descend(
    model: PeftModel,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    batches: Iterable[torch.Tensor],
    config: TrainingConfig,
) -> None:
    optimizer = _optimizer([value for value in model.parameters() if value.requires_grad], config)
    network = (
        model.get_base_model()
    )  # the layers with their adapters, without the wrapper's work on each call
    for batch in batches:
        loss = functional.cross_entropy(network(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch declares no types here
        optimizer.step()
    optimizer.zero_grad()  # no gradient outlives the call


def _optimizer(parameters: list[nn.Parameter], config: TrainingConfig) -> torch.optim.Optimizer:
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer is Optimizer.SGD:
        return torch.optim.SGD(parameters, lr=rate, momentum=config.momentum, weight_decay=decay, fused=True)
    return torch.optim.Adam(parameters, lr=rate, weight_decay=decay, fused=True)


def _batches(examples: int, config: TrainingConfig, seed: int) -> Iterator[torch.Tensor]:
    """Yield the indices of one batch after another: each epoch in a fresh order; its last batch may be smaller."""
    generator = torch.Generator().manual_seed(seed)
    per_epoch = -(-examples // config.batch_size)
    left = config.steps or config.epochs * per_epoch
    while left > 0:
        order = torch.randperm(examples, generator=generator)
        yield from torch.split(order, config.batch_size)[:left]
        left -= per_epoch
