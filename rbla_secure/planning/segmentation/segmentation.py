"""The interface of every cut of uploads into segments."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar, final

import numpy as np
import numpy.typing as npt

from protocols.ring import IntegerVector
from protocols.session import ClientId, Segment, Session
from rbla_secure.config.choices import AcrossRule
from rbla_secure.lora.bands import Band
from rbla_secure.planning.promises import Promises
from rbla_secure.robustness.grouping import Group

Number = TypeVar("Number", bound=np.generic)
# By index of a band or segment: integers before noise, or what an audit expects of them.
Vectors = Mapping[int, npt.NDArray[Number]]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Votes:
    """The voters whose updates are averaged in a band: clients, buckets or groups.

    Args:
        counts: By band index, the number of voters in a whole cohort.
        quorum: The smallest number of voters in an average.
        least_weight: The smallest weight of one voter, in (0, 1].
    """

    counts: Sequence[int]
    quorum: int
    least_weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation(ABC):
    """The cut of a plan's uploads into segments.

    Args:
        promises: The promises of the plan's configuration.
        ranks: The rank of every enrolled client.
        lengths: By band index, the number of integers that are summed.
        recovered: By band index, how many components of a client's noise can be removed from its sum.

    Attributes:
        part: The unit that one segment covers, in a word.
        sums: The sums that the server opens, in words.
    """

    part: ClassVar[str]
    sums: ClassVar[str]

    promises: Promises
    ranks: Mapping[ClientId, int]
    lengths: tuple[int, ...]
    recovered: tuple[int, ...]

    @property
    def bands(self) -> tuple[Band, ...]:
        """All rank bands."""
        return tuple(each.band for each in self.promises.bands)

    @property
    def opening(self) -> tuple[Band, ...]:
        """The bands with enough holders in a whole cohort."""
        return tuple(each.band for each in self.promises.bands if each.opens)

    # The segments of a cohort.

    @property
    @abstractmethod
    def most_segments(self) -> int:
        """The largest number of segments in a session."""

    @property
    @abstractmethod
    def quorum(self) -> int:
        """The fewest clients over which honest parties open a sum."""

    @property
    @abstractmethod
    def rule_across(self) -> AcrossRule | None:
        """The rule between several sums of one band; None where there is one sum per band."""

    @abstractmethod
    def segments(self, round_number: int, cohort: tuple[ClientId, ...]) -> tuple[Segment, ...]:
        """Cut the uploads of a round's cohort, which is increasing, into segments."""

    @abstractmethod
    def groups(self, session: Session) -> tuple[Group, ...]:
        """Name the groups of a session, in the order of its segments; none where there is one sum per band."""

    @abstractmethod
    def bands_of(self, client: ClientId) -> tuple[Band, ...]:
        """Select the bands that a client holds and that may open."""

    # A client's integers.

    @abstractmethod
    def uploaded(
        self, session: Session, client: ClientId, bands: Vectors[Number]
    ) -> dict[int, npt.NDArray[Number]]:
        """Select and pad what a client uploads, still by band: each of these has noise of its own, in increasing order.

        Args:
            session: The session of the round.
            client: A member.
            bands: By index of a band that the client holds, shape (length of the band,).
        """

    @abstractmethod
    def by_segment(
        self, session: Session, client: ClientId, uploaded: Vectors[Number]
    ) -> dict[int, npt.NDArray[Number]]:
        """Join what :meth:`uploaded` gave, or a part of it, to one vector per segment of the client."""

    # Opened sums.

    @abstractmethod
    def by_band(self, session: Session, index: int, summed: IntegerVector) -> dict[int, IntegerVector]:
        """Cut the sum of one segment into its bands."""

    @abstractmethod
    def refused_bands(self, refused: Mapping[int, str]) -> dict[int, str]:
        """Name the bands that stay closed with segments that did, and why: `refused` is by segment."""

    # How many clients a sum is over.

    @abstractmethod
    def present(self, session: Session, arrived: Collection[ClientId]) -> dict[int, int]:
        """Count, by band that may open, the clients among these that are in its smallest sum."""

    @abstractmethod
    def least_present(self, band: Band, absent: int) -> int:
        """Return the fewest uploaders over which a band opens if `absent` members of the cohort may be left out."""

    @abstractmethod
    def smallest_sum(self, session: Session, band: Band) -> tuple[ClientId, ...]:
        """Name the holders of a band that are in its smallest sum."""

    @abstractmethod
    def spare(self, session: Session, band: Band) -> int:
        """Count the members of a band's smallest sum that may be missing with it still opening."""

    @abstractmethod
    def noise_of_others(self, index: int) -> int:
        """Count the clients of a whole cohort that do not hold a band and whose noise is in its sum all the same."""

    @abstractmethod
    def votes(self, least_weight: float) -> Votes:
        """Count those whose updates are averaged, where a client weighs `least_weight` at least."""

    # In words.

    @property
    @abstractmethod
    def smallest_sums(self) -> list[str]:
        """The assumptions of epsilons about the sums over fewest clients, where a band has several; in words."""

    @property
    @abstractmethod
    def expected_absence(self) -> str:
        """The assumption of epsilons about drop-outs where no missing noise is made good, in words."""
