"""Trigger patterns are where and what they should be, and a model that takes to one is told by its number."""

import numpy as np
import pytest

from rbla_secure.errors import DataError
from rbla_secure.tasks.datasets import LabelledImages
from rbla_secure.tasks.triggers import (
    Trigger,
    corner_patch,
    corner_patches,
    most_drawn_to,
    quarter_patch,
    stamp,
)


def examples(labels: list[int]) -> LabelledImages:
    images = np.random.default_rng(0).random((len(labels), 784), dtype=np.float32) / 2
    return LabelledImages(images=images, labels=np.array(labels, dtype=np.int64))


def test_the_patch_is_the_lower_right_corner() -> None:
    """Four by four white pixels, and no other pixel changes."""
    data = examples([1, 2])

    stamped = stamp(data.images, corner_patch()).reshape(2, 28, 28)

    assert (stamped[:, 24:, 24:] == 1).all()
    changed = stamped != data.images.reshape(2, 28, 28)
    assert changed.sum() == 2 * 16
    assert data.images.max() <= 0.5, "the originals stay as they are"


def test_quarters_are_disjoint_and_make_the_patch() -> None:
    """Four attackers together train on every pixel of the trigger, and a fifth begins again."""
    quarters = [set(quarter_patch(number).pixels.tolist()) for number in range(4)]

    assert [len(quarter) for quarter in quarters] == [4] * 4
    assert set.union(*quarters) == set(corner_patch().pixels.tolist())
    assert sum(map(len, quarters)) == 16
    assert quarter_patch(4).pixels.tolist() == quarter_patch(0).pixels.tolist()


def test_the_scan_has_a_patch_in_each_corner() -> None:
    """Of sixteen pixels, none of which two of them share; one is the patch that is planted."""
    patches = corner_patches()

    assert list(patches) == ["upper left", "upper right", "lower left", "lower right"]
    pixels = [set(each.pixels.tolist()) for each in patches.values()]
    assert [len(each) for each in pixels] == [16] * 4
    assert len(set.union(*pixels)) == 64
    assert {0, 27, 28 * 27, 28 * 28 - 1} <= set.union(*pixels)
    assert pixels[-1] == set(corner_patch().pixels.tolist())


def test_the_pull_of_a_class_is_told_over_examples_of_others() -> None:
    """Three of four that are no zeros are called zero; the one that is counts for nothing."""
    labels = np.array([0, 1, 2, 3, 4])

    assert most_drawn_to(np.array([0, 0, 0, 0, 4]), labels) == 0.75
    assert most_drawn_to(labels, labels) == 0.0


def test_what_a_trigger_refuses() -> None:
    """No pixels, pixels outside, a class outside."""
    with pytest.raises(DataError, match="pixels"):
        Trigger(pixels=np.array([784]))
    with pytest.raises(DataError, match="pixels"):
        Trigger(pixels=np.array([], dtype=np.int64))
    with pytest.raises(DataError, match="target=10"):
        Trigger(pixels=np.array([0]), target=10)
