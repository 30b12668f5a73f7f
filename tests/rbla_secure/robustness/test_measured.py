"""What is said of filters is what was measured of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from rbla_secure.planning.promises import Promises
from rbla_secure.report.defences import defence_lines
from rbla_secure.robustness.registry import MEASURED, RECOMMENDED
from tests.support.federations import make_config

ROOT = Path(__file__).parents[3]
RUNS: list[dict[str, Any]] = [
    run
    for run in json.loads((ROOT / "benchmarks/results/robustness.json").read_text())["runs"].values()
    if run["experiment"] == "adaptive"
]
DEFAULT, SEVEN = "default job", "seven at rank 16"


def told(job: str, defence: str, trigger: str) -> str:
    """How often the adaptive attack's trigger works, least to most over the seeds, as tables print it."""
    found = [
        run["success"] * 100
        for run in RUNS
        if (run["row"], run["trigger"], run["attack"]) == (f"{job}, {defence}", trigger, "adaptive")
    ]
    assert len(found) == 4
    return f"{min(found):.0f} to {max(found):.0f}"


@pytest.mark.parametrize("trigger", ["corner", "scattered"])
@pytest.mark.parametrize(("job", "defence"), [(DEFAULT, str(RECOMMENDED)), (SEVEN, "tier-dnc-cosine")])
def test_the_ranges_that_are_said_are_those_of_the_runs(job: str, defence: str, trigger: str) -> None:
    """In the text for people, on the page of robustness, on that of what happens if, and in the table of the benchmark."""
    pages = ("docs/robustness.md", "docs/attacks.md", "benchmarks/results/robustness.md")

    assert f"{told(job, defence, trigger)} %" in MEASURED
    for page in pages:
        assert told(job, defence, trigger) in (ROOT / page).read_text(encoding="utf-8")


def test_every_attack_behind_them_took_place() -> None:
    """Every attacker of every round but for drop-outs that the job injects, at the strength that is written down."""
    attacked = [run for run in RUNS if run["attack"] == "adaptive"]

    assert len(attacked) == 4 * 2 * 4
    assert all(run["attacks_seen"] >= 25 and not run["refused"] for run in attacked)
    assert all(run["strength"] > 0 for run in attacked)


def test_whoever_takes_a_filter_is_told() -> None:
    """By `check` and at the start of a run; not where there is none."""
    tiers = {"all": {"rank": 2, "clients": 9}}
    filtered = make_config(tiers=tiers, robustness={"filter": "tier-dnc-cosine", "f": 2})
    quorum = make_config(tiers=tiers, robustness={"f": 2})

    assert defence_lines(Promises.build(filtered))[-1] == MEASURED
    assert MEASURED not in defence_lines(Promises.build(quorum))
