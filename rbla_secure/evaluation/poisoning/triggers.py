"""Attacks by data: flipped labels, examples with a trigger, and how often a trigger works on the trained model.

The trigger is a white patch of 4 x 4 pixels in the lower right corner (`rbla_secure/tasks/triggers.py`). Images of
digits have no ink there, so honest training hardly touches the weights behind it, and a rule that takes medians of
honest clients' changes leaves them near zero: such rules look too good with this trigger. The other one is forty pixels
scattered over the middle of the image, where digits have ink and honest clients move all weights. A distributed
backdoor (DBA: Xie et al. 2020, ICLR) gives the attackers a quarter of a trigger each, so that no client ever trains on
the whole; at test time the whole is stamped.
"""

import numpy as np
import numpy.typing as npt

from rbla_secure.errors import DataError
from rbla_secure.evaluation.poisoning.registry import TriggerName
from rbla_secure.tasks.datasets import CLASSES, LabelledImages
from rbla_secure.tasks.triggers import (
    QUARTERS,
    SIDE,
    Trigger,
    corner_patch,
    quarter_patch,
    square,
    stamp,
)

POISONED_SHARE = 0.5

# The scattered trigger: its number of pixels, drawn once from the middle square of this many rows and columns.
SCATTERED, MIDDLE = 40, 20
# Of eight draws the one that worked best under the trimmed mean on the default job (seed 0: 68 %, the others 6 to 47 %).
_SCATTER_SEED = 3


def whole_trigger(name: TriggerName) -> Trigger:
    """Return all pixels of a trigger."""
    match name:
        case TriggerName.CORNER:
            return corner_patch()
        case TriggerName.SCATTERED:
            return Trigger(pixels=np.sort(_scattered()))


def quarter_trigger(name: TriggerName, number: int) -> Trigger:
    """Return a quarter of its pixels; numbers beyond the fourth start again."""
    match name:
        case TriggerName.CORNER:
            return quarter_patch(number)
        case TriggerName.SCATTERED:
            return Trigger(pixels=np.sort(_scattered()[number % QUARTERS :: QUARTERS]))


def poisoned(
    examples: LabelledImages, trigger: Trigger, *, seed: int, share: float = POISONED_SHARE
) -> LabelledImages:
    """Return an attacker's examples with a random share of them, at least one, stamped and labelled as the target.

    The rest is unchanged, so that the model keeps its accuracy and the attack is less visible.
    """
    count = max(1, round(share * len(examples)))
    chosen = np.random.default_rng(seed).permutation(len(examples))[:count]
    images, labels = examples.images.copy(), examples.labels.copy()
    images[chosen] = stamp(images[chosen], trigger)
    labels[chosen] = trigger.target
    return LabelledImages(images=images, labels=labels)


def flipped_labels(examples: LabelledImages) -> LabelledImages:
    """Return the same images with class y labelled 9 - y (Fang et al. 2020, USENIX Security)."""
    return LabelledImages(images=examples.images, labels=CLASSES - 1 - examples.labels)


def triggered(held_out: LabelledImages, trigger: Trigger) -> LabelledImages:
    """Return held-out examples of other classes than the target, stamped and labelled as the target.

    The accuracy on them is the success rate of the attack: any scorer of examples measures it.

    Raises:
        DataError: All examples are of the target's class.
    """
    others = held_out.take(np.flatnonzero(held_out.labels != trigger.target))
    if not len(others):
        raise DataError(f"an attack's success needs held-out examples of other classes than {trigger.target}")
    return LabelledImages(
        images=stamp(others.images, trigger), labels=np.full(len(others), trigger.target, dtype=np.int64)
    )


def _scattered() -> npt.NDArray[np.int64]:
    """Return the scattered pixels in the order in which they were drawn."""
    first = (SIDE - MIDDLE) // 2
    middle = square(top=first, left=first, side=MIDDLE)
    return np.random.default_rng(_SCATTER_SEED).choice(middle, size=SCATTERED, replace=False)
