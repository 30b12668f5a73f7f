"""The page of what happens if: every attack is on it, and everything it points to is there."""

import re
from pathlib import Path

import pytest

from rbla_secure.evaluation.poisoning.registry import AttackName

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "attacks.md").read_text(encoding="utf-8")
SHOWN = sorted(set(re.findall(r"`((?:tests|benchmarks)/[^`]+)`", PAGE)))

# How the page calls what the attacks' names say.
WORDS = {
    "none": "what happens if",
    "sign-flip": "signs are flipped",
    "gaussian": "noise is sent",
    "label-flip": "labels are flipped",
    "scaling": "scaled up",
    "free-rider": "ride free",
    "weight-inflation": "claims many examples",
    "rank-inflation": "rank inflation",
    "sole-owner": "sole owner",
    "row-stuffing": "row stuffing",
}


@pytest.mark.parametrize("place", SHOWN)
def test_what_shows_an_outcome_is_there(place: str) -> None:
    """The file exists, and the test in it, if one is named."""
    path, _, name = place.partition("::")
    text = (ROOT / path).read_text(encoding="utf-8")

    assert not name or f"def {name}(" in text


def test_the_page_points_to_enough() -> None:
    assert len(SHOWN) > 25


@pytest.mark.parametrize("attack", AttackName)
def test_every_attack_is_on_the_page(attack: AttackName) -> None:
    assert WORDS.get(attack, attack).lower() in PAGE.lower()


def test_every_line_of_its_tables_is_whole() -> None:
    """Five columns: what, mode, defence, outcome, and what shows it."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]

    assert {line.count("|") for line in rows} == {6}
    assert len(rows) > 35
