"""Results of an audit of the privacy claims, for people: a table, and a summary in plain words."""

from collections.abc import Sequence

from rbla_secure.evaluation.privacy_audit.results import Report, Row
from rbla_secure.privacy.figures import exact, rounded_down, rounded_up

_COLUMNS = (
    "case",
    "relation",
    "observer",
    "claimed epsilon",
    "at least (any mechanism)",
    "at least (Gaussian)",
    "most that so many trials can show (any, Gaussian)",
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


def document(report: Report) -> str:
    """The whole report as Markdown: words first, then the table."""
    return "\n\n".join([*in_plain_words(report), markdown(report)])


def on_terminal(report: Report) -> list[str]:
    """The whole report for a terminal: the table first, then the words."""
    return [markdown(report), *in_plain_words(report)]


def in_plain_words(report: Report) -> list[str]:
    """Say what was done and what it means."""
    done = (
        "Each claim is of one round or step, or of the rounds that its case names, as the ledgers write it. Trials are so many with the "
        f"canary and as many without. All bounds hold together with a confidence of {report.confidence:.4%}."
    )
    found = (
        f"{len(report.refuted)} of {len(report.rows)} claims are too small."
        if report.refuted
        else "No bound exceeds its claim. An audit refutes claims and proves none."
    )
    remarks = [f"{text[0].upper()}{text[1:]}." for text in report.remarks]
    return [*remarks, done, *_too_few(report), *_of_gaussians_alone(report), found]


def _too_few(report: Report) -> list[str]:
    """Return a line per case and claim that this number of trials could not have refuted, whatever they showed."""
    lines = {
        f"{row.case}: {row.trials} trials cannot show more than {rounded_up(_most(row))}: a claim of {rounded_up(row.claimed)} cannot be refuted; "
        f"{_needed(row)}, if they all could be told apart"
        for row in report.rows
        if row.too_few
    }
    if not lines:
        return []
    count = sum(row.too_few for row in report.rows)
    return [
        f"Of {count} of {len(report.rows)} claims nothing could have been shown (--trials, --seconds):",
        *sorted(lines),
    ]


def _needed(row: Row) -> str:
    return (
        "no number of trials would do"
        if row.trials_needed is None
        else f"{row.trials_needed} trials would do"
    )


def _most(row: Row) -> float:
    return row.most_clopper_pearson if row.most_gaussian is None else row.most_gaussian


def _of_gaussians_alone(report: Report) -> list[str]:
    """Return a line on the claims that only the Gaussian bound could have refuted; empty if there are none."""
    rows = [row for row in report.rows if not row.too_few and row.most_clopper_pearson <= row.claimed]
    if not rows:
        return []
    most = max(row.most_clopper_pearson for row in rows)
    text = (
        f"{len(rows)} of {len(report.rows)} claims the Gaussian bound alone could refute: so many trials show no more than {rounded_up(most)} of "
        "any mechanism."
    )
    return [text]


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
        f"{rounded_up(row.most_clopper_pearson)}, {'-' if row.most_gaussian is None else rounded_up(row.most_gaussian)}",
        str(row.trials),
        f"{row.seconds:.0f}",
        _verdict(row),
    ]


def _verdict(row: Row) -> str:
    if row.exceeds:
        return "EXCEEDED"
    return "TOO FEW TRIALS" if row.too_few else "holds"
