"""The client's own check of the model that it is sent, before it trains on it. Run by the client.

A server that may send any model can send one that is dead for everybody but one client, or for everybody's data but one
client's, and whatever is summed is then that client's update. Binding all clients to one model does not help: it is one
model. The check uses the model's history:

* The adapter before round 1 follows from the seed of the plan: it is compared to the bit.
* An honest round moves it by no more than `step_bound.py` says: in every value, in every band and in all rows. So the adapter
  before round n lies within (n - m) such steps of the one that this client was sent before round m, whichever rounds it
  missed (`movement.py`).
* Rows of bands that can never open never move: they are compared to the bit in every round.
* The adapter before one round is one adapter: another attempt at it brings the same.
* Rounds go forward: a client that has accepted the model of a round accepts none of an earlier one, round 1 included.

Claim and limit. From the first round on, the model lies inside a ball around the seeded first adapter that grows by one
honest step a round. A server can still send a bad model in the first round whose number allows its distance, patiently or by starting
there (`benchmarks/results/model_attacks.json` says how early that is on the default job), and this check cannot detect
it. Only noise protects then.
"""

from dataclasses import dataclass
from typing import final

from rbla_secure.errors import RefusalError
from rbla_secure.federation.broadcast import Broadcast, band_digests
from rbla_secure.federation.client.movement import Movement
from rbla_secure.federation.step_bound import AverageLimits
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.plan import Plan


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The model that a client accepted last: the adapter, the round that begins with it, and that round's clip norm."""

    round: int
    adapter: Adapter
    clip_norm: float


def check_plausible(
    plan: Plan, broadcast: Broadcast, *, round_number: int, last: Sent | None, limits: AverageLimits
) -> None:
    """Refuse an adapter that honest rounds cannot have led to.

    Args:
        plan: The client's own plan.
        broadcast: The model before a round: all rows of the global adapter, or the first ones and digests of the rest.
        round_number: Number of that round.
        last: The model that the client accepted last; None before the first time.
        limits: The limits of the plan's averages.

    Raises:
        RefusalError: It names the rule, with the numbers.
    """
    adapter, first = broadcast.adapter, plan.initial_adapter
    # Before anything else, round 1 included: who could be led back to it would measure the next model from there.
    if last is not None and last.round > round_number:
        raise RefusalError(
            f"this client was sent the adapter of round {last.round}, and is not sent that of round {round_number} after it"
        )
    _check_fixed_bands(plan, broadcast)
    if round_number == 1:
        if broadcast.digests != band_digests(plan, first):
            raise RefusalError("the adapter of round 1 is not the one that follows from the plan's seed")
        return
    before, since = (last.adapter, last.round) if last is not None else (first.sliced(adapter.rank), 1)
    if since == round_number:
        if adapter.to_bytes() != before.to_bytes():
            raise RefusalError(f"round {round_number} began with another adapter in an earlier attempt")
        return
    Movement(before=before.rows, after=adapter.rows, rounds=round_number - since).check(plan, limits)


def _check_fixed_bands(plan: Plan, broadcast: Broadcast) -> None:
    moving = len(plan.bands_that_open)
    if moving == len(plan.bands):
        return
    if broadcast.digests[moving:] != band_digests(plan, plan.initial_adapter)[moving:]:
        raise RefusalError(
            f"rows from {plan.bands[moving].start + 1} on of the adapter have moved, and nobody trains them: their bands can "
            "never open"
        )
