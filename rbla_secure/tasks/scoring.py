"""Evaluation of an adapter on examples that no client has."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from peft import PeftModel
from torch import nn
from torch.nn import functional

from rbla_secure.errors import DataError
from rbla_secure.lora.adapter import Adapter, AdapterLayout
from rbla_secure.lora.peft_io import attach, write_rows
from rbla_secure.tasks.datasets import LabelledImages


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The result of one evaluation.

    Args:
        accuracy: Share of examples whose largest logit is that of their class, in [0, 1].
        loss: Mean cross-entropy in nats; infinite or NaN where the logits overflow.
    """

    accuracy: float
    loss: float


class Scorer:
    """Scores adapters of any rank on one set of examples. Used by the evaluation, never by a client.

    Args:
        base: The frozen base model. Copied once for every rank.
        layout: The adapted layers.
        examples: At least one.

    Raises:
        DataError: There are no examples.
    """

    def __init__(self, base: nn.Module, layout: AdapterLayout, examples: LabelledImages) -> None:
        if not len(examples):
            raise DataError("a score needs at least one held-out example")
        self._base = base
        self._layout = layout
        self._images, self._labels = torch.tensor(examples.images), torch.tensor(examples.labels)
        self._models: dict[int, PeftModel] = {}

    def score(self, adapter: Adapter | None) -> Score:
        """Score the base with an adapter, or the bare base where `adapter` is None."""
        network = self._base if adapter is None else self._adapted(adapter)
        with torch.inference_mode():
            logits = network(self._images)
            loss = functional.cross_entropy(logits, self._labels)
            accuracy = (logits.argmax(dim=1) == self._labels).double().mean()
        return Score(accuracy=accuracy.item(), loss=loss.item())

    def predict(self, adapter: Adapter | None) -> npt.NDArray[np.int64]:
        """The class of the largest logit of every example, shape (n,)."""
        network = self._base if adapter is None else self._adapted(adapter)
        with torch.inference_mode():
            classes: npt.NDArray[np.int64] = network(self._images).argmax(dim=1).numpy()
        return classes

    def _adapted(self, adapter: Adapter) -> nn.Module:
        if adapter.rank not in self._models:
            self._models[adapter.rank] = attach(self._base, layout=self._layout, rank=adapter.rank).eval()
        model = self._models[adapter.rank]
        write_rows(model, adapter)
        return model.get_base_model()
