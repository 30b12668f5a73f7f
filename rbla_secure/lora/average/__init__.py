"""From totals per band to one average: RBLA, its family, and the baselines. Run by the server. One file per rule.

For row s, held by the surviving clients E_s with weights w_k, and q_s = sum_{E_s} w_k / sum_all w_k:

    RBLA       row_s = sum_{E_s} w_k x_k / sum_{E_s} w_k                 (Chen et al. 2024, arXiv 2408.08699)
    family     row_s = q_s^gamma * RBLA on lora_B, RBLA on lora_A        (gamma = 0 is RBLA)
    zero pad   row_s = q_s * RBLA on both: missing rows count as zeros
    FedAvg     equal ranks only: q_s = 1 and all of them coincide

All take the same totals, so a comparison swaps one name. A row that nobody holds, or whose band stayed closed, is
*absent* from the average, never zero: it keeps its previous global value.

To add a rule, write a file that defines `RULE`, and add its name to `AverageRule` in rbla_secure/config/choices.py.
"""

from functools import cache

from rbla_secure.config.choices import AverageRule
from rbla_secure.implementations import implementation
from rbla_secure.lora.average.rule import AveragingRule, GroupAverage, Totals, apply_average

__all__ = ["AveragingRule", "GroupAverage", "Totals", "apply_average", "averaging_rule"]


@cache
def averaging_rule(name: AverageRule) -> AveragingRule:
    """Return the rule of this name."""
    return implementation(__name__, name, "RULE", AveragingRule)  # type: ignore[type-abstract]  # any rule
