"""`rbla-secure config`: the configuration in force, and what its keys mean."""

import json
from pathlib import Path

import pytest

from rbla_secure.cli import main
from rbla_secure.config import Config, load_config
from rbla_secure.config.explain import every_section
from tests.support.command_line import refusal


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The standard output of a command that is done."""
    assert main(arguments) == 0
    return capsys.readouterr().out


def explained(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    """The keys in the JSON object of ``config --explain``."""
    found: list[dict[str, object]] = json.loads(printed(capsys, "config", "--json", "--explain", *arguments))[
        "keys"
    ]
    return found


def test_without_arguments_the_defaults_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The defaults as TOML, and nothing else on standard output."""
    assert printed(capsys, "config") == Config().to_toml()


def test_what_is_printed_is_a_file_for_other_commands(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A file and overrides, merged: read again it is the same configuration."""
    path = tmp_path / "own.toml"
    path.write_text("rounds = 7\n[tiers.only]\nrank = 4\nclients = 12\n[privacy]\ndelta = 1e-7\n")
    overrides = ["--set", "seed=3", "--set", "task.data=fashion-mnist"]

    (tmp_path / "merged.toml").write_text(printed(capsys, "config", str(path), *overrides))

    merged = load_config(tmp_path / "merged.toml")
    assert merged == load_config(path, ["seed=3", "task.data=fashion-mnist"])
    assert (merged.rounds, merged.seed, list(merged.tiers), merged.privacy.delta) == (7, 3, ["only"], 1e-7)


def test_machines_get_the_configuration_as_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json the keys are those of the TOML, and the TOML goes to standard error."""
    assert main(["config", "--json", "--set", "rounds=5"]) == 0

    captured = capsys.readouterr()
    assert json.loads(captured.out) == Config(rounds=5).model_dump(mode="json", by_alias=True)
    assert captured.err == Config(rounds=5).to_toml()


def test_a_wrong_configuration_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Names, types and ranges are checked as for a run."""
    assert refusal(capsys, "config", "--set", "roundz=3") == "unknown key 'roundz'; did you mean 'rounds'?"


def test_every_key_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """Name and default on a line, then range and meaning below it, for every key of the schema."""
    text = printed(capsys, "config", "--explain")

    words = " ".join(text.split())
    for section in every_section():
        for key in section.keys:
            shown = f"{key.name} = {key.default_text}" if key.default_text else f"{key.name}    (no default)"
            assert shown in text.splitlines()
            assert f"{' '.join(shown.split())} {key.values} {key.meaning}" in words
    assert max(map(len, text.splitlines())) <= 96


def test_one_key_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """Its own lines, below those of its table."""
    assert printed(capsys, "config", "--explain", "privacy.delta").splitlines() == [
        "# Differential privacy of clients; in force where `noise-multiplier` is above 0.",
        "",
        "privacy.delta = 1e-05",
        "    number above 0 and below 1",
        "    Delta of the (epsilon, delta) guarantee of a client.",
    ]


def test_one_table_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """All of its keys and no others."""
    names = [str(key["key"]) for key in explained(capsys, "masking")]

    assert names == ["masking.profile", "masking.threshold"]


def test_machines_get_the_same_as_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    """Every key with table, default, range and meaning; null where there is no default, and no choice."""
    keys = {str(key["key"]): key for key in explained(capsys)}

    assert keys["secure-sum"]["choices"] == ["plain", "masking", "homomorphic"]
    assert keys["privacy.delta"] == {
        "key": "privacy.delta",
        "table": "privacy",
        "default": 1e-05,
        "values": "number above 0 and below 1",
        "choices": None,
        "meaning": "Delta of the (epsilon, delta) guarantee of a client.",
    }
    assert keys["tiers.NAME.rank"]["default"] is None
    assert explained(capsys, "privacy.delta") == [keys["privacy.delta"]]


@pytest.mark.parametrize("options", [["--set", "rounds=5"], ["config.toml"]])
def test_explaining_reads_no_configuration(capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    """A configuration that nothing would read is refused."""
    line = refusal(capsys, "config", *options, "--explain", "rounds")

    assert line == "--explain describes the keys of every configuration: CONFIG and --set are not read"


def test_an_unknown_key_is_one_error(capsys: pytest.CaptureFixture[str]) -> None:
    """One line that names similar keys, and for machines an object with the name of the error."""
    assert refusal(capsys, "config", "--explain", "gama") == "unknown key 'gama'; did you mean 'gamma'?"
    assert main(["config", "--json", "--explain", "gama"]) == 1
    assert json.loads(capsys.readouterr().out)["error"] == "ConfigError"
