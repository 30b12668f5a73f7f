"""The threat model as a page: half a page to begin with, short rows of limits, and notes that rows lead to."""

import re

import pytest

from tests.support.pages import read

PAGE = read("threat_model.md")
LONGEST_ROW = 250
HALF_A_PAGE = 3600  # bytes, markup included


def section(heading: str, page: str = PAGE) -> str:
    """What stands below a heading of the second level, up to the next one."""
    return page.split(f"\n## {heading}\n")[1].split("\n## ", maxsplit=1)[0]


def rows(text: str) -> list[str]:
    """The lines of its tables, without their heads."""
    return re.findall(r"^\|(?! (?:limit|not protected|you fear) )(?!-).*$", text, re.MULTILINE)


def long_rows(text: str) -> list[str]:
    """Rows that nobody reads to their end."""
    return [row for row in rows(text) if len(row) > LONGEST_ROW]


def stray_notes(text: str) -> set[str]:
    """Numbers at the end of a row without a note, notes that no row leads to, and those that two rows lead to."""
    called = re.findall(r"\((\d+)\) \|", text)
    notes = re.findall(r"^(\d+)\. ", text, re.MULTILINE)
    return set(called) ^ set(notes) | {number for number in called if called.count(number) > 1}


def test_it_begins_with_half_a_page() -> None:
    """What is protected against whom, which mode for whom, what to rely on, and how to check it."""
    first = PAGE.split("\n## ")[1]

    assert first.startswith("In half a page\n")
    assert len(first.encode()) <= HALF_A_PAGE
    assert len(rows(first)) == 8
    assert all(word in first for word in ("Which mode for whom?", "`masking`", "`homomorphic`", "`plain`"))


def test_limits_are_short_rows() -> None:
    """What needs more words stands in a note that the row leads to."""
    limits = section("Known limits")

    assert len(rows(limits)) == 42
    assert long_rows(limits) == []
    assert stray_notes(limits) == set()


def test_a_long_row_or_a_stray_note_is_found() -> None:
    """The controls of the test above."""
    page = f"| limit | x |\n|---|---|\n| {'long ' * 60} | |\n| a (1) | |\n| b (2) | |\n\n1. One.\n3. Three.\n"

    assert len(long_rows(page)) == 1
    assert stray_notes(page) == {"2", "3"}


@pytest.mark.parametrize("kind", ["rows", "claims"])
def test_nothing_is_left_out(kind: str) -> None:
    """A row for each paragraph on what is not protected; claims are numbered from 1 without a gap."""
    if kind == "rows":
        text = section("What it is not for (non-goals of this version)")
        assert len(rows(text)) == len(re.findall(r"^\* \*\*", text, re.MULTILINE)) > 0
    else:
        numbers = [int(number) for number in re.findall(r"^(\d+)\. ", section("Claims"), re.MULTILINE)]
        assert numbers == list(range(1, 48))
        assert f"{len(numbers)} numbered claims" in read("README.md")
