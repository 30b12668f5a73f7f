"""A score is the accuracy and the cross-entropy of base plus adapter."""

import math

import numpy as np
import pytest
import torch

from rbla_secure.errors import DataError
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.peft_io import find_linear
from rbla_secure.tasks.base_model import build_mlp
from rbla_secure.tasks.datasets import LabelledImages
from rbla_secure.tasks.scoring import Scorer
from rbla_secure.tasks.training import use_one_thread

use_one_thread()

BASE = build_mlp(seed=0).requires_grad_(False).eval()
LAYOUT = find_linear(BASE, scaling=2.0)


def examples(count: int = 40) -> LabelledImages:
    generator = np.random.default_rng(0)
    images = generator.random((count, 784), dtype=np.float32)
    return LabelledImages(images=images, labels=generator.integers(0, 10, size=count))


def random_adapter(rank: int, *, scale: float = 0.1) -> Adapter:
    rows = np.random.default_rng(rank).normal(size=(rank, LAYOUT.row_length), scale=scale)
    return Adapter(layout=LAYOUT, rows=rows.astype(np.float32))


def logits_of(adapter: Adapter, images: np.ndarray) -> np.ndarray:
    """The model's formula in numpy float64."""
    values = images.astype(np.float64)
    for layer in LAYOUT.layers:
        module = BASE.get_submodule(layer.name)
        weight = module.weight.numpy() + 2.0 * adapter.lora_B(layer.name) @ adapter.lora_A(layer.name)
        values = values @ weight.T + module.bias.numpy()
        if layer.name != "head":
            values = np.maximum(values, 0)
    return values


@pytest.mark.parametrize("rank", [1, 5])
def test_score_is_accuracy_and_cross_entropy(rank: int) -> None:
    """Both agree with the formula computed without torch."""
    data, adapter = examples(), random_adapter(rank)
    logits = logits_of(adapter, data.images)
    peak = logits.max(axis=1)
    losses = np.log(np.exp(logits - peak[:, None]).sum(axis=1)) + peak - logits[np.arange(40), data.labels]

    score = Scorer(BASE, LAYOUT, data).score(adapter)

    assert score.accuracy == np.mean(logits.argmax(axis=1) == data.labels)
    assert score.loss == pytest.approx(losses.mean(), rel=1e-4)


def test_an_untrained_adapter_scores_like_the_bare_base() -> None:
    """With B zero the adapter changes nothing; None is the base itself."""
    scorer = Scorer(BASE, LAYOUT, examples())

    assert scorer.score(Adapter.initial(LAYOUT, rank=3, seed=0)) == scorer.score(None)


def test_scores_do_not_depend_on_what_was_scored_before() -> None:
    """Adapters of several ranks in any order, with the same result each time."""
    scorer = Scorer(BASE, LAYOUT, examples())
    adapters = [None, random_adapter(2), random_adapter(5), random_adapter(2, scale=0.3)]

    forth = [scorer.score(adapter) for adapter in adapters]
    back = [scorer.score(adapter) for adapter in reversed(adapters)]

    assert forth == back[::-1]
    assert len(set(forth)) == 4


def test_overflowing_logits_give_a_score_and_no_error() -> None:
    """An adapter of huge but finite values is scored as the failure it is."""
    score = Scorer(BASE, LAYOUT, examples()).score(random_adapter(2, scale=1e20))

    assert 0 <= score.accuracy <= 1
    assert not math.isfinite(score.loss)


def test_scoring_leaves_the_global_generator_alone() -> None:
    """Evaluation draws nothing."""
    before = torch.get_rng_state()

    Scorer(BASE, LAYOUT, examples()).score(random_adapter(2))

    assert torch.equal(torch.get_rng_state(), before)


def test_no_examples_are_refused() -> None:
    """A mean over nothing is no score."""
    with pytest.raises(DataError, match="at least one held-out example"):
        Scorer(BASE, LAYOUT, examples(0))
