"""Rounds in which clients are summed in groups."""

from collections.abc import Mapping
from typing import Any

from rbla_secure.planning.plan import Plan
from tests.support import federations

# Three groups of three in rank 3, and three or four, of three and four, in rank 1: six groups in row 1.
TIERS = {"large": {"rank": 3, "clients": 9}, "small": {"rank": 1, "clients": 10}}


def make_plan(
    profile: str = "semi-honest", *, robustness: Mapping[str, Any] | None = None, **changes: Any
) -> Plan:
    return federations.make_plan(
        **{
            "tiers": TIERS,
            "secure_sum": "masking",
            "masking": {"profile": profile},
            "robustness": {"f": 1, "group_size": 3, **(robustness or {})},
            **changes,
        }
    )
