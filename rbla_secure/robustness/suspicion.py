"""Suspicion of clients when only groups are seen: group testing over rounds of fresh random groups.

An attacker is in a flagged group nearly every time, an honest client only as often as it meets one: about 1 - (1 - a)^(g - 1) of
the rounds, with a share a of attackers and groups of g. Ten to fifteen rounds tell them apart for attacks that a group's verdict
notices (sign flips, Min-Max); a backdoor is not found this way. Only group verdicts are kept, never a view of a client.

Each client's share of flagged rounds is estimated with decay, so that the past fades, and drawn towards the share of
all, so that one unlucky round ranks nobody first.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from rbla_secure.errors import RobustnessError
from rbla_secure.robustness.grouping import Group

# The weight of a round halves after about 14 others.
DECAY = 0.95
# How many rounds of the average client each one starts with.
PRIOR_ROUNDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The record of one client: decayed counts of the rounds it took part in."""

    flagged: float = 0.0
    rounds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """One line of the ranking: the estimated share of flagged rounds, and the decayed number of rounds behind it."""

    client: str
    suspicion: float
    rounds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """The state: records by client, and how fast they fade.

    Args:
        records: By client.
        decay: In (0, 1]: what a round is worth one of its client's rounds later; 1 never forgets.

    Raises:
        RobustnessError: `decay` outside (0, 1].
    """

    records: Mapping[str, Record] = field(default_factory=dict)
    decay: float = DECAY

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise RobustnessError(f"decay={self.decay} must lie in (0, 1]")

    def observe(self, groups: Iterable[Group], flags: Mapping[str, float]) -> "Suspicion":
        """The state after a round. Clients that took no part stay as they are.

        Args:
            groups: Groups of the round.
            flags: By name of a group with a verdict, how suspicious it was, in [0, 1]; groups without one do not count.

        Raises:
            RobustnessError: A flag outside [0, 1], or a flag of a group that there was not.
        """
        by_name = {group.name: group for group in groups}
        records = dict(self.records)
        for name, flag in flags.items():
            if name not in by_name:
                raise RobustnessError(f"there is no group {name}")
            if not 0 <= flag <= 1:
                raise RobustnessError(f"flag={flag} of {name} must lie in [0, 1]")
            for member in by_name[name].members:
                old = self.records.get(member, Record())
                records[member] = Record(
                    flagged=self.decay * old.flagged + flag, rounds=self.decay * old.rounds + 1
                )
        return replace(self, records=records)

    def ranking(self) -> tuple[Ranked, ...]:
        """All clients seen, the most suspicious first; equal ones by name."""
        rounds = sum(record.rounds for record in self.records.values())
        overall = sum(record.flagged for record in self.records.values()) / rounds if rounds else 0.0
        lines = [
            Ranked(
                client=client,
                suspicion=(record.flagged + PRIOR_ROUNDS * overall) / (record.rounds + PRIOR_ROUNDS),
                rounds=record.rounds,
            )
            for client, record in self.records.items()
        ]
        return tuple(sorted(lines, key=lambda line: (-line.suspicion, line.client)))
