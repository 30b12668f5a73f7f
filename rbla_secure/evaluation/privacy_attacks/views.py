"""The view of a party: the changes or sums of changes that it sees in one round.

| mode                  | server                     | holder of the key     | everybody               |
|-----------------------|----------------------------|-----------------------|-------------------------|
| plain                 | every single change        | -                     | the average             |
| masking, in groups    | the sum of every group     | -                     | the average             |
| masking               | the sum over all           | -                     | the sum over all        |
| homomorphic           | ciphertexts: nothing       | the sum over all      | the sum over all        |

A sum is one row matrix: row s is the sum over the clients that hold it, so a party sees each row as a sum over its
holders only. Noise comes in shares: every holder of a row adds normal noise of standard deviation z C / sqrt(D_s), D_s
being the holders in the whole cohort, and the sum over all of them has z C (the discrete Gaussian of the protocol
differs from the normal by less than its grid). A sum over a group has only the group's shares.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from rbla_secure.errors import DataError
from rbla_secure.lora.update import UpdateRows

Group = npt.NDArray[np.int64]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How changes are added before a party sees them.

    Args:
        name: Name in tables.
        group: Clients per sum; 1 is every change alone, 0 one sum over all.
        quorum: Rows with fewer holders in a sum are not shown.
    """

    name: str
    group: int
    quorum: int = 1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Client-level noise, of which every holder of a row adds a share.

    Args:
        multiplier: z; 0 adds none.
        clip_norm: C.
        ranks: Ranks of all clients of the cohort.
    """

    multiplier: float
    clip_norm: float
    ranks: tuple[int, ...]

    def share_std(self) -> npt.NDArray[np.float64]:
        """Return, by row, the standard deviation of one holder's share."""
        rows = np.arange(max(self.ranks))
        holders = (np.array(self.ranks)[:, None] > rows).sum(axis=0)
        deviations: npt.NDArray[np.float64] = self.multiplier * self.clip_norm / np.sqrt(holders)
        return deviations


def random_groups(clients: int, size: int, generator: np.random.Generator) -> list[Group]:
    """Assign clients at random to groups of at least `size`; the last groups share the remainder.

    Raises:
        DataError: There are fewer clients than one group has.
    """
    if size == 0:
        return [np.arange(clients)]
    if clients < size:
        raise DataError(f"{clients} clients must be at least one group of {size}")
    return np.array_split(generator.permutation(clients), clients // size)


def seen(
    changes: Sequence[UpdateRows],
    *,
    rank: int,
    quorum: int = 1,
    noise: Noise | None = None,
    generator: np.random.Generator | None = None,
) -> UpdateRows:
    """Return the sum of some clients' changes, as a party sees it.

    Args:
        changes: Bounded, each of shape (rank of its client, row_length).
        rank: Rows of the result.
        quorum: Rows that fewer of them hold are zero: they are not shown.
        noise: Shares that these clients add.
        generator: Source of the noise; required with it.

    Raises:
        DataError: Noise without a generator.
    """
    total = np.zeros((rank, changes[0].shape[1]))
    holders = np.zeros(rank, dtype=np.int64)
    for change in changes:
        total[: len(change)] += change
        holders[: len(change)] += 1
    if noise is not None and noise.multiplier:
        if generator is None:
            raise DataError("noise needs a generator")
        deviation = noise.share_std()[:rank] * np.sqrt(holders)
        total += deviation[:, None] * generator.standard_normal(total.shape)
    total[holders < quorum] = 0.0
    return total
