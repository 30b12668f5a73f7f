"""A secure sum costs a folder, its file of traits and one line: one is added to a copy of the packages, and jobs run with it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tiny_job import job, write_images

ROOT = Path(__file__).parents[3]
COPIED = ("protocols", "rbla_secure")
# The verbs of the command line, in one process; its arguments are those of a small job.
SCRIPT = """
import sys
from rbla_secure.cli import main
for verb in (["check"], ["account", "--set", "noise-multiplier=2"], ["run", "--out", "run"]):
    status = main([*verb, *sys.argv[1:]])
    if status:
        raise SystemExit(status)
"""


def add_fourth(copy: Path) -> None:
    """Plain under another name: its folder, its traits, and its name among the choices."""
    folder = copy / "protocols/fourth"
    folder.mkdir()
    (folder / "__init__.py").touch()
    plain = (ROOT / "protocols/plain.py").read_text(encoding="utf-8")
    (folder / "secure_sum.py").write_text(plain.replace('"plain"', '"fourth"'), encoding="utf-8")
    traits = (ROOT / "rbla_secure/planning/modes/plain.py").read_text(encoding="utf-8")
    traits = traits.replace("protocols.plain", "protocols.fourth.secure_sum").replace("=plain", "=fourth")
    (copy / "rbla_secure/planning/modes/fourth.py").write_text(traits, encoding="utf-8")


def name_fourth(copy: Path) -> None:
    """The one line."""
    choices = copy / "rbla_secure/config/choices.py"
    text = choices.read_text(encoding="utf-8")
    line = '    PLAIN = "plain"\n'
    assert text.count(line) == 1
    choices.write_text(text.replace(line, line + '    FOURTH = "fourth"\n'), encoding="utf-8")


def play(copy: Path) -> subprocess.CompletedProcess[str]:
    """The script, with the copy in the place of the packages."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, *job(copy, rounds=1, secure_sum="fourth")]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The packages, with the files of a fourth secure sum that no configuration can name yet."""
    for package in COPIED:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    write_images(tmp_path)
    add_fourth(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_fourth_secure_sum_runs_once_its_name_is_a_choice(copy: Path) -> None:
    """Check, forecast and rounds know it by what its own file says."""
    name_fourth(copy)

    found = play(copy)

    assert found.returncode == 0, found.stderr
    assert "warning: INSECURE: secure-sum=fourth" in found.stdout + found.stderr
    assert "fourth sum, rbla average" in " ".join((found.stdout + found.stderr).split())
    assert (copy / "run/adapter/adapter_model.safetensors").exists()
