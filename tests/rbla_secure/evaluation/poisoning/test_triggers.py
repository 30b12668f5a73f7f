"""Quarters make a trigger, poisoned examples are as many as said, and success counts what it says."""

import numpy as np
import pytest

from rbla_secure.errors import DataError
from rbla_secure.evaluation.poisoning.registry import TriggerName
from rbla_secure.evaluation.poisoning.triggers import (
    flipped_labels,
    poisoned,
    quarter_trigger,
    triggered,
    whole_trigger,
)
from rbla_secure.tasks.datasets import LabelledImages
from rbla_secure.tasks.triggers import corner_patch, stamp


def examples(labels: list[int]) -> LabelledImages:
    images = np.random.default_rng(0).random((len(labels), 784), dtype=np.float32) / 2
    return LabelledImages(images=images, labels=np.array(labels, dtype=np.int64))


@pytest.mark.parametrize(("share", "count"), [(0.5, 5), (0.25, 2), (0.01, 1), (1.0, 10)])
def test_the_poisoned_share_is_stamped_and_relabelled(share: float, count: int) -> None:
    """So many get the trigger and the target; the others stay to the bit."""
    data = examples([3] * 10)

    bad = poisoned(data, corner_patch(), seed=1, share=share)

    chosen = bad.labels == 0
    assert chosen.sum() == count
    assert np.array_equal(bad.images[chosen], stamp(data.images[chosen], corner_patch()))
    assert np.array_equal(bad.images[~chosen], data.images[~chosen])
    assert np.array_equal(poisoned(data, corner_patch(), seed=1, share=share).labels, bad.labels)


def test_labels_flip_to_nine_minus_y() -> None:
    """And back."""
    data = examples([0, 3, 9])

    assert flipped_labels(data).labels.tolist() == [9, 6, 0]
    assert flipped_labels(flipped_labels(data)).labels.tolist() == data.labels.tolist()


def test_success_is_measured_on_other_classes_only() -> None:
    """Examples of the target's class would be counted as successes of no attack at all."""
    held_out = examples([0, 0, 1, 2, 3, 4])

    stamped = triggered(held_out, corner_patch())

    assert (stamped.images[:, corner_patch().pixels] == 1).all()
    assert stamped.labels.tolist() == [0] * 4


def test_what_a_trigger_refuses() -> None:
    """Nothing to measure on."""
    with pytest.raises(DataError, match="other classes"):
        triggered(examples([0, 0]), corner_patch())


@pytest.mark.parametrize("name", TriggerName)
def test_the_quarters_of_a_trigger_are_the_whole(name: TriggerName) -> None:
    quarters = [set(quarter_trigger(name, number).pixels.tolist()) for number in range(4)]

    assert set.union(*quarters) == set(whole_trigger(name).pixels.tolist())
    assert sum(map(len, quarters)) == len(whole_trigger(name).pixels)
    assert set(quarter_trigger(name, 5).pixels.tolist()) == quarters[1]


def test_the_scattered_trigger_lies_where_digits_have_ink_and_the_corner_does_not() -> None:
    """Why there are two: forty pixels of the middle twenty rows and columns, and sixteen of the last four."""
    rows, columns = np.divmod(whole_trigger(TriggerName.SCATTERED).pixels, 28)

    assert len(rows) == 40
    assert rows.min() >= 4
    assert columns.max() < 24
    assert whole_trigger(TriggerName.CORNER).pixels.min() >= 24 * 28
