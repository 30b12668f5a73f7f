"""What users install is a wheel, not this checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import protocols.masking.secure_sum, rbla_secure.cli
print(protocols.__file__)
print(rbla_secure.__file__)
"""


def test_the_wheel_holds_both_packages_and_they_import_from_it(tmp_path: Path) -> None:
    """A wheel built from the sources imports on its own, typed and licensed."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(unpacked)

    output = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM, str(unpacked)], check=True, capture_output=True, text=True
    ).stdout

    assert all(line.startswith(str(unpacked)) for line in output.splitlines())
    assert {"rbla_secure/py.typed", "protocols/py.typed"} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
    assert [name for name in names if name.endswith("licenses/LICENSE")]
