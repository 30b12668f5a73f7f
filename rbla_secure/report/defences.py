"""Defences of a configuration against hostile clients, and how many of them each band tolerates, for `check`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from rbla_secure.config import Config
from rbla_secure.planning.opening import group_quorum, largest_f
from rbla_secure.planning.promises import Promises
from rbla_secure.robustness.registry import MEASURED


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BandDefence:
    """One band against hostile clients.

    Args:
        band: Its rows.
        voters: Number of votes in it: one per holder, or one per bucket or group of a round.
        group_sizes: Number of clients of each group that holds it; empty where clients are not grouped.
        largest_f: The most hostile votes with which it still opens and honest votes are the majority of the average.
    """

    band: str
    voters: int
    group_sizes: tuple[int, ...]
    largest_f: int


def band_defences(promises: Promises) -> list[BandDefence]:
    """Return the defence of every band of a plan."""
    if promises.config.robustness.group_size:
        voters = [len(each.groups) for each in promises.bands]
        stands = [max(0, (count - 1) // 2) for count in voters]
    else:
        voters = [each.voters for each in promises.bands]
        stands = [largest_f(promises, count) or 0 for count in voters]
    return [
        BandDefence(band=str(each.band), voters=count, group_sizes=each.groups, largest_f=f)
        for each, count, f in zip(promises.bands, voters, stands, strict=True)
    ]


def groups_needed(config: Config) -> int:
    """The fewest groups with which a band opens."""
    return 2 * config.robustness.f + 1


def group_margins(promises: Promises, sizes: Sequence[int]) -> tuple[int, int]:
    """Return the fewest survivors with which a band of these groups can open, and the drop-outs it always survives."""
    quorums = [group_quorum(promises, size) for size in sizes]
    closing = sorted(size - quorum + 1 for size, quorum in zip(sizes, quorums, strict=True))
    needed = groups_needed(promises.config)
    return sum(sorted(quorums)[:needed]), sum(closing[: len(sizes) - needed + 1]) - 1


def defence_lines(promises: Promises) -> list[str]:
    """The defences for people; none where there are none."""
    config, wanted = promises.config, promises.config.robustness
    if not wanted.has_filter and not wanted.group_size and not wanted.f:
        return []
    bands = band_defences(promises)
    found = [f"against f={wanted.f} hostile clients of a round: {_what(config)}"]
    if wanted.group_size:
        groups = ", ".join(f"{each.voters} in {each.band}" for each in bands)
        found.append(f"groups per round: {groups}; a band opens with {groups_needed(config)} of them")
    stands = ", ".join(f"{each.largest_f} in {each.band}" for each in bands)
    found.append(f"largest f that each band stands: {stands}")
    return [*found, MEASURED] if wanted.has_filter else found


def defence_object(config: Config) -> dict[str, object]:
    """The defences for machines."""
    wanted = config.robustness
    return {
        "f": wanted.f,
        "filter": wanted.filter.value,
        "pre_step": wanted.pre_step.value,
        "group_size": wanted.group_size,
        "group_rule": wanted.group_rule.value if wanted.group_size else None,
        "groups_needed": groups_needed(config) if wanted.group_size else None,
    }


def band_object(defence: BandDefence) -> dict[str, int]:
    """Return the figures that `check` adds to the holders and quorum of one band."""
    return {"groups": len(defence.group_sizes), "largest_f": defence.largest_f}


def _what(config: Config) -> str:
    wanted = config.robustness
    if wanted.group_size:
        return f"{wanted.group_rule} across groups of {wanted.group_size} or more clients of one rank"
    if not wanted.has_filter:
        return "the quorum of every band, no filter"
    before = f" after {wanted.pre_step}" if wanted.has_pre_step else ""
    return f"filter {wanted.filter} over single updates{before}"
