"""The session of a round, derived from the plan and the rounds before. Run by the server.

A resumed run derives the same session again, and with it what it was about to spend.
"""

from collections.abc import Sequence

from protocols.session import Session
from rbla_secure.planning.noise import counts_before
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.clipping import followed_norm, nearest_norm
from rbla_secure.run_folder.records import RoundRecord


def session_of(
    plan: Plan, *, run: bytes, round_number: int, attempt: int, records: Sequence[RoundRecord]
) -> Session:
    """Return the session of an attempt at a round, over a cohort that follows from seed and round.

    Its clip norm follows from the counts of all rounds but the one before, which is not over when its keys go out.

    Args:
        plan: The plan of the run.
        run: Identity of the run.
        round_number: Number of the round, from 1.
        attempt: Number of the attempt at the round, from 1.
        records: The metrics of the rounds so far, at least all but the last one before this round.
    """
    counts = [record.unclipped for record in records[: counts_before(round_number)]]
    return plan.session(
        run=run, round_number=round_number, attempt=attempt, clip_norm=clip_norm(plan, counts)
    )


def clip_norm(plan: Plan, counts: Sequence[float | None]) -> float:
    """Return the clip norm of a round after these noisy counts; rounds without a count leave it unchanged."""
    privacy = plan.config.privacy
    heard = [share for share in counts if share is not None]
    wanted = followed_norm(
        plan.config.clip_norm,
        heard,
        quantile=privacy.quantile,
        rate=privacy.clip_rate,
        limits=(plan.clip_norms[-1], plan.clip_norms[0]),
    )
    return nearest_norm(wanted, plan.clip_norms)
