"""The page of commands, from any parser. That of ours is in tests/rbla_secure/cli/test_pages.py."""

import argparse

from rbla_secure.report.commands import commands_page


def test_arguments_are_printed_as_they_are_typed() -> None:
    """Optional, required, repeated and listed arguments, an option with an optional value, and groups with a title."""
    parser = argparse.ArgumentParser(prog="tool")
    one = parser.add_subparsers().add_parser("one", description="Does one thing.")
    one.add_argument("place", metavar="PLACE", help="where")
    one.add_argument("--needed", required=True, metavar="N", help="a number")
    one.add_argument("--many", action="append", default=[], metavar="M", help="several")
    one.add_argument("--perhaps", nargs="?", const="", metavar="P", help="maybe")
    one.add_argument("--pick", choices=("a", "b"), default="a", help="a choice (default: %(default)s)")
    one.add_argument("--secret", help=argparse.SUPPRESS)
    one.add_argument_group("more", "for those who want it").add_argument(
        "--flag", action="store_true", help="a flag"
    )

    page = commands_page(parser)

    usage = "tool one PLACE --needed N [--many M]... [--perhaps [P]] [--pick a|b] [--flag]"
    assert f"## `tool one`\n\nDoes one thing.\n\n```\n{usage}\n```\n" in page
    assert "* `--pick a|b`: a choice (default: a).\n" in page
    assert page.endswith("More, for those who want it:\n\n* `--flag`: a flag.\n")
    assert "--secret" not in page


def test_groups_of_commands_have_no_usage_of_their_own() -> None:
    """Below the heading of a group come those of its actions, a level deeper, in the order of the parser."""
    parser = argparse.ArgumentParser(prog="tool")
    group = parser.add_subparsers().add_parser("group", description="Has actions.").add_subparsers()
    group.add_parser("first", description="Is first.", epilog="And last.")
    group.add_parser("second", description="Is second.")

    page = commands_page(parser)

    assert (
        "## `tool group`\n\nHas actions.\n\n### `tool group first`\n\nIs first.\n\n```\ntool group first\n```\n"
        in page
    )
    assert page.index("And last.") < page.index("### `tool group second`")
