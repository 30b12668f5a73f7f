"""Conversion of a round's outcome into its line in metrics.jsonl. Run by the server."""

from collections.abc import Sequence
from typing import Any

from protocols.session import ClientId
from rbla_secure.federation.round import RoundOutcome
from rbla_secure.planning.plan import Plan
from rbla_secure.robustness.step_decisions import Action
from rbla_secure.run_folder.records import RoundRecord


def record_of(
    plan: Plan,
    outcome: RoundOutcome,
    *,
    round_number: int,
    cohort: Sequence[ClientId],
    accuracy: float,
    loss: float,
) -> RoundRecord:
    """Return the record of an outcome."""
    sent = outcome.transcript.bytes_up()
    ranks = sorted({plan.ranks[client] for client in cohort})
    by_rank = {rank: [sent.get(c, 0) for c in cohort if plan.ranks[c] == rank] for rank in ranks}
    return RoundRecord(
        round=round_number,
        accuracy=accuracy,
        loss=loss,
        cohort=list(cohort),
        survivors=list(outcome.survivors),
        dropped=dict(sorted(outcome.dropped.items())),
        refusals=dict(sorted(outcome.refusals.items())),
        refused_bands={str(plan.bands[index]): reason for index, reason in outcome.refused_bands.items()},
        holders={str(plan.bands[index]): count for index, count in outcome.holders.items()},
        cut_off=outcome.cut_off,
        unclipped=outcome.unclipped,
        bytes_up_per_client=_mean([sent.get(client, 0) for client in cohort]),
        bytes_up_by_rank={str(rank): _mean(sizes) for rank, sizes in by_rank.items()},
        aborted=outcome.aborted,
        adapter=outcome.adapter.digest().hex(),
        **_judgement(outcome),
    )


def _judgement(outcome: RoundOutcome) -> dict[str, Any]:
    checks = [check.reason for check in outcome.checks if check.action is not Action.ACCEPT]
    checks += outcome.remarks
    judged = outcome.judged
    if judged is None:
        return {"rejected": {}, "groups": {}, "flags": {}, "checks": checks}
    return {
        "rejected": {name: v.reason for name, v in sorted(judged.verdicts.items()) if not v.accepted},
        "groups": {name: list(members) for name, members in judged.groups.items()},
        "flags": dict(judged.flags),
        "checks": checks,
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
