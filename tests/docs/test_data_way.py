"""The picture of the data's way: the one in the repository, readable, and dark where the reader's system is."""

import re
import xml.etree.ElementTree as ET

import pytest

from tests.support.pages import ROOT, read, tool

NAMESPACE = "{http://www.w3.org/2000/svg}"
FILE = ROOT / "docs" / "data-way.svg"
DRAW = tool("data_way")
PALETTES = {"light": DRAW["LIGHT"], "dark": DRAW["DARK"]}
# WCAG 2.1, success criterion 1.4.3: contrast of text of ordinary size.
LEAST_CONTRAST = 4.5


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.1)."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """From 1, no contrast, to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def elements(kind: str) -> list[ET.Element]:
    """All elements of the file of one kind."""
    return list(ET.fromstring(FILE.read_bytes()).iter(NAMESPACE + kind))  # noqa: S314  our own file


def test_the_file_is_what_the_source_draws() -> None:
    """To the byte, and twice the same."""
    assert FILE.read_bytes() == DRAW["picture"]().encode()
    assert tool("data_way")["picture"]() == DRAW["picture"]()


@pytest.mark.parametrize("scheme", PALETTES)
@pytest.mark.parametrize("ground", ["page", "panel", "box", "sees", "part", "hidden"])
def test_text_stands_out_from_its_ground(scheme: str, ground: str) -> None:
    """In both palettes; quiet text stands on the page alone."""
    palette = PALETTES[scheme]

    assert contrast(palette["text"], palette[ground]) >= LEAST_CONTRAST
    assert contrast(palette["quiet"], palette["page"]) >= LEAST_CONTRAST


def test_the_measure_of_contrast_can_fail() -> None:
    """Black on white has 21; the text of the light palette on the dark page would not do."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast(PALETTES["light"]["text"], PALETTES["dark"]["page"]) < LEAST_CONTRAST


def test_the_picture_brings_both_palettes_and_its_ground() -> None:
    """Every class that is drawn has a colour in either; the ground covers all of the picture."""
    (style,) = (element.text or "" for element in elements("style"))
    light, dark = style.split("@media (prefers-color-scheme:dark)")
    used = {
        name
        for kind in ("rect", "text", "path")
        for each in elements(kind)
        for name in each.get("class", "").split()
    }
    ground = elements("rect")[0]

    assert used - {"strong"} <= set(re.findall(r"\.(\w+)\{", light)) & set(re.findall(r"\.(\w+)\{", dark))
    assert (ground.get("class"), ground.get("width"), ground.get("height")) == ("page", "960", "640")


def test_nothing_is_loaded_from_elsewhere() -> None:
    """Neither a font nor a style nor a picture; the one address is the name of the format."""
    assert re.findall(r"[a-z]+://[^\"]+", read("docs/data-way.svg")) == ["http://www.w3.org/2000/svg"]
    assert "@import" not in read("docs/data-way.svg")


def test_words_fit_into_their_boxes_and_the_picture() -> None:
    """By the width that letters have on average."""
    boxes = [*DRAW["stack"](DRAW["CLIENT_STEPS"], 45), *DRAW["stack"](DRAW["SERVER_STEPS"], 585)]
    lines = [(box.words, box.size, box.width) for box in boxes]
    lines += [(words, DRAW["SMALL"], 107) for _, cells in DRAW["SEEN"] for words in cells]
    lines += [(what, DRAW["SMALL"] + 1, 220) for what, _ in DRAW["SEEN"]]
    last = elements("text")[-1]
    lines.append((last.text or "", int(last.get("font-size", "0")), DRAW["WIDTH"] - 60))

    assert len(lines) > 50
    assert [words for words, size, room in lines if len(words) * size * DRAW["LETTER"] > room] == []


def test_every_observer_has_a_cell_in_every_row() -> None:
    """And no cell has a word without a colour."""
    assert all(len(cells) == len(DRAW["COLUMNS"]) for _, cells in DRAW["SEEN"])
    assert {words for _, cells in DRAW["SEEN"] for words in cells} == set(DRAW["COLOURS"])
