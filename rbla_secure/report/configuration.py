"""The keys of the configuration for a terminal, for machines, and as the page docs/configuration.md."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from rbla_secure.config.explain import Key, Section

_WIDTH: Final = 96
_INTRODUCTION: Final = """\
# Configuration

A run is described by one TOML file. Whatever it leaves out has its default; a key that is not listed here is an error. Keys can also be
given on the command line, over those of the file: `--set rounds=5 --set privacy.delta=1e-6`.

`rbla-secure config` prints the configuration in force, and `rbla-secure config --explain KEY` what is said here of one key or table.
"""


def explanation_lines(sections: Sequence[Section]) -> list[str]:
    """The keys for a terminal, in the order of the schema."""
    return [line for section in sections for line in _section_lines(section)][:-1]


def explanation_object(sections: Sequence[Section]) -> dict[str, object]:
    """The keys as one JSON object."""
    return {
        "keys": [
            {
                "key": key.name,
                "table": section.name,
                "default": key.default,
                "values": key.values,
                "choices": list(key.choices) or None,
                "meaning": key.meaning,
            }
            for section in sections
            for key in section.keys
        ]
    }


def configuration_page(sections: Sequence[Section]) -> str:
    """The page of all keys as Markdown, a heading for each key so that other pages can point to it."""
    parts = [_INTRODUCTION.rstrip()]
    for section in sections:
        title = f"`[{section.name}]`" if section.name else "Keys outside of tables"
        parts += [f"## {title}", section.meaning]
        for key in section.keys:
            parts += [f"### `{key.name}`", f"{_default(key)}\n*Values:* {key.values}.", key.meaning]
    return "\n\n".join(parts) + "\n"


def _section_lines(section: Section) -> Iterator[str]:
    yield from textwrap.wrap(f"# {section.meaning}", _WIDTH, subsequent_indent="# ", break_on_hyphens=False)
    yield ""
    for key in section.keys:
        yield f"{key.name} = {key.default_text}" if key.default_text else f"{key.name}    (no default)"
        for text in (key.values, key.meaning):
            yield from textwrap.wrap(
                text, _WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
            )
        yield ""


def _default(key: Key) -> str:
    return f"*Default:* `{key.default_text}`." if key.default_text else "*No default:* it must be set."
