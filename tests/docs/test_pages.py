"""The pages: nothing they point to is missing, their code runs, and what they say of the program is what it does."""

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from rbla_secure.cli import main
from rbla_secure.config import Config, TierConfig
from tests.support.pages import (
    GENERATED,
    ROOT,
    blocks,
    broken_links,
    exists,
    named_files,
    page_paths,
    read,
)
from tests.support.tiny_job import job, write_images

PAGES = page_paths()
README_BYTES = 8192
DEMO = "python3 -m venv .venv && .venv/bin/pip install '.[demo]' && .venv/bin/rbla-secure run"
TESTS = "python3 -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/pytest"


def test_the_readme_is_one_page() -> None:
    assert len(read("README.md").encode()) <= README_BYTES


def test_the_readme_has_the_two_commands() -> None:
    """One that trains and one that tests, each a line of its own; .ci/run finds the second one by its ends."""
    lines = read("README.md").splitlines()
    found = [line for line in lines if re.match(r"python3 -m venv .*\.\[test\].*pytest$", line)]

    assert DEMO in lines
    assert found == [TESTS]
    assert r'grep -E "^python3 -m venv .*\.\[test\].*pytest$" README.md' in read(".ci/run")


@pytest.mark.parametrize("path", PAGES)
def test_links_lead_somewhere(path: str) -> None:
    """To a file that is there, and to a heading that is in it."""
    assert broken_links(path, read(path)) == []


@pytest.mark.parametrize(
    "target", ["docs/nowhere.md", "docs/privacy.md#no-such-heading", "#nor-here", "../rbla-secure"]
)
def test_a_link_that_leads_nowhere_is_found(target: str) -> None:
    """The control of the test above, beside one that is right."""
    text = f"# Here\n\n[one](docs/privacy.md#what-it-costs), [two]({target}), [three](#here)"

    assert broken_links("README.md", text) == [target]


@pytest.mark.parametrize("path", [path for path in PAGES if path != "CHANGELOG.md"])
def test_files_that_are_named_are_there(path: str) -> None:
    """Nobody is sent to a file that has moved; the changelog alone names what was."""
    assert [name for name in named_files(read(path)) if not exists(name)] == []


def test_a_file_that_is_not_there_is_found() -> None:
    names = list(
        named_files("`rbla_secure/nowhere.py` and `rbla_secure/job.py`, `tests/threat_model/test_*.py`")
    )

    assert [name for name in names if not exists(name)] == ["rbla_secure/nowhere.py"]


def test_every_page_is_in_the_sites_table_of_contents() -> None:
    """And the table names no page that is not there."""
    listed = set(re.findall(r"^ +- .*: (\S+\.md)$", read("mkdocs.yml"), re.MULTILINE))
    pages = {path.removeprefix("docs/") for path in PAGES} - {"README.md"} | {"introduction.md"}

    assert pages <= listed
    results = {path for path in listed if path.startswith("benchmarks/")}
    assert all((ROOT / path).exists() for path in results)
    assert listed - pages - results <= {path.removeprefix("docs/") for path in GENERATED}


def test_the_index_leads_to_every_page() -> None:
    """Directly: nobody finds a page that the first one does not name."""
    index = read("docs/index.md")

    assert [path for path in PAGES if path.rsplit("/", 1)[-1] not in index and path != "docs/index.md"] == []


def test_the_code_of_the_page_on_extending_runs() -> None:
    """Each example is followed by what it prints, to the letter."""
    text = read("docs/extending.md")
    examples, outputs = blocks(text, "python"), blocks(text, "text")

    assert len(examples) == len(outputs) == 3
    for example, output in zip(examples, outputs, strict=True):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(example, "docs/extending.md", "exec"), {})  # noqa: S102  our own page
        assert printed.getvalue() == output


def shape(line: str) -> str:
    """A line of output without its numbers, up to what the page, or a round without drop-outs, leaves out."""
    numbers = re.sub(r"\d[\d.,]*", "#", line.split("...", maxsplit=1)[0])
    return " ".join(numbers.split("  refused")[0].split())


