"""Rules across the averages of groups: one file each."""

from functools import cache

from rbla_secure.config.choices import AcrossRule
from rbla_secure.implementations import implementation
from rbla_secure.robustness.across.rule import GroupRule


@cache
def group_rule(name: AcrossRule) -> GroupRule:
    """Return the rule of this name."""
    return implementation(__name__, name, "RULE", GroupRule)  # type: ignore[type-abstract]  # any rule
