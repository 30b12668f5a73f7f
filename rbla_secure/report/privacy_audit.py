"""What an audit of the privacy claims has shown, to people: a table, and what follows from it in plain words."""

from collections.abc import Sequence

from rbla_secure.evaluation.privacy_audit.suite import Report, Row
from rbla_secure.privacy.figures import exact, rounded_down, rounded_up

_COLUMNS = (
    "case",
    "relation",
    "observer",
    "claimed epsilon",
    "at least (any mechanism)",
    "at least (Gaussian)",
    "trials",
    "seconds",
    "verdict",
)


def markdown(report: Report) -> str:
    """A row per case and observer, and why other cases were not tried."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in report.rows]
    if report.not_tried:
        lines += ["", "Not tried:", ""]
        lines += [f"* {each.case}: {each.reason}" for each in report.not_tried]
    return "\n".join(lines) + "\n"


def in_plain_words(report: Report) -> list[str]:
    """What was done, and what it means."""
    done = (
        "Each claim is of one round or step, as the ledgers write it. Trials are so many with the canary and as many without. All "
        f"bounds hold together with a confidence of {report.confidence:.4%}."
    )
    found = (
        f"{len(report.refuted)} of {len(report.rows)} claims are too small."
        if report.refuted
        else "No bound exceeds its claim. An audit refutes claims and proves none."
    )
    return [*(f"{text[0].upper()}{text[1:]}." for text in report.remarks), done, found]


def refutation(rows: Sequence[Row]) -> str:
    """The worst of the refuted claims, in one line."""
    worst = max(rows, key=lambda row: row.shown - row.claimed)
    more = f", and {len(rows) - 1} more claims" if len(rows) > 1 else ""
    return (
        f"the claim of epsilon={rounded_up(worst.claimed)} against {worst.observer} is false: {worst.case!r} ({worst.relation}) shows at "
        f"least {rounded_down(worst.shown)} at delta={exact(worst.delta)}{more}"
    )


def _cells(row: Row) -> list[str]:
    return [
        row.case,
        row.relation,
        row.observer,
        rounded_up(row.claimed),
        rounded_down(row.clopper_pearson),
        "-" if row.gaussian is None else rounded_down(row.gaussian),
        str(row.trials),
        f"{row.seconds:.0f}",
        "EXCEEDED" if row.exceeds else "holds",
    ]
