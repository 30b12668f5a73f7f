"""A configuration that was found sound, to people and to machines: bands, quorums, tiers, defences and warnings."""

from rbla_secure.config import Config
from rbla_secure.planning.opening import asked_threshold, opening_rule, tier_protection
from rbla_secure.planning.warnings import warnings
from rbla_secure.report.console import ConsoleReport, band_rows
from rbla_secure.report.defences import band_defences, band_object, defence_lines, defence_object


def tell_checked(report: ConsoleReport, config: Config) -> None:
    """Print what a sound configuration promises."""
    report.checked(band_rows(config))
    report.tiers(tier_protection(config).items())
    for line in defence_lines(config):
        report.line(line)
    for warning in warnings(config):
        report.line(f"warning: {warning}")
    report.line(f"{opening_rule(config)}; the plan is sound")


def checked_object(config: Config) -> dict[str, object]:
    """The same as one JSON object."""
    bands = [
        {"band": band, "holders": int(holders), "quorum": int(quorum), **band_object(defence)}
        for (band, holders, quorum, _), defence in zip(band_rows(config), band_defences(config), strict=True)
    ]
    return {
        "sound": True,
        "threshold": asked_threshold(config),
        "bands": bands,
        "tiers": tier_protection(config),
        "robustness": defence_object(config),
        "warnings": warnings(config),
    }
