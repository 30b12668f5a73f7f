"""An attacker that knows the rule: the strongest backdoor that the server's filter accepts.

The coalition runs the server's rule on a simulated round: its crafted changes and stand-ins for the honest ones, which
are its own members' honest changes (or everybody's, where the evaluation grants that). It sends

    lambda * backdoor + (1 - lambda) * honest + t * previous step

where "honest" is a member's own or the average of all it knows of, with the largest lambda at which every member is
accepted. Where the rule never keeps them all (one that picks a single client, or rejects some of them for their own
data), one that is kept suffices. Where it keeps none of them whatever they send, the backdoor is sent unchanged: an
attack is mounted in every round. Against a rule that judges nobody the whole backdoor is sent; nothing better is tried
against medians and trimmed means.

The norm that the clip leaves is used along the previous global step: that raises the cosine to it, which some rules
check (adaptive attacks on defences: Tramer et al. 2020, arXiv 2002.08347; bisection against a known rule: Fang et al.
2020, USENIX Security; Shejwalkar and Houmansadr 2021, NDSS).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from protocols.session import ClientId
from rbla_secure.evaluation.poisoning.crafted import filled, largest
from rbla_secure.lora.update import UpdateRows, l2_norm

Changes = Mapping[ClientId, UpdateRows]
# The rule as the coalition believes it to be: changes of a round, clipped as sent -> whose is accepted
Accepts = Callable[[Changes], Mapping[ClientId, bool]]

# Every trial runs the rule once over a whole round: 2^-10 of the mixture is precise enough.
TRIALS = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Disguise:
    """The changes that an adaptive coalition sends.

    Args:
        strength: lambda, in (0, 1].
        accepted: How many members the rule keeps at that strength, as they predict it; 0 where it would keep none at
            any.
        changes: Change of each member, with an L2 norm of at most the clip norm.
    """

    strength: float
    accepted: int
    changes: Changes


def disguise(
    honest: Changes,
    backdoor: Changes,
    *,
    stand_ins: Changes,
    step: UpdateRows | None,
    accepts: Accepts,
    clip_norm: float,
) -> Disguise:
    """Find the mixture with the largest share of the backdoor that is accepted from all members, or else from one.

    Four kinds of mixtures are tried, and the one with the largest share of the backdoor is sent: over each member's own
    honest change or over the average of all that are known (the middle of what the rule accepts), with the norm that
    is left along the previous step or without.

    Args:
        honest: Change of each member after honest training.
        backdoor: Change of each member after training on examples with the trigger.
        stand_ins: Assumed changes of the honest clients of the round, by names that no member has.
        step: The previous global step, at the largest rank; None in the first round.
        accepts: The rule; called `TRIALS` + 2 times for each kind, twice as often where it never keeps all.
        clip_norm: L2 bound of an update in the round.

    Pre-conditions: a mixture accepted at some strength is accepted at every smaller one. Otherwise the strength found
    is accepted, but need not be the largest.
    """
    bounded = {name: _at_most(change, clip_norm) for name, change in stand_ins.items()}
    known = [_at_most(change, clip_norm) for change in (*honest.values(), *stand_ins.values())]
    common = {name: _average(known, rank=len(change)) for name, change in honest.items()}
    mixtures: list[Callable[[float], dict[ClientId, UpdateRows]]] = [
        partial(_mixtures, cover, backdoor, step=along, clip_norm=clip_norm)
        for cover in (honest, common)
        for along in ((step, None) if step is not None else (None,))
    ]

    def kept(changes: Changes) -> int:
        verdicts = accepts({**bounded, **changes})
        return sum(verdicts[name] for name in honest)

    for wanted in dict.fromkeys((len(honest), 1)):
        found = [_strongest(at, kept, wanted) for at in mixtures]
        best = max(found, key=lambda each: each.strength)
        if best.strength > 0:
            return best
    changes = mixtures[-1](1.0)
    return Disguise(strength=1.0, accepted=kept(changes), changes=changes)


def _strongest(
    at: Callable[[float], dict[ClientId, UpdateRows]], kept: Callable[[Changes], int], wanted: int
) -> Disguise:
    """Return the strongest mixture of one kind with `wanted` members kept; strength 0 where there is none."""
    strength = largest(lambda each: kept(at(each)) >= wanted, upper=1.0, halvings=TRIALS)
    return Disguise(strength=strength, accepted=kept(at(strength)), changes=at(strength))


def _mixtures(
    cover: Changes, backdoor: Changes, strength: float, *, step: UpdateRows | None, clip_norm: float
) -> dict[ClientId, UpdateRows]:
    """Return every member's mixture."""
    return {
        name: _mixture(change, backdoor[name], strength, step=step, clip_norm=clip_norm)
        for name, change in cover.items()
    }


def _average(changes: Sequence[UpdateRows], *, rank: int) -> UpdateRows:
    """Return the average of the first `rank` rows, each over its holders."""
    rows = [np.mean([change[i] for change in changes if len(change) > i], axis=0) for i in range(rank)]
    return np.stack(rows)


def toward(change: UpdateRows, step: UpdateRows, *, norm: float) -> UpdateRows:
    """Return the change extended along the step's direction to `norm`; unchanged if it is that long already.

    No other addition within the norm raises the cosine to the step more.
    """
    room = norm**2 - l2_norm(change) ** 2
    direction = filled(step, 1.0)
    if room <= 0 or not np.any(direction):
        return change
    along = float((change * direction).sum())
    return change + (math.sqrt(along**2 + room) - along) * direction


def _mixture(
    honest: UpdateRows, backdoor: UpdateRows, strength: float, *, step: UpdateRows | None, clip_norm: float
) -> UpdateRows:
    mixed = strength * _at_most(backdoor, clip_norm) + (1 - strength) * _at_most(honest, clip_norm)
    return mixed if step is None else toward(mixed, step[: len(mixed)], norm=clip_norm)


def _at_most(change: UpdateRows, norm: float) -> UpdateRows:
    return filled(change, norm) if l2_norm(change) > norm else change
