"""Arguments that several commands share, and the types of single arguments."""

import argparse
from collections.abc import Callable
from pathlib import Path


def add_configuration(parser: argparse.ArgumentParser) -> None:
    """Add an optional configuration file and overrides of its keys."""
    parser.add_argument(
        "config", nargs="?", type=Path, metavar="CONFIG", help="TOML file; without it, the default job"
    )
    add_overrides(parser)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add overrides of single keys of a configuration."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_override,
        metavar="KEY=VALUE",
        help="override one key, such as rounds=5 or tiers.phone.clients=4; may be given several times",
    )


def whole_number(least: int, largest: int) -> Callable[[str], int]:
    """Return the type of an argument that is a whole number in [least, largest]."""

    def number(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or not least <= int(text) <= largest:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number in {least}..{largest}")
        return int(text)

    return number


def attacker_share(text: str) -> float:
    """Parse a share of attackers: above 0 and below 1/2, for half of all clients have no majority to attack."""
    value = _number(text)
    if not 0 < value < 0.5:  # noqa: PLR2004 - the half of the docstring
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0 and below 0.5")
    return value


def confidence(text: str) -> float:
    """Parse a confidence: above 1/2 and at most 1 - 1e-9, for bounds that never err bound nothing."""
    value = _number(text)
    if not 0.5 < value <= 1 - 1e-9:  # noqa: PLR2004 - the limits of the docstring
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0.5 and at most 0.999999999")
    return value


def _number(text: str) -> float:
    """Return the number, or 0, which no type above accepts, for text that is none."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def _override(text: str) -> str:
    key, equals, _ = text.partition("=")
    if not equals or not key.strip():
        raise argparse.ArgumentTypeError(f"{text!r} must be key=value")
    return text
