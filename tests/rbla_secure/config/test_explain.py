"""What is said of every key is what the loader enforces."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import pytest

from rbla_secure.config import Config, load_config
from rbla_secure.config.explain import Key, every_section, find
from rbla_secure.errors import ConfigError

KEYS = {key.name: key for section in every_section() for key in section.keys}
NUMBERS = sorted(name for name, key in KEYS.items() if "number" in key.values)
NUMBER = r"([-\d_.e]+)"


def named(key: str) -> str:
    """The key as it is set on the default configuration: of one of its tiers."""
    return key.replace("NAME", "phone")


def accepted(key: str, value: object) -> bool:
    """Whether a configuration can have this value."""
    try:
        load_config(None, [f"{named(key)}={json.dumps(value)}"])
    except ConfigError:
        return False
    return True


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every dotted key of nested tables, with its value."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def limits(key: Key) -> list[tuple[float, bool, int]]:
    """The limits in the words of a range: the number, whether it is allowed itself, and which way is out of range."""
    rules = (
        (f"from {NUMBER}", True, -1),
        (f"at least {NUMBER}", True, -1),
        (f"above {NUMBER}", False, -1),
        (f"to {NUMBER}", True, 1),
        (f"at most {NUMBER}", True, 1),
        (f"below {NUMBER}", False, 1),
    )
    return [
        (float(found[1]), inclusive, outwards)
        for pattern, inclusive, outwards in rules
        if (found := re.search(pattern, key.values))
    ]


def test_every_key_is_listed_with_its_default() -> None:
    """The keys and defaults of a dump of the default configuration, one tier standing for all."""
    dump = flat(Config().model_dump(mode="json", by_alias=True))
    expected = {
        key.replace("tiers.phone.", "tiers.NAME."): value
        for key, value in dump.items()
        if not key.startswith("tiers.") or key.startswith("tiers.phone.")
    }
    required = {"tiers.NAME.rank": None, "tiers.NAME.clients": None}

    assert {name: key.default for name, key in KEYS.items()} == expected | required


@pytest.mark.parametrize("name", KEYS)
def test_every_key_has_a_meaning(name: str) -> None:
    """A whole sentence, and a range or a list of values."""
    key = KEYS[name]

    assert re.fullmatch(r"(?s)[A-Z`0-9].{10,}\.", key.meaning), key.meaning
    assert key.values


@pytest.mark.parametrize("name", NUMBERS)
def test_ranges_are_those_of_the_loader(name: str) -> None:
    """A number at a limit is taken or refused as the words say, and the next one beyond it is refused."""
    key = KEYS[name]
    whole = key.values.startswith("whole")

    assert limits(key)
    for limit, inclusive, outwards in limits(key):
        at, beyond = (
            (int(limit), int(limit) + outwards)
            if whole
            else (limit, math.nextafter(limit, outwards * math.inf))
        )
        if limit < 2**53:  # beyond, a float is not the number in the text
            assert accepted(name, at) == inclusive
            assert not accepted(name, beyond)


@pytest.mark.parametrize("name", [name for name in NUMBERS if not KEYS[name].values.startswith("whole")])
def test_a_gap_above_zero_is_told(name: str) -> None:
    """Where 0 turns something off and tiny numbers are refused, the words are "0, or ..."; elsewhere they are not."""
    gap = accepted(name, 0) and not accepted(name, 1e-300)

    assert KEYS[name].values.startswith("0, or a number from") == gap


def test_the_seed_reaches_to_its_limit() -> None:
    """The one limit that no float holds."""
    assert KEYS["seed"].values == "whole number from 0 to 9_223_372_036_854_775_807"
    assert accepted("seed", 2**63 - 1)
    assert not accepted("seed", 2**63)


@pytest.mark.parametrize("name", sorted(name for name, key in KEYS.items() if key.choices))
def test_choices_are_those_of_the_loader(name: str) -> None:
    """Every value that is listed is taken, another is not."""
    key = KEYS[name]

    assert all(accepted(name, choice) for choice in key.choices)
    assert not accepted(name, "no-such-choice")
    assert all(f'"{choice}"' in key.values for choice in key.choices)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("rounds", ["rounds"]),
        ("privacy.max-epsilon", ["privacy.max-epsilon"]),
        (" masking ", ["masking.profile", "masking.threshold"]),
        ("tiers", ["tiers.NAME.rank", "tiers.NAME.clients", "tiers.NAME.cohort"]),
        ("tiers.phone", ["tiers.NAME.rank", "tiers.NAME.clients", "tiers.NAME.cohort"]),
        ("tiers.NAME.rank", ["tiers.NAME.rank"]),
        ("tiers.edge-device.rank", ["tiers.NAME.rank"]),
    ],
)
def test_a_key_or_a_table_is_found(name: str, keys: list[str]) -> None:
    """By its full name; the keys of a tier under any tier's name."""
    (section,) = find(name)

    assert [key.name for key in section.keys] == keys


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gama", "unknown key 'gama'; did you mean 'gamma'?"),
        ("privacy.max_epsilon", "unknown key 'privacy.max_epsilon'; did you mean 'privacy.max-epsilon'?"),
        ("delta", "unknown key 'delta'; did you mean 'privacy.delta' or 'sample-level.delta'?"),
        ("privcy", "unknown key 'privcy'; did you mean 'privacy' or 'privacy.delta'?"),
        ("tiers.phone.rnk", "unknown key 'tiers.phone.rnk'; did you mean 'tiers.NAME.rank'"),
        ("xyzzy", "unknown key 'xyzzy'"),
        ("", "unknown key ''"),
        ("privacy.", "unknown key 'privacy.'; did you mean 'privacy'"),
        ("privacy.delta.x", "unknown key 'privacy.delta.x'; did you mean 'privacy.delta'"),
    ],
)
def test_an_unknown_key_is_refused_with_similar_ones(name: str, message: str) -> None:
    """Keys with the same last part, in another spelling, or almost the same; none where nothing is similar."""
    with pytest.raises(ConfigError) as refusal:
        find(name)

    assert str(refusal.value).startswith(message)


def test_the_default_tiers_are_named() -> None:
    """A reader of the table of tiers learns which tiers there are without one."""
    (section,) = find("tiers")

    assert "phone (rank 2, 2 clients)" in section.meaning
    assert "datacenter (rank 16, 4 clients)" in section.meaning
