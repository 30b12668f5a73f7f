"""Records of rounds with every field filled in."""

from typing import Any

from rbla_secure.run_folder.records import RoundRecord, RoundSeconds


def make_record(**changes: Any) -> RoundRecord:
    """A round in which nothing went wrong, with fields changed."""
    fields: dict[str, Any] = {
        "round": 1,
        "accuracy": 0.5,
        "loss": 1.25,
        "cohort": ["large-01", "small-01"],
        "survivors": ["large-01", "small-01"],
        "dropped": {},
        "refusals": {},
        "refused_bands": {},
        "holders": {"rows 1-1": 6, "rows 2-3": 3},
        "cut_off": 0.0,
        "unclipped": None,
        "bytes_up_per_client": 1500.0,
        "bytes_up_by_rank": {"1": 1000.0, "3": 2000.0},
        "aborted": "",
        "adapter": "00" * 32,
        "rejected": {},
        "groups": {},
        "flags": {},
        "checks": [],
    }
    return RoundRecord(**(fields | changes))


def make_seconds(**changes: Any) -> RoundSeconds:
    """The seconds of a round, with fields changed."""
    fields: dict[str, Any] = {
        "round": 1,
        "training": 1.0,
        "clients": 0.25,
        "protocol": 0.5,
        "evaluation": 0.125,
    }
    return RoundSeconds(**(fields | changes))
