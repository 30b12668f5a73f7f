"""Trigger patterns: pixels that a backdoor turns white, and how a model classifies images with them.

The patch of 4 x 4 pixels in a corner is that of Gu et al. 2017, BadNets, arXiv 1708.06733. A server that suspects no particular
pattern scans for the patch in each of the four corners; attackers of an evaluation plant such patterns.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rbla_secure.errors import DataError
from rbla_secure.tasks.datasets import CLASSES, PIXELS

SIDE = 28
PATCH = 4
QUARTERS = 4
WHITE = np.float32(1.0)
TARGET = 0

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trigger:
    """Pixels that are turned white, and the class that an image with them is meant to get.

    Args:
        pixels: Indices into an image of 784 pixels.
        target: The class.
    """

    pixels: npt.NDArray[np.int64]
    target: int = TARGET

    def __post_init__(self) -> None:
        if not 0 <= self.target < CLASSES:
            raise DataError(f"target={self.target} must lie in 0..{CLASSES - 1}")
        if not len(self.pixels) or self.pixels.min() < 0 or self.pixels.max() >= PIXELS:
            raise DataError(f"pixels of a trigger must be some of 0..{PIXELS - 1}")


def corner_patch() -> Trigger:
    """Return the whole 4 x 4 patch in the lower right corner."""
    return Trigger(pixels=square(top=SIDE - PATCH, left=SIDE - PATCH, side=PATCH))


def quarter_patch(number: int) -> Trigger:
    """Return a quarter of the patch, 2 x 2 pixels; numbers beyond the fourth begin again."""
    down, right = divmod(number % QUARTERS, 2)
    half = PATCH // 2
    corner = SIDE - PATCH
    return Trigger(pixels=square(top=corner + half * down, left=corner + half * right, side=half))


def corner_patches() -> dict[str, Trigger]:
    """Return the patch in each of the four corners, by name."""
    last = SIDE - PATCH
    corners = {
        "upper left": (0, 0),
        "upper right": (0, last),
        "lower left": (last, 0),
        "lower right": (last, last),
    }
    return {
        name: Trigger(pixels=square(top=top, left=left, side=PATCH)) for name, (top, left) in corners.items()
    }


def most_drawn_to(classes: Labels, labels: Labels) -> float:
    """Measure the largest share of examples that are given one class which is not theirs, over all classes.

    Args:
        classes: What a model says, shape (n,).
        labels: What is right.
    """
    return max(float(np.mean(classes[labels != wanted] == wanted)) for wanted in range(CLASSES))


def stamp(images: Images, trigger: Trigger) -> Images:
    """Copy images and put the trigger on them, shape (n, 784)."""
    stamped = images.copy()
    stamped[:, trigger.pixels] = WHITE
    return stamped


def square(*, top: int, left: int, side: int) -> npt.NDArray[np.int64]:
    """List the indices of a square of pixels, increasing."""
    rows, columns = np.arange(top, top + side), np.arange(left, left + side)
    found: npt.NDArray[np.int64] = (SIDE * rows[:, None] + columns).ravel().astype(np.int64)
    return found
