"""Averages of random buckets (Karimireddy, He and Jaggi 2022, arXiv 2006.09365)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import numpy.typing as npt

from rbla_secure.robustness.filter import Filter, FilterOptions, Previous
from rbla_secure.robustness.pre_step import PreStep, PreStepFilter
from rbla_secure.robustness.rules.matrix import check_positive
from rbla_secure.robustness.updates import BandUpdates, Updates
from rbla_secure.robustness.verdicts import Filtered, Verdict

Positions = npt.NDArray[np.intp]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bucketing(PreStepFilter):
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
        PreStepFilter.__post_init__(self)
        check_positive("size", self.size)

    def apply(self, updates: Updates, *, previous: Previous, seed: int) -> Filtered:
        """Implement :meth:`Filter.apply`."""
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


@final
class Buckets(PreStep):
    """Random buckets of `robustness.bucket-size` clients of one rank are averaged before the filter."""

    in_buckets: ClassVar[bool] = True

    def before(self, inner: Filter, options: FilterOptions) -> Filter:
        """Implement :meth:`PreStep.before`."""
        return Bucketing(
            f=inner.f, privacy_quorum=inner.privacy_quorum, inner=inner, size=options.settings.bucket_size
        )


PRE_STEP = Buckets()
