"""The result of a filter: totals as a secure sum would give them, and a verdict on every client."""

from collections.abc import Mapping
from dataclasses import dataclass

from rbla_secure.lora.update import BandTotal


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict of a filter on one client, or on one group.

    Args:
        accepted: Whether its contribution counts.
        score: High is suspicious; None where the filter scores nobody.
        reason: For people: names the rule, the score and the limit.
    """

    accepted: bool
    score: float | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Filtered:
    """The outcome of a filter.

    Args:
        totals: By index, the bands that opened. Where a rule does not add updates up, `weighted_sum` is its result
            times the weight of the holders that count, so that the average is the rule's result.
        verdicts: By client.
        closed: By index, why a band is not among the totals.
    """

    totals: Mapping[int, BandTotal]
    verdicts: Mapping[str, Verdict]
    closed: Mapping[int, str]
