"""One sum per rank band, over all its holders."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import numpy.typing as npt

from protocols.ring import IntegerVector
from protocols.session import ClientId, ExtraReveal, Segment, Session
from rbla_secure.config.choices import AcrossRule, Upload
from rbla_secure.lora.bands import Band
from rbla_secure.planning.opening import band_quorum
from rbla_secure.planning.segmentation.segmentation import Number, Segmentation, Vectors, Votes
from rbla_secure.robustness.grouping import Group
from rbla_secure.robustness.registry import filter_of, pre_step_of


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BandSegmentation(Segmentation):
    """One segment per rank band that can open."""

    part: ClassVar[str] = "band"
    sums: ClassVar[str] = "band sums"

    @property
    def most_segments(self) -> int:
        """The number of bands."""
        return len(self.bands)

    @property
    def quorum(self) -> int:
        """The holders with which a band may open."""
        return self.promises.row_quorum

    @property
    def rule_across(self) -> AcrossRule | None:
        """None: each band has one sum."""
        return None

    def segments(self, round_number: int, cohort: tuple[ClientId, ...]) -> tuple[Segment, ...]:  # noqa: ARG002
        """Make the holders of each band its members, or everybody where uploads are padded."""
        return tuple(self._segment(band, cohort) for band in self.opening)

    def _segment(self, band: Band, cohort: tuple[ClientId, ...]) -> Segment:
        holders = self._holders(band, cohort)
        # Component i + 1 of a client's noise grows from its secret number i, which is given out unless more than i
        # uploaders are missing.
        removable = self.recovered[band.index]
        return Segment(
            index=band.index,
            length=self.lengths[band.index],
            members=cohort if self._padded else holders,
            holders=holders,
            # Not asked where bands open over whoever is there.
            quorum=1 if self.promises.whoever_is_there else self.quorum,
            extra_secrets=removable,
            extra_reveal=ExtraReveal.BEYOND_MISSING if removable else ExtraReveal.NOTHING,
        )

    def groups(self, session: Session) -> tuple[Group, ...]:  # noqa: ARG002
        """Return no groups: each band has one sum."""
        return ()

    def bands_of(self, client: ClientId) -> tuple[Band, ...]:
        """Select the bands held, without those that can never open."""
        return tuple(band for band in self.opening if band.stop <= self.ranks[client])

    def uploaded(
        self, session: Session, client: ClientId, bands: Vectors[Number]
    ) -> dict[int, npt.NDArray[Number]]:
        """Drop bands without a segment, and add zeros, of weight zero, for those that a client uploads without holding them."""
        found = {index: values for index, values in bands.items() if index < len(session.segments)}
        dtype = next(iter(bands.values())).dtype
        for segment in session.segments_of(client):
            found.setdefault(segment.index, np.zeros(segment.length, dtype=dtype))
        return found

    def by_segment(
        self,
        session: Session,  # noqa: ARG002
        client: ClientId,  # noqa: ARG002
        uploaded: Vectors[Number],
    ) -> dict[int, npt.NDArray[Number]]:
        """Return the bands as they are: a segment has the index of its band."""
        return dict(uploaded)

    def by_band(self, session: Session, index: int, summed: IntegerVector) -> dict[int, IntegerVector]:  # noqa: ARG002
        """Return the sum under the index of its band, which is that of the segment."""
        return {index: summed}

    def refused_bands(self, refused: Mapping[int, str]) -> dict[int, str]:
        """Name the bands of the same indices."""
        return dict(refused)

    def present(self, session: Session, arrived: Collection[ClientId]) -> dict[int, int]:
        """Count the uploaders of each band whose holders meet the quorum."""
        there = set(arrived)
        return {
            segment.index: len(there.intersection(segment.members))
            for segment in session.segments
            if len(there.intersection(segment.holders)) >= segment.quorum
        }

    def least_present(self, band: Band, absent: int) -> int:
        """Count all uploaders but those, and no fewer than the quorum."""
        return max(self.quorum, self.promises.bands[band.index].uploaders - absent)

    def smallest_sum(self, session: Session, band: Band) -> tuple[ClientId, ...]:
        """Return all holders: each band has one sum."""
        return self._holders(band, session.members)

    def spare(self, session: Session, band: Band) -> int:
        """Count holders beyond the quorum, and padding clients: those who do not hold the band close nothing."""
        holders = len(self._holders(band, session.members))
        others = len(session.members) - holders if self._padded else 0
        return holders - band_quorum(self.promises, holders) + others

    def noise_of_others(self, index: int) -> int:
        """Count the clients that pad the band; nobody where uploads are not padded."""
        planned = self.promises.bands[index]
        return planned.uploaders - planned.holders

    def votes(self, least_weight: float) -> Votes:
        """Count holders, or buckets of them; a filter may keep fewer than the quorum that was there."""
        config = self.promises.config
        wanted, bands = config.robustness, self.promises.bands
        if pre_step_of(wanted.pre_step).in_buckets:
            least = least_weight / wanted.bucket_size
            return Votes(
                counts=[each.voters for each in bands], quorum=config.min_holders, least_weight=least
            )
        quorum = self.quorum if filter_of(wanted.filter).keeps_quorum else config.min_holders
        return Votes(counts=[each.holders for each in bands], quorum=quorum, least_weight=least_weight)

    @property
    def smallest_sums(self) -> list[str]:
        """Empty: each band has one sum."""
        return []

    @property
    def expected_absence(self) -> str:
        """The assumption that no larger share of a band drops out than the noise allows for, in words."""
        return (
            f"at most a share of {self.promises.config.privacy.expected_dropout:g} of a band's clients drops out; "
            "the ledger counts those that really did"
        )

    @property
    def _padded(self) -> bool:
        return self.promises.config.upload is Upload.PADDED

    def _holders(self, band: Band, cohort: tuple[ClientId, ...]) -> tuple[ClientId, ...]:
        return tuple(client for client in cohort if self.ranks[client] >= band.stop)
