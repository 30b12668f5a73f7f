"""The page for contributors: its import ladder is that of the code, and it names every place where choices are made."""

import re
from collections.abc import Iterator

import pytest

from tests.support.pages import blocks, read
from tests.test_architecture import ROOT, SOURCES, imports, module_name

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

    assert len(ladder) == 13
    assert len(arrows) > 500
    assert arrows_to_the_right(arrows, ladder) == []


def test_an_import_against_the_ladder_is_found() -> None:
    """The control of the test above."""
    right = ("rbla_secure.planning.plan", "rbla_secure.privacy.noise")
    wrong = ("rbla_secure.lora.bands", "rbla_secure.planning.plan")

    assert arrows_to_the_right([right, wrong], rungs()) == [wrong]


@pytest.mark.parametrize(
    ("choice", "folder"),
    [
        ("AverageRule", "rbla_secure/lora/average/"),
        ("FilterName", "rbla_secure/robustness/filters/"),
        ("Mechanism", "rbla_secure/privacy/noise/"),
        ("SecureSumMode", "rbla_secure/planning/modes/"),
    ],
)
def test_the_page_names_the_folder_in_which_a_choice_is_a_file(choice: str, folder: str) -> None:
    """Which file that is, follows from the name."""
    assert any(folder in row for row in rows_of(choice))
    assert (ROOT / folder).is_dir()


@pytest.mark.parametrize("choice", ["AverageRule", "FilterName", "PreStepName", "AcrossRule", "Mechanism"])
def test_a_choice_that_is_a_file_is_named_nowhere_else(choice: str) -> None:
    """Whoever asks which one it is would have to be asked again for every new one."""
    named = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        if re.search(rf"\b{choice}\.", path.read_text(encoding="utf-8"))
    }

    assert named
    assert {
        name
        for name in named
        if not name.startswith("rbla_secure/config/") and name != "rbla_secure/robustness/registry.py"
    } == set()


def rows_of(choice: str) -> list[str]:
    """The rows of the page that say where a new one is registered."""
    return [
        line
        for line in PAGE.splitlines()
        if line.startswith("| a") and f"({choice})" in line.replace("`", "")
    ]
