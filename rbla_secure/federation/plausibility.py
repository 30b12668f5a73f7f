"""What a client can check of the model that it is sent, all by itself, before it trains on it. Run by the client.

A server that may send any model can send one that is dead for everybody but one client, or for everybody's data but one
client's, and whatever is summed is then that client's update. Binding all clients to one model does not help: it is one
model. What helps is that a model has a past:

* The adapter before round 1 follows from the seed of the plan: it is compared to the bit.
* An honest round moves it by no more than :func:`rbla_secure.federation.step_bound.movement_limit`. So the adapter before
  round n lies within (n - m) such steps of the one that this client was sent before round m, whichever rounds it missed.
* Rows of bands that can never open never move: they are compared to the bit in every round.
* The adapter before one round is one adapter: another attempt at it brings the same.

Where a roll-back may take the run back to one of the last adapters, the model may instead lie that near to one of the last
few that the client was sent; the sum of all steps stays bounded by the number of rounds times the limit all the same.

Claim and limit. From the first round on, the model lies inside a ball around the seeded first adapter that grows by one
honest step a round. A patient server can still grow a bad model in as many rounds as its distance takes
(`benchmarks/results/model_attacks.md` says how few those are on the default job), and this check cannot tell. What is left
then is noise.
"""

import numpy as np

from rbla_secure.errors import RefusalError
from rbla_secure.federation.broadcast import Broadcast, band_digests
from rbla_secure.federation.guard import WINDOW
from rbla_secure.federation.plan import Plan
from rbla_secure.federation.step_bound import movement_limit
from rbla_secure.lora.adapter import Adapter, Rows

# Rounds by number, the adapter before each: what a client remembers.
Seen = dict[int, Adapter]


def check_plausible(plan: Plan, broadcast: Broadcast, *, round_number: int, seen: Seen) -> None:
    """Refuse an adapter that honest rounds cannot have led to.

    Args:
        plan: The client's own.
        broadcast: What it is sent before a round: all rows of the global adapter, or the first ones and digests of the rest.
        round_number: Of that round.
        seen: The adapters that it was sent before earlier rounds, the last few; those of this round if it was sent one.

    Raises:
        RefusalError: It names the rule, with the numbers.
    """
    adapter, first = broadcast.adapter, plan.initial_adapter
    _check_fixed_bands(plan, broadcast)
    if round_number == 1:
        if broadcast.digests != band_digests(plan, first):
            raise RefusalError("the adapter of round 1 is not the one that follows from the plan's seed")
        return
    if round_number in seen:
        if not _same(adapter.rows, seen[round_number].rows):
            raise RefusalError(f"round {round_number} began with another adapter in an earlier attempt")
        return
    earlier = {1: first.sliced(adapter.rank), **seen}
    latest = sorted(number for number in earlier if number < round_number)[-_remembered(plan) :]
    if not latest:
        raise RefusalError(f"this client was sent an adapter of a later round than {round_number} before")
    excess = min(_excess(plan, adapter, earlier[number], round_number - number) for number in latest)
    if excess > 0:
        last = latest[-1]
        moved = _distance(adapter.rows, earlier[last].rows)
        limit = _limit(plan, earlier[last], round_number - last)
        raise RefusalError(
            f"the adapter moved by {moved:.4g} since round {last}, and {round_number - last} honest rounds can move it by "
            f"at most {limit:.4g}"
        )


def remember(plan: Plan, adapter: Adapter, *, round_number: int, seen: Seen) -> Seen:
    """What a client remembers once it has accepted an adapter: of the last rounds that it was sent one for."""
    known = {**seen, round_number: adapter}
    return {number: known[number] for number in sorted(known)[-_remembered(plan) :]}


def _remembered(plan: Plan) -> int:
    """How many of the last adapters a model may be near to: more than one where the run may be rolled back to them."""
    wanted = plan.config.robustness
    return WINDOW + 1 if wanted.max_accuracy_drop or wanted.max_trigger_rise else 1


def _check_fixed_bands(plan: Plan, broadcast: Broadcast) -> None:
    moving = len(plan.bands_that_open)
    if broadcast.digests[moving:] != band_digests(plan, plan.initial_adapter)[moving:]:
        raise RefusalError(
            f"rows from {plan.bands[moving].start + 1} on of the adapter have moved, and nobody trains them: their bands can "
            "never open"
        )


def _excess(plan: Plan, adapter: Adapter, earlier: Adapter, rounds: int) -> float:
    """By how much an adapter is too far away; not positive if it is not."""
    return _distance(adapter.rows, earlier.rows) - _limit(plan, earlier, rounds)


def _limit(plan: Plan, earlier: Adapter, rounds: int) -> float:
    return movement_limit(plan, rows_norm=_length(earlier.rows), rounds=rounds)


def _distance(rows: Rows, others: Rows) -> float:
    return _length(rows.astype(np.float64) - others)


def _length(rows: np.ndarray) -> float:
    return float(np.linalg.norm(rows.astype(np.float64)))


def _same(rows: Rows, others: Rows) -> bool:
    """Whether they are the same bytes: 0 and -0 are not."""
    return rows.tobytes() == others.tobytes()
