"""Keys in lines, as an object and as a page. What our own keys say is in tests/rbla_secure/config/test_explain.py."""

from rbla_secure.config.explain import Key, Section
from rbla_secure.report.configuration import configuration_page, explanation_lines, explanation_object

MODE = Key(
    name="mode",
    default="fast",
    values='"fast" or "slow"',
    choices=("fast", "slow"),
    meaning="How fast it goes.",
)
SIZE = Key(
    name="box.size",
    default=None,
    values="whole number from 1 to 9",
    choices=(),
    meaning="Its size. " + "Long. " * 30,
)
SECTIONS = (
    Section(name="", meaning="All of it.", keys=(MODE,)),
    Section(name="box", meaning="A box.", keys=(SIZE,)),
)


def test_lines_have_default_range_and_meaning() -> None:
    """As TOML where there is a default; long texts are wrapped, and no empty line stands at the end."""
    lines = explanation_lines(SECTIONS)

    assert lines[:8] == [
        "# All of it.",
        "",
        'mode = "fast"',
        '    "fast" or "slow"',
        "    How fast it goes.",
        "",
        "# A box.",
        "",
    ]
    assert lines[8:10] == ["box.size    (no default)", "    whole number from 1 to 9"]
    assert " ".join(line.strip() for line in lines[10:]) == SIZE.meaning.strip()
    assert max(map(len, lines)) <= 96


def test_an_object_has_the_same() -> None:
    """Null for what is not there."""
    assert explanation_object(SECTIONS) == {
        "keys": [
            {
                "key": "mode",
                "table": "",
                "default": "fast",
                "values": '"fast" or "slow"',
                "choices": ["fast", "slow"],
                "meaning": "How fast it goes.",
            },
            {
                "key": "box.size",
                "table": "box",
                "default": None,
                "values": "whole number from 1 to 9",
                "choices": None,
                "meaning": SIZE.meaning,
            },
        ]
    }


def test_a_page_has_a_heading_for_each_key() -> None:
    """So that other pages can point to it."""
    page = configuration_page(SECTIONS)

    assert page.startswith("# Configuration\n")
    assert '### `mode`\n\n*Default:* `"fast"`.\n*Values:* "fast" or "slow".\n\nHow fast it goes.\n' in page
    assert "## `[box]`\n\nA box.\n\n### `box.size`\n\n*No default:* it must be set.\n" in page
