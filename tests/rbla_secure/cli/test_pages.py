"""The generated pages of the documentation are those of this version."""

from pathlib import Path

import pytest

from rbla_secure.cli import pages
from rbla_secure.cli.command import CommandGroup
from rbla_secure.cli.commands import COMMANDS
from rbla_secure.config.explain import every_section

DOCS = Path(__file__).parents[3] / "docs"
REMEDY = "run: python -m rbla_secure.cli.pages docs"


@pytest.mark.parametrize("name", ["commands.md", "configuration.md"])
def test_a_page_is_current(name: str) -> None:
    """A key or an argument that changes without its page is found here."""
    assert (DOCS / name).read_text(encoding="utf-8") == pages.pages()[name], REMEDY


def test_pages_are_written_where_they_are_wanted(tmp_path: Path) -> None:
    """Both pages, and nothing else."""
    pages.main(tmp_path)

    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == pages.pages()


def test_the_page_of_commands_has_every_command() -> None:
    """A heading for each command and action, its description, and how it is typed."""
    page = pages.pages()["commands.md"]

    for command in COMMANDS:
        actions = command.actions if isinstance(command, CommandGroup) else (command,)
        group = f"{command.name} " if isinstance(command, CommandGroup) else ""
        for action in actions:
            assert f"# `rbla-secure {group}{action.name}`\n\n{action.description}" in page
            assert f"```\nrbla-secure {group}{action.name} " in page
            assert action.notes in page


def test_the_page_of_keys_has_every_key() -> None:
    """A heading for each table and key, and what is said of it."""
    page = pages.pages()["configuration.md"]

    for section in every_section():
        assert section.meaning in page
        for key in section.keys:
            assert f"### `{key.name}`\n" in page
            assert key.meaning in page


def test_passphrases_are_not_offered_as_arguments() -> None:
    """An argument that exists only to be refused is on no page."""
    page = pages.pages()["commands.md"]

    assert "--passphrase-file F" in page
    assert "--passphrase`" not in page
    assert "--client-passphrase`" not in page