def test_a_transcript_has_the_lines_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every line of a page's transcript that tells of a round or a result is one that a run prints, numbers aside."""
    assert main(["run", "--out", str(tmp_path / "run"), *job(write_images(tmp_path), rounds=2)]) == 0
    printed = capsys.readouterr().out.splitlines()
    shapes = {shape(line) for line in printed}

    for page in ("README.md", "docs/start.md"):
        (transcript,) = (block for block in blocks(read(page), "text") if "accuracy" in block)
        told = [line for line in transcript.splitlines() if line.startswith(("base", "accuracy"))]
        assert len(told) == 2
        assert {shape(line) for line in told} <= shapes
        rounds = [line for line in transcript.splitlines() if line.startswith("round")]
        assert len(rounds) == 3
        assert {shape(line) for line in rounds} <= shapes


def keys_of(table: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key that a configuration may have, with dots."""
    for field in table.model_fields.values():
        name = f"{prefix}{field.alias}"
        yield name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys_of(field.annotation, f"{name}.")


def told_keys(text: str) -> Iterator[tuple[str, str]]:
    """The keys that the tables "key, default, meaning" of a page name, each with its default.

    A line may have several keys, with a default each, between commas; otherwise what stands there is no default of one key.
    """
    for table in re.findall(r"^\| key \| default \| meaning \|\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE):
        for line in table.splitlines():
            names, default = (cell.strip() for cell in line.split(" | ")[:2])
            found = re.findall(r"`([^`]+)`", names)
            folder = found[0].rpartition(".")[0]
            defaults = default.split(", ")
            for number, name in enumerate(found):
                own = defaults[number] if len(defaults) == len(found) else "several"
                yield (folder + name if name.startswith(".") else name), own


# Those that people wrote: what is generated from the code need not be compared with it.
SETTINGS = [
    (path, key, default) for path in PAGES if path not in GENERATED for key, default in told_keys(read(path))
]
KNOWN = {*keys_of(Config), *(f"tiers.NAME.{field.alias}" for field in TierConfig.model_fields.values())}


@pytest.mark.parametrize(("path", "key", "default"), SETTINGS)
def test_settings_that_a_page_explains_exist(path: str, key: str, default: str) -> None:
    """Under the name that the page gives."""
    assert key in KNOWN, f"{path} explains {key} (default {default})"


def test_pages_explain_the_settings_once() -> None:
    """Half of a hundred keys, on one page each."""
    keys = [key for _, key, _ in SETTINGS]

    assert len(keys) > 50
    assert len(set(keys)) == len(keys)


def value_of(key: str) -> object:
    """The default of a key, as TOML would print it."""
    table: object = Config().model_dump(mode="json", by_alias=True)
    for name in key.split("."):
        assert isinstance(table, dict)
        table = table[name]
    return table


@pytest.mark.parametrize(
    ("path", "key", "default"), [each for each in SETTINGS if re.fullmatch(r"[\d.e-]+|`[^`]+`", each[2])]
)
def test_defaults_that_a_page_tells_are_those_of_the_program(path: str, key: str, default: str) -> None:
    """Where the cell is one number or one word."""
    told = default.strip("`")
    real = value_of(key)

    assert (float(told) == real) if isinstance(real, int | float) else (told == real), path


def test_vulnerabilities_are_reported_without_a_made_up_address() -> None:
    """Through the host's own private form."""
    text = read("SECURITY.md")

    assert "Report a vulnerability" in text
    assert not re.search(r"@|https?:", text)


def pages_named_by_code(text: str) -> set[str]:
    """The pages that a source file sends its reader to; what a run writes itself (a model card, a report) is none."""
    return set(re.findall(r"docs/[\w-]+\.md|threat_model\.md|CHANGELOG\.md|\bREADME, \w+", text))


def test_pages_that_the_program_names_are_there() -> None:
    """In messages, descriptions and docstrings; a heading of the README is no place any more."""
    sources = [*ROOT.glob("protocols/**/*.py"), *ROOT.glob("rbla_secure/**/*.py")]
    named = {name for source in sources for name in pages_named_by_code(source.read_text(encoding="utf-8"))}

    assert "threat_model.md" in named
    assert [name for name in named if not exists(name)] == []


def test_a_page_that_is_not_there_is_found_in_a_message() -> None:
    named = pages_named_by_code(
        '"(README, Robustness)" "(docs/gone.md)" "adapter/README.md" "(threat_model.md)"'
    )

    assert {name for name in named if not exists(name)} == {"README, Robustness", "docs/gone.md"}
