"""Write the generated pages of the documentation: ``python -m rbla_secure.cli.pages docs``.

A test compares the pages in docs/ with what this writes.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from rbla_secure.cli.parser import build_parser
from rbla_secure.config.explain import every_section
from rbla_secure.report.commands import commands_page
from rbla_secure.report.configuration import configuration_page


def pages() -> Mapping[str, str]:
    """The text of every generated page, by file name."""
    return {
        "commands.md": commands_page(build_parser()),
        "configuration.md": configuration_page(every_section()),
    }


def main(folder: Path) -> None:
    """Write the pages into an existing folder."""
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
