"""Named parameter sets and where they come from.

A threshold t says how many survivors are needed to open a sum; fewer than t colluders learn nothing from shares.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskingProfile:
    """Parameters of the masking protocol.

    Args:
        name: For reports and the command line.
        source: Where the rule comes from.
        numerator, denominator: threshold = floor(n * numerator / denominator) + 1.
    """

    name: str
    source: str
    numerator: int
    denominator: int

    def threshold(self, members: int) -> int:
        """Survivors needed to open a sum among so many members."""
        return members * self.numerator // self.denominator + 1


SEMI_HONEST = MaskingProfile(
    name="semi-honest",
    source="Bonawitz et al. 2017, section 6: an honest-but-curious server with fewer than t colluding clients; "
    "t > n/2 so that no two disjoint halves can each open something",
    numerator=1,
    denominator=2,
)
