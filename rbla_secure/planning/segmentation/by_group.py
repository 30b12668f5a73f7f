"""One sum per group of clients of one rank, over all rows that the group holds."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import numpy.typing as npt

from protocols.ring import IntegerVector
from protocols.session import ClientId, Segment, Session
from rbla_secure.config.choices import AcrossRule
from rbla_secure.lora.bands import Band, held_bands
from rbla_secure.planning.opening import group_quorum
from rbla_secure.planning.segmentation.segmentation import Number, Segmentation, Vectors, Votes
from rbla_secure.robustness.grouping import Group, draw_groups


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSegmentation(Segmentation):
    """One segment per group of clients of one rank, for all rows that they hold."""

    part: ClassVar[str] = "group"
    sums: ClassVar[str] = "sums of groups"

    @property
    def most_segments(self) -> int:
        """The number of groups: all of them hold the lowest band."""
        return len(self.promises.bands[0].groups)

    @property
    def quorum(self) -> int:
        """The members with which a group may open."""
        return self.promises.config.min_holders

    @property
    def rule_across(self) -> AcrossRule | None:
        """The configured rule."""
        return self.promises.config.robustness.group_rule

    def segments(self, round_number: int, cohort: tuple[ClientId, ...]) -> tuple[Segment, ...]:
        """Make each group a segment: nobody outside its tier is in it."""
        return tuple(
            Segment(index=index, length=sum(self._lengths(group)), members=group.members, quorum=self.quorum)
            for index, group in enumerate(self._groups(round_number, cohort))
        )

    def groups(self, session: Session) -> tuple[Group, ...]:
        """Draw the groups of its round again."""
        return self._groups(session.round, session.members)

    def _groups(self, round_number: int, cohort: tuple[ClientId, ...]) -> tuple[Group, ...]:
        """Draw groups from seed, round and cohort alone: a server cannot try runs and attempts for better groups.

        They are the same in every repetition, after every interruption, and whatever the secure sum.
        """
        text = "\x1f".join([str(self.promises.config.seed), str(round_number), *cohort])
        seed = hashlib.sha256(b"rbla-secure groups\x00" + text.encode()).digest()
        ranks = {client: self.ranks[client] for client in cohort}
        return draw_groups(ranks, group_size=self.promises.config.robustness.group_size, seed=seed)

    def bands_of(self, client: ClientId) -> tuple[Band, ...]:
        """Select all that it holds: they open as one."""
        return held_bands(self.bands, self.ranks[client])

    def uploaded(
        self,
        session: Session,  # noqa: ARG002
        client: ClientId,  # noqa: ARG002
        bands: Vectors[Number],
    ) -> dict[int, npt.NDArray[Number]]:
        """Return all bands that a client holds."""
        return dict(bands)

    def by_segment(
        self, session: Session, client: ClientId, uploaded: Vectors[Number]
    ) -> dict[int, npt.NDArray[Number]]:
        """Join all bands to one vector, the lowest first."""
        (segment,) = session.segments_of(client)
        return {segment.index: np.concatenate([uploaded[index] for index in sorted(uploaded)])}

    def by_band(self, session: Session, index: int, summed: IntegerVector) -> dict[int, IntegerVector]:
        """Cut the sum of a group, the inverse of :meth:`by_segment`."""
        group = self.groups(session)[index]
        ends = np.cumsum(self._lengths(group))
        parts = np.split(summed, ends[:-1])
        return {
            band.index: part for band, part in zip(held_bands(self.bands, group.rank), parts, strict=True)
        }

    def refused_bands(self, refused: Mapping[int, str]) -> dict[int, str]:  # noqa: ARG002
        """Return none: a group that stayed closed is no band."""
        return {}

    def present(self, session: Session, arrived: Collection[ClientId]) -> dict[int, int]:
        """Count the members of the smallest group that may open a band; all readers are counted as seeing what it shows."""
        there, found = set(arrived), dict[int, int]()
        for group, segment in zip(self.groups(session), session.segments, strict=True):
            count = len(there.intersection(segment.members))
            if count >= segment.quorum:
                for band in held_bands(self.bands, group.rank):
                    found[band.index] = min(count, found.get(band.index, count))
        return found

    def least_present(self, band: Band, absent: int) -> int:  # noqa: ARG002
        """Give the quorum: the absent may all be of one group."""
        return self.quorum

    def smallest_sum(self, session: Session, band: Band) -> tuple[ClientId, ...]:
        """Name the members of the smallest group that holds the band."""
        return min((group.members for group in self.groups(session) if group.rank >= band.stop), key=len)

    def spare(self, session: Session, band: Band) -> int:
        """Count members beyond the quorum of a group."""
        size = len(self.smallest_sum(session, band))
        return size - group_quorum(self.promises, size)

    def noise_of_others(self, index: int) -> int:  # noqa: ARG002
        """Count nobody: all members of a group hold its bands."""
        return 0

    def votes(self, least_weight: float) -> Votes:  # noqa: ARG002
        """Count groups, each with one vote."""
        counts = [len(each.groups) for each in self.promises.bands]
        return Votes(counts=counts, quorum=2 * self.promises.config.robustness.f + 1, least_weight=1.0)

    @property
    def smallest_sums(self) -> list[str]:
        """The size of the smallest group and who may be in it, in words."""
        sizes = ", ".join(f"{min(each.groups)} in {each.band}" for each in self.promises.bands)
        text = (
            f"the server sees a sum of every group; the smallest has {sizes}, all the colluders may be in it, and whoever "
            "reads the adapters is counted as seeing it too"
        )
        return [text]

    @property
    def expected_absence(self) -> str:
        """The assumption that nobody drops out in the smallest group, in words."""
        return "nobody drops out of the smallest group; the ledger counts those that really did"

    def _lengths(self, group: Group) -> list[int]:
        return [self.lengths[band.index] for band in held_bands(self.bands, group.rank)]
