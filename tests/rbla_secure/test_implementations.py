"""A choice of the configuration is implemented by the file of its name."""

import sys
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

from rbla_secure.config.choices import AcrossRule, AverageRule, FilterName, Mechanism, PreStepName
from rbla_secure.implementations import implementation
from rbla_secure.robustness.filters import krum
from rbla_secure.robustness.pre_step import PreStep
from rbla_secure.robustness.registry import filter_of


class Shape(StrEnum):
    """Choices of a package that exists in this test alone."""

    ROUND = "round"
    HALF_MOON = "half-moon"
    UNWRITTEN = "unwritten"


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with a file for two of the three choices, one of them without what it must define."""
    package = tmp_path / "shapes_of_a_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "half_moon.py").write_text("AREA = 1.5\n")
    (package / "round.py").write_text("AREA = 'wide'\n")
    monkeypatch.syspath_prepend(tmp_path)
    yielded = package.name
    for name in [name for name in sys.modules if name.startswith(yielded)]:
        monkeypatch.delitem(sys.modules, name)
    return yielded


def test_the_file_of_a_choice_bears_its_name(shapes: str) -> None:
    """Dashes of a choice are underscores of a file."""
    assert implementation(shapes, Shape.HALF_MOON, "AREA", float) == 1.5


def test_a_choice_without_a_file_is_an_error(shapes: str) -> None:
    """The error names the file that is missing."""
    with pytest.raises(ImportError, match=f"{shapes}.unwritten"):
        implementation(shapes, Shape.UNWRITTEN, "AREA", float)


@pytest.mark.parametrize("attribute", ["AREA", "VOLUME"])
def test_a_file_must_define_what_is_asked_of_it(shapes: str, attribute: str) -> None:
    """Neither an object of another class nor none at all passes for it."""
    with pytest.raises(
        TypeError, match=f"{shapes}.round must define {attribute}, a float, to implement 'round'"
    ):
        implementation(shapes, Shape.ROUND, attribute, float)


@pytest.mark.parametrize(
    ("package", "choices", "shared"),
    [
        ("rbla_secure.lora.average", AverageRule, {"rule"}),
        ("rbla_secure.robustness.filters", FilterName, set()),
        ("rbla_secure.robustness.pre_steps", PreStepName, set()),
        ("rbla_secure.robustness.across", AcrossRule, {"rule"}),
        ("rbla_secure.privacy.noise", Mechanism, {"mechanism", "kind", "server_noise"}),
    ],
)
def test_every_choice_has_a_file_and_every_file_is_a_choice(
    package: str, choices: type[StrEnum], shared: set[str]
) -> None:
    """But for the files that they share."""
    files = {module.name for module in iter_modules(import_module(package).__path__)}

    assert files - shared == {choice.value.replace("-", "_") for choice in choices}


def test_a_class_that_is_no_filter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the folder of filters may define any class under the name that is looked for."""
    monkeypatch.setattr(krum, "FILTER", PreStep)
    filter_of.cache_clear()

    with pytest.raises(TypeError, match="must be a subclass of Filter to implement 'krum'"):
        filter_of(FilterName.KRUM)
