"""`rbla-secure evaluate` as its user meets it."""

import json
from pathlib import Path

import pytest

from rbla_secure.cli import main
from tests.support.tiny_job import job, write_images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set."""
    return write_images(tmp_path_factory.mktemp("data"))


def test_an_evaluation_leaves_table_page_and_numbers(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Masked, ten clients, two of them attack: all three files, the same cells when it is asked for again."""
    arguments = ["evaluate", "--quick", "--json", "--out", str(tmp_path / "found"), *job(images, rounds=1)]

    assert main(arguments) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert main(arguments) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])

    assert {path.name for path in (tmp_path / "found").iterdir()} == {
        "evaluation.json",
        "evaluation.md",
        "evaluation.html",
    }
    assert told == again
    assert {cell["defence"] for cell in told["cells"]} == {"as configured", "mean", "trimmed-mean, quorum"}
    assert {cell["attack"] for cell in told["cells"]} > {"none", "sign-flip", "rank-inflation"}
    assert any(line.startswith("Withstood") for line in told["summary"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--share", "0.5"], "must be a number above 0 and below 0.5"),
        (["--share", "many"], "must be a number above 0 and below 0.5"),
        (["--seeds", "0"], "must be a whole number in 1..100"),
    ],
)
def test_a_bad_command_line_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_configuration_that_is_refused_is_not_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--out", str(tmp_path / "x"), "--set", "robustness.filter=krum"]) == 1
    assert "must have secure-sum=plain" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
