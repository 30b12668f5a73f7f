"""The output of ``rbla-secure account``, text and JSON object: privacy that a plan would spend, or that was spent."""

from pathlib import Path

from rbla_secure.planning.forecast import forecast, sample_forecast
from rbla_secure.planning.plan import Plan
from rbla_secure.planning.round_costs import round_costs
from rbla_secure.report import privacy
from rbla_secure.report import round_costs as costs_report
from rbla_secure.report.console import ConsoleReport
from rbla_secure.report.lifetime import budget_lines, budgets_in


def tell_forecast(report: ConsoleReport, plan: Plan) -> dict[str, object]:
    """Print the privacy that a plan would spend; return the same as one JSON object."""
    told: dict[str, object] = {"epsilon": None}
    if plan.mechanism is None and plan.sample_level is None:
        report.line("noise-multiplier=0: no noise is added, and nothing bounds epsilon")
        return told
    if plan.mechanism is not None:
        spent_by_clients = forecast(plan, plan.mechanism)
        report.account(privacy.forecast_lines(spent_by_clients), privacy.band_ratios(spent_by_clients))
        told = privacy.forecast_object(spent_by_clients)
        told["fewer_rounds"] = _tell_fewer_rounds(report, plan)
    if plan.sample_level is not None:
        spent_by_examples = sample_forecast(plan.config)
        report.account(privacy.sample_forecast_lines(spent_by_examples))
        told["sample_level"] = privacy.sample_forecast_object(spent_by_examples)
    return told


def spent(folder: Path) -> tuple[list[str], dict[str, object]]:
    """Return the privacy spent according to the ledgers of a run folder, or to the clients' budgets in a folder.

    Returns:
        Lines for people, and the same as one JSON object.

    Raises:
        PrivacyError: A ledger is missing, damaged, shortened, edited, or cannot be accounted for.
    """
    if (budgets := budgets_in(folder)) is not None:
        return budget_lines(budgets), {"budgets": [each.model_dump(mode="json") for each in budgets]}
    clients, examples = privacy.spent_in(folder)
    if clients is None and examples is None:
        nothing = f"{folder} has no privacy.json: nothing was noised, and nothing bounds epsilon"
        return [nothing], {"epsilon": None}
    lines: list[str] = []
    told: dict[str, object] = {"epsilon": None}
    if clients is not None:
        lines += clients.lines()
        told = {"epsilon": clients.epsilon, **clients.model_dump(mode="json")}
    if examples is not None:
        lines += examples.lines()
        told["sample_level"] = examples.model_dump(mode="json")
    return lines, told


def _tell_fewer_rounds(report: ConsoleReport, plan: Plan) -> dict[str, object] | None:
    costs = round_costs(plan)
    if costs is None:
        return None
    report.account(costs_report.round_cost_lines(costs, plan))
    report.table(*costs_report.round_cost_table(costs, plan))
    return costs_report.round_cost_object(costs, plan)
