"""The table of wrong designs in the privacy page is what accounting says of them."""

import math
import re
from pathlib import Path

import pytest

from rbla_secure.privacy.accounting import epsilon
from rbla_secure.privacy.noise import Release

CLIENTS, ROUNDS, MULTIPLIER, DELTA = 20, 30, 4.0, 1e-5
# By the first words of a row: the noise multiplier of a row with so many holders.
DESIGNS = {
    "noise z C": lambda _holders: MULTIPLIER,
    "divide first": lambda holders: MULTIPLIER * holders / CLIENTS,
    "shares of": lambda holders: MULTIPLIER * math.sqrt(holders / CLIENTS),
}


def table() -> dict[str, list[float]]:
    """The rows of the table of designs, and its head under "design"."""
    whole = (Path(__file__).parents[3] / "docs" / "privacy-analysis.md").read_text(encoding="utf-8")
    page = whole.split("## Designs that look alike")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \|((?: [\d.]+ \|)+)$", page, flags=re.MULTILINE)
    return {name: [float(cell) for cell in cells.split("|")[:-1]] for name, cells in rows}


def test_the_table_is_whole() -> None:
    """Every design of the test is in the page, and no other."""
    names = [name for name in table() if name != "design"]

    assert len(names) == len(DESIGNS)
    assert all(any(name.startswith(start) for start in DESIGNS) for name in names)
    assert table()["design"] == [20, 12, 6, 2]


@pytest.mark.parametrize("start", DESIGNS)
def test_a_designs_epsilon_is_that_of_its_true_multiplier(start: str) -> None:
    """To the decimal that is printed, for every number of holders."""
    rows = table()
    found = next(cells for name, cells in rows.items() if name.startswith(start))

    expected = [
        epsilon(
            [Release(noise_multiplier=DESIGNS[start](int(holders)), slack=0.0, rho=math.nan)] * ROUNDS, DELTA
        )
        for holders in rows["design"]
    ]

    assert found == [round(value, 1) for value in expected]
