"""What `check` says of more than a hundred clients a round, against the graphs of the session that the plan makes."""

import re
from typing import Any

import pytest

from protocols.masking.terms import MaskingTerms
from protocols.profiles import SEMI_HONEST
from rbla_secure.planning.promises import Promises
from rbla_secure.planning.warnings import warnings
from tests.support.federations import make_config, make_plan

FOUR_LARGE = {
    "a": {"rank": 2, "clients": 340},
    "b": {"rank": 4, "clients": 5},
    "c": {"rank": 8, "clients": 5},
    "d": {"rank": 16, "clients": 150},
}
TIERS = {"low": {"rank": 2, "clients": 898}, "high": {"rank": 16, "clients": 101}}
MASKED = {"secure_sum": "masking", "masking": {"profile": "semi-honest"}, "tiers": TIERS}


def line(**changes: Any) -> str:
    """The one warning about sparse graphs."""
    (found,) = [
        text for text in warnings(Promises.build(make_config(**{**MASKED, **changes}))) if "sparse" in text
    ]
    return found


def test_a_large_cohort_is_told_what_holds() -> None:
    """Who may be corrupt and drop out is counted over all 999 clients, and the threshold that enforces it is named."""
    text = line()

    assert "999 clients a round" in text
    assert (
        "a server that follows the protocol alone, with at most 99 clients corrupt and 99 dropping out"
        in text
    )
    assert "probability of 2^-40 a session" in text
    assert "masking.threshold=900 ends a round in which more drop out" in text
    assert "masking.threshold" not in line(masking={"profile": "semi-honest", "threshold": 900})


@pytest.mark.parametrize(
    ("changes", "partners"),
    [
        ({}, "46 to 100"),
        ({"upload": "padded"}, "46"),
        ({"robustness": {"group_size": 101}}, "100 to 112"),
        ({"tiers": {"one": {"rank": 2, "clients": 150}}}, "28"),
        ({"tiers": FOUR_LARGE}, "42 to 68"),
    ],
    ids=str,
)
def test_the_numbers_of_masks_are_those_of_the_session(changes: dict[str, Any], partners: str) -> None:
    """Fewest and most neighbours over all segments are those in the mask graphs that clients derive."""
    plan = make_plan(**{**MASKED, **changes})
    session = plan.session(run=bytes(16), round_number=1, attempt=1)
    terms = MaskingTerms(session=session, profile=SEMI_HONEST, trust=None)
    nonces = {p: p.to_bytes(16, "big") for p in range(1, len(session.members) + 1)}
    degrees = {len(peers) for part in session.segments for peers in terms.mask_graph(part, nonces).values()}

    told = re.search(r"each sum with (.+?) others", line(**changes))

    assert told is not None
    assert told[1] == partners
    assert [min(degrees), max(degrees)] == [int(each) for each in (partners.split(" to ") * 2)[:2]]


@pytest.mark.parametrize(
    "changes",
    [{"tiers": {"one": {"rank": 2, "clients": 100}}}, {"secure_sum": "plain"}],
    ids=["a hundred", "plain mode"],
)
def test_nothing_is_said_where_no_graph_is_sparse(changes: dict[str, Any]) -> None:
    """Up to a hundred clients, and without masks, there is no such line."""
    assert not [
        text for text in warnings(Promises.build(make_config(**{**MASKED, **changes}))) if "sparse" in text
    ]
