"""The examples in docstrings print what they say."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def modules_with_examples() -> list[str]:
    """The dotted name of every source file with an interactive example in it."""
    sources = [*ROOT.glob("protocols/**/*.py"), *ROOT.glob("rbla_secure/**/*.py")]
    return sorted(
        ".".join(p.relative_to(ROOT).with_suffix("").parts) for p in sources if ">>> " in p.read_text()
    )


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_of_a_module_hold(name: str) -> None:
    """Every line after `>>>` gives the line below it."""
    outcome = doctest.testmod(import_module(name))

    assert outcome.attempted
    assert outcome.failed == 0


def test_a_wrong_example_would_be_noticed() -> None:
    """The check can fail."""
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)

    assert doctest.DocTestRunner(verbose=False).run(wrong, out=lambda _: None).failed == 1
