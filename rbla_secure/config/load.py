"""Read a configuration: one TOML file, if any, with overrides on top, and every fault named by its key."""

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rbla_secure.config.adapters import TierConfig
from rbla_secure.config.fields import Table
from rbla_secure.config.schema import Config
from rbla_secure.errors import ConfigError


def load_config(path: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file, if any, and apply ``key=value`` overrides on top.

    Args:
        path: A TOML file; None takes the defaults. A file that names tiers replaces the default tiers as a whole.
        overrides: Assignments like ``"rounds=5"``, ``"tiers.phone.clients=4"``; a TOML scalar each, quotes optional.

    Raises:
        ConfigError: The file cannot be read or is no TOML; a key is unknown, a type wrong, a value out of range.
    """
    table = {} if path is None else _read(path)
    table.setdefault("tiers", Config().model_dump(mode="json", by_alias=True)["tiers"])
    for override in overrides:
        _apply(table, override)
    try:
        text = json.dumps(table, default=str)
    except ValueError:
        raise ConfigError("a number of the configuration has too many digits") from None
    try:
        # Strict JSON validation: text is never a number, a number never a truth value, but names become Enums.
        return Config.model_validate_json(text, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config={path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"config={path} is not a TOML file: {error}") from None


def _apply(table: dict[str, Any], override: str) -> None:
    key, _, text = override.partition("=")
    try:
        override.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{ascii(key)[1:-1]}={text!a} must be UTF-8 text") from None
    *parents, last = key.strip().split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f"key {key!r} does not exist: {parent!r} is no table")
    table[last] = _scalar(text.strip())


def _scalar(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text  # an unquoted word: secure-sum=plain


def _explain(error: ValidationError) -> str:
    return "; ".join(_explain_one(fault) for fault in error.errors(include_url=False, include_context=False))


def _explain_one(fault: Mapping[str, Any]) -> str:
    path = [str(part) for part in fault["loc"] if part != "[key]"]
    key = ".".join(path)
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path[-1], _keys_beside(path), n=1)
        return f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    if fault["type"] == "missing":
        return f"key {key!r} is missing"
    rule = fault["msg"].replace("Input should", "must", 1).replace("String should", "must", 1)
    rule = rule.removeprefix("Value error, ")
    value = "{...}" if isinstance(fault["input"], Mapping) else repr(fault["input"])
    return f"{key}={value} {rule}"


def _keys_beside(path: Sequence[str]) -> list[str]:
    """The keys that may stand where the last part of `path` stands."""
    tables = {str(field.alias): field.annotation for field in Config.model_fields.values()}
    table = TierConfig if path[0] == "tiers" else tables.get(path[0])
    beside = table if len(path) > 1 and isinstance(table, type) and issubclass(table, Table) else Config
    return [str(field.alias) for field in beside.model_fields.values()]
