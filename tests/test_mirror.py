"""Every source file has a test file of its name, or a line that says where its tests are."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINES = ROOT / "tests" / "elsewhere.txt"
LONGEST = 600
# Files that are found by the name of a choice, or behind a type: by their folder, the module through which tests reach them.
REACHED_THROUGH = {
    "rbla_secure.lora.average": "rbla_secure.lora.average",
    "rbla_secure.planning.modes": "rbla_secure.planning.modes",
    "rbla_secure.planning.segmentation": "rbla_secure.planning.plan",
    "rbla_secure.privacy.noise": "rbla_secure.privacy.noise",
    "rbla_secure.robustness.across": "rbla_secure.robustness.across_groups",
    # What a folder is held against its log by, is reached by going on with a run.
    "rbla_secure.run_folder": "rbla_secure.cli",
    "rbla_secure.evaluation.privacy_audit": "rbla_secure.evaluation.privacy_audit.suite",
    "rbla_secure.robustness.filters": "rbla_secure.robustness.registry",
    "rbla_secure.robustness.pre_steps": "rbla_secure.robustness.registry",
    "rbla_secure.robustness.rules": "rbla_secure.robustness.rules.krum",
    "rbla_secure.cli": "rbla_secure.cli",
}


@cache
def sources() -> dict[str, Path]:
    """By dotted name: every module of both packages with a statement in it beside its docstring."""
    found = {}
    for path in sorted([*ROOT.glob("protocols/**/*.py"), *ROOT.glob("rbla_secure/**/*.py")]):
        if len(ast.parse(path.read_text()).body) > 1:
            found[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def mirror(path: Path) -> Path:
    """The test file of a source file's name."""
    inside = path.relative_to(ROOT)
    name = inside.parent.name if inside.stem == "__init__" else inside.stem
    return ROOT / "tests" / inside.parent / f"test_{name}.py"


def elsewhere() -> dict[str, list[Path]]:
    """By dotted name of a module without a test file of its name: where its tests are."""
    lines = [line for line in LINES.read_text().splitlines() if line and not line.startswith("#")]
    return {
        module: [ROOT / place for place in places.split()]
        for module, places in (line.split(": ") for line in lines)
    }


@cache
def named_in(path: Path) -> set[str]:
    """Every module that a test file imports or names, and the packages above them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


@cache
def reached(path: Path) -> set[str]:
    """What a test file names, itself or through the helpers of tests/ that it imports."""
    found, waiting, seen = set(), [path], set()
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        names = named_in(file)
        found |= names
        helpers = [ROOT / (name.replace(".", "/") + ".py") for name in names if name.startswith("tests.")]
        waiting += [helper for helper in helpers if helper.exists()]
    return found


@pytest.mark.parametrize("module", sources())
def test_a_source_file_has_a_place_for_its_tests(module: str) -> None:
    """One place: a mirror and a line would drift apart. A line that ends with `.*` is for all files of a folder without one."""
    folder = module.rpartition(".")[0] + ".*"
    there = mirror(sources()[module]).exists()

    assert there or module in elsewhere() or folder in elsewhere(), module
    assert not (there and module in elsewhere()), module


@pytest.mark.parametrize("line", elsewhere())
def test_a_line_tells_the_truth(line: str) -> None:
    """The module is there, and so is each test file, which names the module or something that stands on it."""
    module = line.removesuffix(".*")
    stands_on = {name for name, path in sources().items() if module in named_in(path)}
    stands_on |= {REACHED_THROUGH.get(module if line != module else module.rpartition(".")[0], module)}

    assert module in sources() or (ROOT / module.replace(".", "/")).is_dir()
    for place in elsewhere()[line]:
        assert place.name.startswith("test_"), place
        assert reached(place) & {module, *stands_on}, f"{place} has nothing to do with {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.name)
def test_no_test_file_is_long(path: Path) -> None:
    """Who looks for a test reads one file, not a thousand lines."""
    assert len(path.read_text().splitlines()) <= LONGEST


def test_the_checks_can_fail(tmp_path: Path) -> None:
    """A test file that names nothing of a module reaches nothing of it."""
    stranger = tmp_path / "test_stranger.py"
    stranger.write_text("import json\n")

    assert reached(stranger) == {"json"}
    assert not mirror(ROOT / "rbla_secure" / "no_such_module.py").exists()
