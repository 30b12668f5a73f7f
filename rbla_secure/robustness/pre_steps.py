"""Steps before a filter, as filters around it: updates are mixed with their nearest, or averaged in random buckets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from rbla_secure.errors import RobustnessError
from rbla_secure.robustness.filters import Filter, Previous
from rbla_secure.robustness.quorum import quorum_before_selection
from rbla_secure.robustness.rules.matrix import check_positive
from rbla_secure.robustness.rules.mixing import nearest_neighbor_mixing
from rbla_secure.robustness.updates import BandUpdates, Updates
from rbla_secure.robustness.verdicts import Filtered, Verdict

Positions = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreStep(Filter):
    """Something before `inner`, which promises the same as it.

    Raises:
        RobustnessError: f or `privacy_quorum` differ from those of `inner`.
    """

    inner: Filter

    def __post_init__(self) -> None:
        Filter.__post_init__(self)
        if (self.f, self.privacy_quorum) != (self.inner.f, self.inner.privacy_quorum):
            raise RobustnessError(
                f"f={self.f}, privacy_quorum={self.privacy_quorum} must be those of the filter behind the pre-step: "
                f"f={self.inner.f}, privacy_quorum={self.inner.privacy_quorum}"
            )


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NeighborMixing(PreStep):
    """In each band every holder's rows become the mean of the n - f nearest holders' (NNM), then `inner`.

    Verdicts of a selection behind it are on mixed rows, in which every client has a part in its neighbors'.

    Each mixture leaves f holders out, so it needs as many as a selection does: of 2f + 1 the mean of the f + 1 nearest could be
    attackers all but one, in every row that the filter behind sees. Of 3f + 1 every mixture has 2f + 1 parts, f + 1 of them
    honest, and what a filter keeps of such rows has no larger share of attackers than they have.
    """

    @property
    def quorum(self) -> int:
        """The fewest holders of positive weight with which a band opens."""
        return self.holders_before(self.inner.quorum, f=self.f, privacy_quorum=self.privacy_quorum)

    @staticmethod
    def holders_before(inner: int, *, f: int, privacy_quorum: int) -> int:
        """What a band needs before mixing where the filter behind needs `inner` holders."""
        return max(inner, quorum_before_selection(f, privacy_quorum))

    def apply(self, updates: Updates, *, previous: Previous, seed: int) -> Filtered:
        """As :meth:`Filter.apply`."""
        opened, closed = self.opened(updates)
        mixed = {
            index: BandUpdates(holders=band.holders, values=nearest_neighbor_mixing(band.values, f=self.f))
            for index, band in opened.items()
        }
        changed = Updates(clients=updates.clients, ranks=updates.ranks, weights=updates.weights, bands=mixed)
        found = self.inner.apply(changed, previous=previous, seed=seed)
        return Filtered(totals=found.totals, verdicts=found.verdicts, closed={**closed, **found.closed})


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bucketing(PreStep):
    """Random buckets of `size` clients of one rank tier are averaged, and `inner` filters the buckets.

    A bucket holds the bands of its tier. Up to f buckets may be bad, so a band now needs as many *buckets* as `inner` needs holders.
    A bucket weighs as much as its members together, in units of a full bucket. A member's verdict is its bucket's.

    Args:
        size: Clients per bucket; the last of a tier may be smaller.
    """

    size: int

    @property
    def quorum(self) -> int:
        """The fewest buckets of positive weight with which a band opens."""
        return self.inner.quorum

    def __post_init__(self) -> None:
        PreStep.__post_init__(self)
        check_positive("size", self.size)

    def apply(self, updates: Updates, *, previous: Previous, seed: int) -> Filtered:
        """As :meth:`Filter.apply`."""
        buckets = _drawn(updates, self.size, seed)
        found = self.inner.apply(_averaged(updates, buckets, self.size), previous=previous, seed=seed)
        verdicts: dict[str, Verdict] = {}
        for bucket, members in enumerate(buckets):
            of_bucket = found.verdicts[_name(bucket)]
            reason = f"{_name(bucket)} of {len(members)}: {of_bucket.reason}"
            for member in members:
                verdicts[updates.clients[member]] = Verdict(
                    accepted=of_bucket.accepted, score=of_bucket.score, reason=reason
                )
        return Filtered(totals=found.totals, verdicts=dict(sorted(verdicts.items())), closed=found.closed)


def _name(bucket: int) -> str:
    # Wide enough that the order of names is the order of buckets.
    return f"bucket-{bucket:06d}"


def _drawn(updates: Updates, size: int, seed: int) -> list[Positions]:
    """Positions of the members, bucket by bucket, ranks increasing."""
    buckets = []
    for rank in np.unique(updates.ranks):
        generator = np.random.default_rng([seed, int(rank)])
        tier = generator.permutation(np.flatnonzero(updates.ranks == rank))
        buckets += [tier[start : start + size] for start in range(0, len(tier), size)]
    return buckets


def _averaged(updates: Updates, buckets: Sequence[Positions], size: int) -> Updates:
    """The buckets as if each were one client."""
    bands = {}
    for index, band in updates.bands.items():
        row_of = {int(client): row for row, client in enumerate(band.holders)}
        held = [bucket for bucket, members in enumerate(buckets) if int(members[0]) in row_of]
        shares = np.zeros((len(held), len(band.holders)))
        for at, bucket in enumerate(held):
            rows = [row_of[int(member)] for member in buckets[bucket]]
            weights = updates.weights[buckets[bucket]]
            shares[at, rows] = weights / weights.sum() if weights.any() else 1 / len(weights)
        bands[index] = BandUpdates(holders=np.array(held, dtype=np.intp), values=shares @ band.values)
    weights = np.array([min(1.0, float(updates.weights[members].sum()) / size) for members in buckets])
    return Updates(
        clients=tuple(_name(bucket) for bucket in range(len(buckets))),
        ranks=np.array([updates.ranks[members[0]] for members in buckets], dtype=np.int64),
        weights=weights,
        bands=bands,
    )
