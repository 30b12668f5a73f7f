"""Rounds behind a defence."""

from typing import Any

from rbla_secure.planning.plan import Plan
from tests.support.defended import make_plan

# Five hold row 1 to 3, four more row 1 alone; against two attackers a band needs five.
QUORUM_TIERS = {"large": {"rank": 3, "clients": 5}, "small": {"rank": 1, "clients": 4}}


def quorum_plan(mode: str, profile: str = "one-answer", **changes: Any) -> Plan:
    robustness = {"f": 2, **changes.pop("robustness", {})}
    return make_plan(
        tiers=QUORUM_TIERS, secure_sum=mode, masking={"profile": profile}, robustness=robustness, **changes
    )
