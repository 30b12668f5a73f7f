"""``rbla-secure config``: the configuration in force, or what its keys mean."""

import argparse

from rbla_secure.cli.arguments import add_configuration
from rbla_secure.cli.command import Command, Result
from rbla_secure.cli.output import say
from rbla_secure.errors import ConfigError

_EVERY_KEY = ""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_configuration(parser)
    parser.add_argument(
        "--explain",
        nargs="?",
        const=_EVERY_KEY,
        metavar="KEY",
        help="print default, range and meaning of every key, or of one key or table, such as privacy.delta or privacy",
    )


def _run(options: argparse.Namespace) -> Result:
    if options.explain is not None:
        return _explain(options)
    from rbla_secure.config import load_config

    config = load_config(options.config, options.set)
    say(options, config.to_toml().rstrip("\n"))
    return config.model_dump(mode="json", by_alias=True)


def _explain(options: argparse.Namespace) -> Result:
    from rbla_secure.config.explain import every_section, find
    from rbla_secure.report.configuration import explanation_lines, explanation_object

    if options.config is not None or options.set:
        raise ConfigError(
            "--explain describes the keys of every configuration: CONFIG and --set are not read"
        )
    sections = every_section() if options.explain == _EVERY_KEY else find(options.explain)
    say(options, *explanation_lines(sections))
    return explanation_object(sections)


COMMAND = Command(
    name="config",
    summary="print the configuration in force, or explain its keys",
    description=(
        "Prints the configuration that CONFIG and `--set` amount to, with every key that they leave out, as TOML that `run` reads: "
        "`rbla-secure config > config.toml` is a file to begin with. Names, types and ranges are checked; whether a run could keep "
        "its promises is what `check` says. With `--explain` it prints default, range and meaning of the keys instead."
    ),
    notes=(
        "The JSON object is the configuration, with the keys of its TOML. With `--explain` it has `keys`: for each `key`, `table` (empty for "
        "keys outside of tables), `default` (null where the key must be set), `values` (its range, in words), `choices` (null "
        "where it is no choice) and `meaning`."
    ),
    add_arguments=_add_arguments,
    run=_run,
)
