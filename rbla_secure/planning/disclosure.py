"""Records from which a secure sum reports what each party learnt in a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, final

# What every server knows, whatever it adds.
PUBLIC: Final = "ranks, who took part, who dropped out"


class Learned(NamedTuple):
    """One row: a party, what it saw, what stayed hidden from it."""

    party: str
    saw: str
    hidden: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The sums that a run opened.

    Args:
        counts: For each sum, how many clients it covers.
        kind: The name of the sums, in the plural.
    """

    counts: Sequence[int]
    kind: str

    @property
    def smallest(self) -> int:
        """The smallest number of clients that one sum covers; 0 where none was opened."""
        return min(self.counts, default=0)

    @property
    def in_words(self) -> str:
        """Return in words how many sums were opened, and over how many clients."""
        if not self.counts:
            return "no sum: every band stayed closed"
        return f"{len(self.counts)} {self.kind}, each over {self.smallest} clients or more"
