"""Public examples: the reference follows from seed and round, and the tests measure what they say."""

import numpy as np
import pytest

from rbla_secure.config import Config, load_config
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.peft_io import find_linear
from rbla_secure.tasks import public_examples
from rbla_secure.tasks.base_model import build_mlp
from rbla_secure.tasks.datasets import LabelledImages
from rbla_secure.tasks.public_examples import PublicExamples
from rbla_secure.tasks.scoring import Scorer
from rbla_secure.tasks.triggers import corner_patches, most_drawn_to, stamp

BASE = build_mlp(seed=1).requires_grad_(False).eval()
LAYOUT = find_linear(BASE, scaling=2.0)
START = Adapter.initial(LAYOUT, rank=2, seed=0)
COUNT = 24


def config(*settings: str) -> Config:
    return load_config(None, ["robustness.root-examples=16", *settings])


def examples(seed: int = 0) -> LabelledImages:
    generator = np.random.default_rng(seed)
    images = generator.random((COUNT, 784), dtype=np.float32)
    return LabelledImages(images=images, labels=generator.integers(0, 10, COUNT))


def public(data: LabelledImages | None = None, *settings: str) -> PublicExamples:
    return PublicExamples(config(*settings), BASE, LAYOUT, data or examples())


def test_the_reference_follows_from_seed_and_round() -> None:
    """The same in a repetition, another one in another round or of another seed; it moves the adapter."""
    first = public().reference(START, 1)

    assert np.array_equal(first, public().reference(START, 1))
    assert not np.array_equal(first, public().reference(START, 2))
    assert not np.array_equal(first, public(None, "seed=1").reference(START, 1))
    assert not np.array_equal(first, START.rows)


def test_the_reference_is_of_so_many_examples_as_are_configured() -> None:
    """Those beyond the sixteenth do not matter; one of the sixteen does."""
    data, beyond, within = examples(), examples(), examples()
    beyond.images[16:] = 0
    within.images[15] = 0

    assert np.array_equal(public(data).reference(START, 1), public(beyond).reference(START, 1))
    assert not np.array_equal(public(data).reference(START, 1), public(within).reference(START, 1))


def test_what_is_measured_is_what_a_scorer_measures() -> None:
    """Accuracy on the examples as they are, triggers on the examples with each of the four patches."""
    data = examples()

    assert public(data).accuracy(START) == Scorer(BASE, LAYOUT, data).score(START).accuracy
    found = public(data).triggers(START)
    for name, patch in corner_patches().items():
        stamped = LabelledImages(images=stamp(data.images, patch), labels=data.labels)
        assert found[name] == most_drawn_to(Scorer(BASE, LAYOUT, stamped).predict(START), data.labels)
    assert list(found) == list(corner_patches())


def test_nothing_is_prepared_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without step checks and without a reference pays nothing for either."""

    def refuse(*_arguments: object, **_more: object) -> object:
        raise AssertionError("nobody asked")

    for name in ("Scorer", "LocalTrainer", "stamp"):
        monkeypatch.setattr(public_examples, name, refuse)
    made = public()

    with pytest.raises(AssertionError, match="nobody asked"):
        made.accuracy(START)
