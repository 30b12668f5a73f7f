"""A configuration that passed its checks, for people and machines: bands, quorums, tiers, defences and warnings."""

from rbla_secure.planning.opening import opening_rule, tier_protection
from rbla_secure.planning.promises import Promises
from rbla_secure.planning.warnings import warnings
from rbla_secure.report.console import ConsoleReport, band_rows
from rbla_secure.report.defences import band_defences, band_object, defence_lines, defence_object


def tell_checked(report: ConsoleReport, promises: Promises) -> None:
    """Print what a sound configuration promises."""
    report.checked(band_rows(promises))
    report.tiers(tier_protection(promises).items())
    for line in defence_lines(promises):
        report.line(line)
    for warning in warnings(promises):
        report.line(f"warning: {warning}")
    report.line(f"{opening_rule(promises)}; the plan is sound")


def checked_object(promises: Promises) -> dict[str, object]:
    """The same as one JSON object."""
    bands = [
        {"band": band, "holders": int(holders), "quorum": int(quorum), **band_object(defence)}
        for (band, holders, quorum, _), defence in zip(
            band_rows(promises), band_defences(promises), strict=True
        )
    ]
    return {
        "sound": True,
        "threshold": promises.asked_threshold,
        "bands": bands,
        "tiers": tier_protection(promises),
        "robustness": defence_object(promises.config),
        "warnings": warnings(promises),
    }
