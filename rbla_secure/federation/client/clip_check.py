"""The client's check of the clip norm that a server names under adaptive clipping. Run by the client.

The norm follows noisy counts that only the server sees (`sessions.clip_norm`), so a client cannot compute it. It can bound it:
one count moves the norm by a factor between exp(-rate (1 - quantile)) and exp(rate quantile), whatever was counted, for the
share is cut to [0, 1] (:func:`rbla_secure.privacy.clipping.followed_norm`). The norm of round n depends on the counts
of the rounds up to n - 2. So rounds 1 and 2 clip to the plan's first norm, and a later round to one within reach of the
last that the client accepted, or of the first. What was accepted is a rung of the plan's ladder, half a rung off at
most.

Limit: inside that range the server chooses.
"""

import math

from rbla_secure.errors import RefusalError
from rbla_secure.federation.client.plausibility import Sent
from rbla_secure.planning.noise import counts_before
from rbla_secure.planning.plan import Plan
from rbla_secure.planning.promises import CLIP_STEPS_PER_OCTAVE
from rbla_secure.privacy.clipping import nearest_norm, reach

_HALF_A_RUNG = math.log(2) / (2 * CLIP_STEPS_PER_OCTAVE)
# What a product of many factors may be off against one exponential, relative; far above it.
_ARITHMETIC = 1e-9


def check_clip_norm(plan: Plan, norm: float, *, round_number: int, last: Sent | None) -> None:
    """Refuse a norm that no counts can have led to.

    Args:
        plan: The client's own plan.
        norm: A clip norm of the plan's ladder.
        round_number: Number of the round that clips to it.
        last: The model and norm that the client accepted last; None before the first time.

    Raises:
        RefusalError: It names the norm and the range.
    """
    if not plan.promises.adaptive:
        return
    least, most = _within_reach(plan, plan.config.clip_norm, 0.0, counts_before(round_number))
    if last is not None and last.round <= round_number:
        counts = counts_before(round_number) - counts_before(last.round)
        if not counts:
            # No count in between: the very same norm.
            least = most = last.clip_norm
        else:
            since_least, since_most = _within_reach(plan, last.clip_norm, _HALF_A_RUNG, counts)
            least, most = max(least, since_least), min(most, since_most)
    if not least <= norm <= most:
        raise RefusalError(
            f"clip norm {norm:.6g} of round {round_number} must lie in {least:.6g}..{most:.6g}: no counts of earlier rounds can "
            "have moved it further"
        )


def _within_reach(plan: Plan, start: float, off: float, counts: int) -> tuple[float, float]:
    """Return the lowest and highest rung reachable in `counts` counts from a norm known to a factor of exp(off)."""
    privacy = plan.config.privacy
    down, up = reach(counts, quantile=privacy.quantile, rate=privacy.clip_rate)
    least, most = plan.clip_norms[-1], plan.clip_norms[0]

    def rung(logarithm: float) -> float:
        inside = min(math.log(most), max(math.log(least), math.log(start) + logarithm))
        return nearest_norm(math.exp(inside), plan.clip_norms)

    margin = off + _ARITHMETIC * counts
    return rung(-down - margin), rung(up + margin)
