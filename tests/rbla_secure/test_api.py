"""The interface from Python does what the command line does, loads nothing before it is asked, and ends cleanly."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import rbla_secure
from rbla_secure.cli import main
from rbla_secure.report.console import ConsoleReport
from tests.support.tiny_job import environment, files, job, write_images

EXAMPLE = Path(__file__).parents[2] / "examples" / "python_api" / "compare_ranks.py"
PROGRAM = "import sys, rbla_secure; rbla_secure.__version__; print([name for name in sys.modules if name.split('.')[0] in {names}])"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set."""
    return write_images(tmp_path_factory.mktemp("data"))


def overrides(images: Path, **changes: object) -> list[str]:
    """Those of a small job."""
    return [part for part in job(images, **changes) if part != "--set"]


def test_every_public_name_is_there() -> None:
    """Each can be asked for, is listed, and is that of the module behind; others are refused by name."""
    from rbla_secure import api  # noqa: PLC0415

    names = set(rbla_secure.__all__) - {"__version__"}
    assert names <= set(dir(rbla_secure))
    assert all(getattr(rbla_secure, name) is getattr(api, name) for name in names)
    assert names == set(api.__all__) - {"errors"}
    with pytest.raises(AttributeError, match="module 'rbla_secure' has no attribute 'train'"):
        _ = rbla_secure.train  # type: ignore[attr-defined]


def loaded(code: str) -> str:
    names = "{'torch', 'numpy', 'pydantic', 'rich'}"
    return subprocess.run(
        [sys.executable, "-c", code.replace("{names}", names)],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    ).stdout.strip()


def test_the_version_loads_no_library() -> None:
    """Importing costs nothing; the control asks for a function, and pays."""
    assert loaded(PROGRAM) == "[]"
    assert "numpy" in loaded(PROGRAM.replace("__version__", "load_config", 1))


def test_a_run_is_the_one_of_the_command_line(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same bytes, and as summary the object that is printed."""
    config = rbla_secure.load_config(None, overrides(images))

    summary = rbla_secure.run(config, out=tmp_path / "ours", quiet=True)
    assert capsys.readouterr().out == ""
    assert main(["run", "--out", str(tmp_path / "theirs"), *job(images), "--json"]) == 0

    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary.adapter_sha256 == printed["adapter_sha256"]
    assert set(summary.model_dump()) == set(printed)
    assert files(tmp_path / "ours") == files(tmp_path / "theirs")


def test_rounds_are_told_unless_it_is_quiet(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on the command line."""
    rbla_secure.run(rbla_secure.load_config(None, overrides(images, rounds=1)), out=tmp_path / "run")

    assert "round 1/1" in capsys.readouterr().out


def test_a_notebook_gets_one_stream_of_plain_text(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rich would make every line an output of its own there, with escape codes in tables."""
    displayed: list[object] = []
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("rich.jupyter.display", lambda *parts: displayed.append(parts))

    rbla_secure.run(rbla_secure.load_config(None, overrides(images, rounds=1)), out=tmp_path / "run")

    told = capsys.readouterr().out
    assert displayed == []
    assert "round 1/1" in told
    assert "what each party learned" in told
    assert "\x1b" not in told


def test_an_interrupted_run_is_closed_and_goes_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in a notebook: the folder can be opened again in the same process, and ends as if nothing had happened."""
    config = rbla_secure.load_config(None, overrides(images))
    told = ConsoleReport.round_saved

    def interrupt(report: ConsoleReport, *arguments: object) -> None:
        told(report, *arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as once:
        once.setattr(ConsoleReport, "round_saved", interrupt)
        with pytest.raises(KeyboardInterrupt):
            rbla_secure.run(config, out=tmp_path / "run", quiet=True)
    resumed = rbla_secure.resume(tmp_path / "run", quiet=True)

    whole = rbla_secure.run(config, out=tmp_path / "whole", quiet=True)
    assert resumed.adapter_sha256 == whole.adapter_sha256


def test_accounts_are_those_of_the_command_line(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a configuration, its file, and a run folder; nothing is printed."""
    noisy = overrides(images, noise_multiplier=3, rounds=2, privacy__mechanism="central")
    config = rbla_secure.load_config(None, noisy)
    foretold = rbla_secure.account(config)
    rbla_secure.run(config, out=tmp_path / "run", quiet=True)
    spent = rbla_secure.account(tmp_path / "run")
    assert capsys.readouterr().out == ""

    sets = [part for text in noisy for part in ("--set", text)]
    for arguments, ours in ((sets, foretold), ([str(tmp_path / "run")], spent)):
        assert main(["account", *arguments, "--json"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1]) == json.loads(json.dumps(ours))


def test_what_is_refused_is_refused_before_a_folder_is_made(images: Path, tmp_path: Path) -> None:
    """By the same words as on the command line."""
    config = rbla_secure.load_config(None, overrides(images, masking__threshold=11))

    for refused in (rbla_secure.check, rbla_secure.run):
        with pytest.raises(rbla_secure.RblaSecureError, match=r"masking\.threshold=11 must be <= 10"):
            refused(config)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(rbla_secure.RblaSecureError):
        rbla_secure.check(tmp_path / "missing.toml")


def test_the_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As its first lines say."""
    runpy.run_path(str(EXAMPLE))["main"](tmp_path)

    told = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in told if ":" in line] == ["mixed", "equal", "refused"]
    assert (tmp_path / "mixed" / "adapter").is_dir()
