"""The cut of a cohort's uploads into the segments of a session, and its inverse for opened segments.

**By rank band.** One segment per band over all its holders, or where uploads are padded over the whole cohort. A band that can
never open has none: nobody uploads it.

**By group.** One segment per group of clients of one rank, for all rows that the group holds. Every band then has several sums,
and a robust rule stands between their averages (`rbla_secure/robustness/grouping.py`).

A plan has one of the two. Code that depends on which one asks this interface instead.
"""

from collections.abc import Mapping

from protocols.session import ClientId
from rbla_secure.planning.promises import Promises
from rbla_secure.planning.segmentation.by_band import BandSegmentation
from rbla_secure.planning.segmentation.by_group import GroupSegmentation
from rbla_secure.planning.segmentation.segmentation import Segmentation


def segmentation_of(
    promises: Promises,
    *,
    ranks: Mapping[ClientId, int],
    lengths: tuple[int, ...],
    recovered: tuple[int, ...],
) -> Segmentation:
    """Choose how a configuration cuts uploads; the arguments are those of :class:`Segmentation`."""
    kind = GroupSegmentation if promises.config.robustness.group_size else BandSegmentation
    return kind(promises=promises, ranks=ranks, lengths=lengths, recovered=recovered)
