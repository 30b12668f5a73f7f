"""The rules against other people's code: byzfl, byzpy and Flower on the same matrices."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rbla_secure.robustness.rules.clipping import centered_clipping
from rbla_secure.robustness.rules.coordinatewise import coordinate_median, trimmed_mean
from rbla_secure.robustness.rules.geometric import geometric_median
from rbla_secure.robustness.rules.krum import krum, multi_krum
from rbla_secure.robustness.rules.mixing import nearest_neighbor_mixing

# Written by benchmarks/robust_rules_vectors.py, which says what each peer was asked.
VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "robust_rules.json").read_text())
ANSWERS = {(answer["peer"], answer["rule"]): answer["results"] for answer in VECTORS["answers"]}

# By rule, as the papers have it; peers that differ from the paper are asked in their own convention.
OURS: dict[str, Callable[[Any, int], Any]] = {
    "median": lambda x, _: coordinate_median(x),
    "trimmed-mean": lambda x, f: trimmed_mean(x, f=f),
    "krum": lambda x, f: krum(x, f=f),
    "multi-krum": lambda x, f: multi_krum(x, f=f),
    "nearest-neighbor-mixing": lambda x, f: nearest_neighbor_mixing(x, f=f),
    "geometric-median": lambda x, _: geometric_median(x, nu=1e-12, iterations=5000),
    "centered-clipping": lambda x, _: centered_clipping(
        x, center=np.zeros(x.shape[1]), radius=1.5, iterations=3
    ),
}
IN_THEIR_CONVENTION: dict[tuple[str, str], Callable[[Any, int], Any]] = {
    ("byzfl", "krum"): lambda x, f: krum(x, f=f, neighbors=len(x) - f - 1),
    ("byzpy", "krum"): lambda x, f: krum(x, f=f, neighbors=len(x) - f - 1),
    ("byzfl", "multi-krum"): lambda x, f: multi_krum(x, f=f, neighbors=len(x) - f - 1),
    ("byzpy", "multi-krum"): lambda x, f: multi_krum(x, f=f, neighbors=len(x) - f - 1),
    ("byzfl", "geometric-median"): lambda x, _: geometric_median(
        x, start=np.zeros(x.shape[1]), nu=0.1, iterations=3
    ),
}


@pytest.mark.parametrize(("peer", "rule"), ANSWERS, ids="-".join)
def test_a_rule_returns_what_the_peer_returns(peer: str, rule: str) -> None:
    ours = IN_THEIR_CONVENTION.get((peer, rule), OURS[rule])

    for case, theirs in zip(VECTORS["cases"], ANSWERS[peer, rule], strict=True):
        # Until it stands still, byzpy's Weiszfeld is no closer than this.
        tolerance = 1e-7 if (peer, rule) == ("byzpy", "geometric-median") else 1e-9
        assert ours(np.array(case["x"]), case["f"]) == pytest.approx(np.array(theirs), rel=0, abs=tolerance)


def test_every_rule_is_asked_about_at_least_forty_matrices() -> None:
    assert set(OURS) == {rule for _, rule in ANSWERS}
    assert all(len(results) >= 40 for results in ANSWERS.values())


def test_the_two_conventions_of_krum_differ_on_these_matrices() -> None:
    """Otherwise the vectors would not notice a change from one to the other."""
    matrices = [(np.array(case["x"]), case["f"]) for case in VECTORS["cases"]]

    papers = [krum(x, f=f) for x, f in matrices]
    theirs = [krum(x, f=f, neighbors=len(x) - f - 1) for x, f in matrices]

    assert any((a != b).any() for a, b in zip(papers, theirs, strict=True))
