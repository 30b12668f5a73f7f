"""Every key of the configuration with default, range and meaning, read from its schema."""

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from rbla_secure.config.fields import LEAST_ABOVE_ZERO
from rbla_secure.config.schema import Config
from rbla_secure.errors import ConfigError

Schema = Mapping[str, Any]

TIERS: Final = "tiers"
TIER: Final = f"{TIERS}.NAME"
_MOST_SUGGESTIONS = 3
_GROUPED = 10_000  # from here on digits are grouped by threes


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of the configuration.

    Args:
        name: Its full name in TOML, such as ``privacy.max-epsilon``; ``NAME`` stands for the name of a tier.
        default: Its value where a configuration does not set it; None if every configuration must.
        values: Its type and range, in words.
        choices: The values that it can have, if these are listed by name; otherwise none.
        meaning: What it does, in whole sentences.
    """

    name: str
    default: bool | float | str | None
    values: str
    choices: tuple[str, ...]
    meaning: str

    @property
    def default_text(self) -> str:
        """The default as TOML, or empty where there is none."""
        return "" if self.default is None else json.dumps(self.default)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A table of the configuration.

    Args:
        name: The table's name in TOML, such as ``privacy``; empty for the keys outside of tables.
        meaning: What its keys are about.
        keys: In the order of the schema; not empty.
    """

    name: str
    meaning: str
    keys: tuple[Key, ...]


def every_section() -> tuple[Section, ...]:
    """All keys: those outside of tables first, then table by table."""
    schema = Config.model_json_schema()
    return tuple(_sections(schema, schema["$defs"]))


def find(name: str) -> tuple[Section, ...]:
    """One key, or all keys of one table.

    Args:
        name: The name of a key or table, such as ``privacy.delta``, ``privacy`` or ``tiers.phone.rank``.

    Returns:
        One section, with one key if `name` names a key.

    Raises:
        ConfigError: There is no such key or table; the message names similar ones.
    """
    wanted, sections = _with_any_tier(name.strip()), every_section()
    for section in sections:
        if section.name and section.name == wanted:
            return (section,)
        for key in section.keys:
            if key.name == wanted:
                return (Section(name=section.name, meaning=section.meaning, keys=(key,)),)
    near = _similar(wanted, sections)
    raise ConfigError(
        f"unknown key {name!r}" + (f"; did you mean {' or '.join(map(repr, near))}?" if near else "")
    )


def _with_any_tier(name: str) -> str:
    """Replace a tier's name: ``tiers.phone.rank`` becomes ``tiers.NAME.rank``, and ``tiers`` the table of each tier."""
    parts = name.split(".")
    if parts[0] != TIERS:
        return name
    return ".".join([TIERS, "NAME", *parts[2:]])


def _similar(name: str, sections: tuple[Section, ...]) -> list[str]:
    """Return keys and tables that may have been meant: with dashes, with a similar last part, or spelt similarly."""
    names = [each.name for each in sections if each.name] + [
        key.name for each in sections for key in each.keys
    ]
    dashed = name.replace("_", "-")
    if dashed in names:
        return [dashed]
    lasts = {each: each.rpartition(".")[2] for each in names}
    near = difflib.get_close_matches(dashed.rpartition(".")[2], set(lasts.values()), n=1)
    found = [each for each, last in lasts.items() if last in near]
    found += difflib.get_close_matches(dashed, names, n=_MOST_SUGGESTIONS)
    return list(dict.fromkeys(found))[:_MOST_SUGGESTIONS]


def _sections(schema: Schema, shared: Schema) -> Iterator[Section]:
    tables = {name: _table(each, shared) for name, each in schema["properties"].items()}
    general = {name: each for name, each in schema["properties"].items() if tables[name] is None}
    yield _section("", schema, general, shared)
    for name, table in tables.items():
        if table is None:
            continue
        place = TIER if name == TIERS else name
        section = _section(place, table, table["properties"], shared)
        if name != TIERS:
            yield section
            continue
        more = f"{schema['properties'][name]['description']} {_default_tiers()}"
        yield Section(name=place, meaning=f"{section.meaning} {more}", keys=section.keys)


def _table(schema: Schema, shared: Schema) -> Schema | None:
    """Return the schema of a table of keys; None for the schema of a single key."""
    if "patternProperties" in schema:
        (schema,) = schema["patternProperties"].values()
    resolved = _resolved(schema, shared)
    return resolved if "properties" in resolved else None


def _section(name: str, table: Schema, keys: Schema, shared: Schema) -> Section:
    prefix = f"{name}." if name else ""
    return Section(
        name=name,
        meaning=" ".join(table["description"].split()),
        keys=tuple(_key(prefix + each, schema, shared) for each, schema in keys.items()),
    )


def _key(name: str, schema: Schema, shared: Schema) -> Key:
    choices = tuple(_resolved(schema, shared).get("enum", ()))
    return Key(
        name=name,
        default=schema.get("default"),
        values=_one_of(choices) if choices else _values(schema),
        choices=choices,
        meaning=schema.get("description", ""),
    )


def _resolved(schema: Schema, shared: Schema) -> Schema:
    """Return the schema that a reference names; anything else unchanged."""
    found: Schema = shared[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return found


def _default_tiers() -> str:
    tiers = [f"{name} (rank {tier.rank}, {tier.clients} clients)" for name, tier in Config().tiers.items()]
    return f"The default ones are {', '.join(tiers[:-1])} and {tiers[-1]}."


def _one_of(choices: tuple[str, ...]) -> str:
    texts = [json.dumps(choice) for choice in choices]
    return f"{', '.join(texts[:-1])} or {texts[-1]}"


def _values(schema: Schema) -> str:
    """Type and range of a key in words."""
    match schema["type"]:
        case "boolean":
            return "true or false"
        case "string":
            return "text"
        case "integer":
            return f"whole number {_range(schema)}"
        case _:
            least = schema.get(LEAST_ABOVE_ZERO)
            return (
                f"number {_range(schema)}"
                if least is None
                else f"0, or a number {_range({**schema, 'minimum': least})}"
            )


def _range(schema: Schema) -> str:
    least, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    most, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if schema["type"] == "integer" and below is not None:
        most, below = below - 1, None
    if least is not None and most is not None:
        return f"from {_figure(least)} to {_figure(most)}"
    limits = (("of at least", least), ("above", above), ("at most", most), ("below", below))
    return " and ".join(f"{words} {_figure(limit)}" for words, limit in limits if limit is not None)


def _figure(value: float) -> str:
    """A limit as TOML reads it: 0.5, 1e-9, 1_000_000."""
    if isinstance(value, int) or value.is_integer():
        return f"{int(value):_}" if abs(value) >= _GROUPED else f"{int(value)}"
    mantissa, exponent, power = f"{value:g}".partition("e")
    return f"{mantissa}e{int(power)}" if exponent else mantissa
