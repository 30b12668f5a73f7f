"""The page for contributors: its import ladder is that of the code, and it names every place where choices are made."""

from collections.abc import Iterator

import pytest

from tests.support.pages import blocks, read
from tests.test_architecture import SOURCES, imports, module_name

PAGE = read("CONTRIBUTING.md")


def rungs() -> dict[str, int]:
    """By package, how far right it stands on the page's ladder."""
    (ladder,) = (block for block in blocks(PAGE, "text") if "<-" in block)
    found = {}
    for number, rung in enumerate(ladder.split("<-")):
        for name in rung.strip().split(", "):
            found["protocols" if name == "protocols" else f"rbla_secure.{name}"] = number
    return found


def rung_of(module: str, ladder: dict[str, int]) -> int | None:
    """Where a module stands; None if the ladder does not name its package."""
    return ladder.get("protocols" if module.startswith("protocols") else ".".join(module.split(".")[:2]))


def arrows_to_the_right(arrows: list[tuple[str, str]], ladder: dict[str, int]) -> list[tuple[str, str]]:
    """The imports that go against the ladder."""
    found = []
    for importer, imported in arrows:
        here, there = rung_of(importer, ladder), rung_of(imported, ladder)
        if here is not None and there is not None and there > here:
            found.append((importer, imported))
    return found


def all_arrows() -> Iterator[tuple[str, str]]:
    """Every import inside the two packages."""
    for path in SOURCES:
        for name in imports(path):
            if name.split(".")[0] in {"protocols", "rbla_secure"}:
                yield module_name(path), name


def test_no_import_goes_against_the_pages_ladder() -> None:
    """Every module of the code, held against the line in the page."""
    ladder, arrows = rungs(), list(all_arrows())

    assert len(ladder) == 12
    assert len(arrows) > 500
    assert arrows_to_the_right(arrows, ladder) == []


def test_an_import_against_the_ladder_is_found() -> None:
    """The control of the test above."""
    right = ("rbla_secure.planning.plan", "rbla_secure.privacy.noise")
    wrong = ("rbla_secure.lora.bands", "rbla_secure.planning.plan")

    assert arrows_to_the_right([right, wrong], rungs()) == [wrong]


@pytest.mark.parametrize(
    ("choice", "module"),
    [
        ("AverageRule", "rbla_secure/federation/round.py"),
        ("FilterName", "rbla_secure/robustness/registry.py"),
        ("FilterName", "rbla_secure/federation/step_bound.py"),
        ("Mechanism", "rbla_secure/planning/noise.py"),
    ],
)
def test_the_page_names_where_choices_are_made(choice: str, module: str) -> None:
    """The file is named in the row of the choice, and the choice is made in the file."""
    rows = [
        line
        for line in PAGE.splitlines()
        if line.startswith("| a") and f"({choice!s}" in line.replace("`", "")
    ]

    assert any(module in row for row in rows)
    assert f"{choice}." in read(module)
