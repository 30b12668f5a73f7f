"""Uses of the server's public examples: a reference to compare updates with, and tests of the model after a step."""

from collections.abc import Mapping
from functools import cached_property
from typing import final

import numpy as np
from torch import nn

from rbla_secure.config import Config
from rbla_secure.lora.adapter import Adapter, AdapterLayout, Rows
from rbla_secure.seeding import derive_seed
from rbla_secure.tasks.datasets import LabelledImages
from rbla_secure.tasks.scoring import Scorer
from rbla_secure.tasks.training import LocalTrainer
from rbla_secure.tasks.triggers import corner_patches, most_drawn_to, stamp


@final
class PublicExamples:
    """Public examples, and the base that they are evaluated on. Nothing is trained or scored before it is asked for.

    Args:
        config: Configuration of the run.
        base: Frozen base model.
        layout: Its adapted layers.
        examples: The public ones, at least one.
    """

    def __init__(
        self, config: Config, base: nn.Module, layout: AdapterLayout, examples: LabelledImages
    ) -> None:
        self._config = config
        self._base = base
        self._layout = layout
        self._examples = examples

    def reference(self, adapter: Adapter, round_number: int) -> Rows:
        """Train on some of the examples, upright as the clients' are: what fl-trust compares updates with.

        Returns:
            Rows after training, shape (adapter.rank, row_length), float32.
        """
        seed = derive_seed(self._config.seed, "reference", round_number)
        return self._trainer.train(adapter, self._root, seed=seed)

    def accuracy(self, adapter: Adapter) -> float:
        """Measure the accuracy of an adapter, in [0, 1]."""
        return self._scorer.score(adapter).accuracy

    def triggers(self, adapter: Adapter) -> Mapping[str, float]:
        """Measure how often each known trigger works on an adapter: the share of stamped examples drawn to one class."""
        return {
            name: most_drawn_to(scorer.predict(adapter), self._examples.labels)
            for name, scorer in self._stamped.items()
        }

    @cached_property
    def _trainer(self) -> LocalTrainer:
        return LocalTrainer(
            self._base, self._layout, self._config.training, factors=self._config.lora.factors
        )

    @cached_property
    def _root(self) -> LabelledImages:
        count = min(len(self._examples), self._config.robustness.root_examples)
        return self._examples.take(np.arange(count))

    @cached_property
    def _scorer(self) -> Scorer:
        return Scorer(self._base, self._layout, self._examples)

    @cached_property
    def _stamped(self) -> Mapping[str, Scorer]:
        """Scorers of the stamped examples, by name of the trigger."""
        images, labels = self._examples.images, self._examples.labels
        stamped = {
            name: LabelledImages(images=stamp(images, trigger), labels=labels)
            for name, trigger in corner_patches().items()
        }
        return {name: Scorer(self._base, self._layout, examples) for name, examples in stamped.items()}
