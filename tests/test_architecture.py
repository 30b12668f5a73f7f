"""The layout tells the story only as long as nobody imports across it."""

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("protocols/**/*.py"), *ROOT.glob("rbla_secure/**/*.py")])

# Who may import whom, by module prefix; the longest prefix of a module decides. A module may always import its own
# folder. Everything not listed for a prefix is forbidden.
VOCABULARY = {
    "rbla_secure.errors",
    "rbla_secure.config",
    "rbla_secure.seeding",
    "rbla_secure.atomic_files",
    "rbla_secure.implementations",
    "rbla_secure.lora.adapter",
    "rbla_secure.lora.update",
}
BLOCKS = {"rbla_secure.lora", "rbla_secure.privacy", "rbla_secure.robustness", "rbla_secure.tasks"}
FEDERATION = (
    {"protocols", "rbla_secure.planning", "rbla_secure.run_folder"}
    | VOCABULARY
    | BLOCKS - {"rbla_secure.tasks"}
)
SHARED_BY_BOTH_SIDES = {
    f"rbla_secure.federation.{module}"
    for module in (
        "broadcast",
        "exchange",
        "messages",
        "noise_components",
        "noise_shares",
        "secret_cohorts",
        "step_bound",
    )
}
ALLOWED: dict[str, set[str]] = {
    "protocols.errors": set(),
    "protocols.ring": {"protocols.errors"},
    "protocols.wire": {"protocols.errors", "protocols.ring"},
    "protocols.codec": {"protocols.errors", "protocols.ring", "protocols.wire"},
    "protocols.containers": {"protocols.errors", "protocols.wire", "protocols.codec"},
    "protocols.message": {"protocols.wire", "protocols.codec"},
    "protocols.primitives": {"protocols.errors", "protocols.ring"},
    "protocols.session": {
        "protocols.errors",
        "protocols.ring",
        "protocols.wire",
        "protocols.codec",
        "protocols.containers",
        "protocols.message",
    },
    "protocols.clock": set(),
    "protocols.identity": {
        "protocols.clock",
        "protocols.errors",
        "protocols.wire",
        "protocols.codec",
        "protocols.containers",
        "protocols.message",
        "protocols.primitives",
        "protocols.session",
    },
    "protocols.profiles": {"protocols.errors"},
    "protocols.transcript": {"protocols.session"},
    # What a secret is: clients hand some to a secure sum.
    "protocols.interface": {
        "protocols.errors",
        "protocols.ring",
        "protocols.wire",
        "protocols.session",
        "protocols.primitives.secret",
    },
    "protocols.plain": {
        "protocols.errors",
        "protocols.ring",
        "protocols.wire",
        "protocols.codec",
        "protocols.containers",
        "protocols.message",
        "protocols.session",
        "protocols.interface",
    },
    "protocols.masking": {
        "protocols.errors",
        "protocols.ring",
        "protocols.wire",
        "protocols.codec",
        "protocols.containers",
        "protocols.message",
        "protocols.session",
        "protocols.interface",
        "protocols.primitives",
        "protocols.profiles",
        "protocols.identity.trust",
    },
    "protocols.homomorphic": {
        "protocols.clock",
        "protocols.errors",
        "protocols.ring",
        "protocols.wire",
        "protocols.codec",
        "protocols.containers",
        "protocols.message",
        "protocols.session",
        "protocols.interface",
        "protocols.primitives",
        "protocols.identity.trust",
    },
    "protocols.run": {"protocols.interface", "protocols.session", "protocols.transcript"},
    "rbla_secure.errors": {"protocols.errors"},
    "rbla_secure.seeding": set(),
    "rbla_secure.atomic_files": set(),
    "rbla_secure.implementations": set(),
    "rbla_secure.stopwatch": set(),
    "rbla_secure.identities": {
        "protocols.clock",
        "protocols.errors",
        "protocols.identity",
        "protocols.primitives",
        "protocols.session",
        "rbla_secure.errors",
        "rbla_secure.atomic_files",
    },
    "rbla_secure.config": {"rbla_secure.errors"},
    "rbla_secure.lora": VOCABULARY,
    "rbla_secure.robustness": VOCABULARY | {"rbla_secure.lora.bands"},
    # The rules know of no federation: matrices in, vectors out.
    "rbla_secure.robustness.rules": {"rbla_secure.errors"},
    "rbla_secure.privacy": VOCABULARY | {"protocols.primitives.prg", "protocols.ring"},
    # The files that speak torch and PEFT: local training needs the adapter inside a model.
    "rbla_secure.tasks": VOCABULARY | {"rbla_secure.lora.peft_io", "rbla_secure.lora.fold"},
    # Steps with noise inside a client are local training too: the one file in which a block uses another.
    "rbla_secure.tasks.configured_training": VOCABULARY
    | {
        "protocols.primitives",
        "rbla_secure.privacy.sample_level",
        "rbla_secure.privacy.sampled_gaussian",
        "rbla_secure.tasks.training",
    },
    # What a configuration promises knows of no round, no participant and no file.
    "rbla_secure.planning": {"protocols"} | VOCABULARY | BLOCKS - {"rbla_secure.tasks"},
    # What a run leaves on disk knows of no party's secrets and of nobody who talks.
    "rbla_secure.run_folder": {"protocols", "rbla_secure.planning"}
    | VOCABULARY
    | BLOCKS - {"rbla_secure.tasks"},
    "rbla_secure.federation": FEDERATION | {"rbla_secure.stopwatch"},
    # Neither side of a round knows the other's: what both compute stands above the two folders.
    "rbla_secure.federation.client": FEDERATION | SHARED_BY_BOTH_SIDES,
    "rbla_secure.federation.server": FEDERATION
    | SHARED_BY_BOTH_SIDES
    | {"rbla_secure.federation.observer", "rbla_secure.federation.round"},
    "rbla_secure.engines": {
        "rbla_secure.run_folder",
        "rbla_secure.errors",
        "protocols.interface",
        "protocols.session",
        "rbla_secure.federation",
        "rbla_secure.planning",
        "rbla_secure.stopwatch",
        "rbla_secure.seeding",
    },
    # Attacks stand on everything that can be attacked, and nothing stands on them but what a user starts.
    "rbla_secure.evaluation": {
        "rbla_secure.run_folder",
        "protocols.errors",
        "protocols.session",
        "protocols.primitives.prg",
        "rbla_secure.federation",
        "rbla_secure.planning",
    }
    | VOCABULARY
    | BLOCKS,
    "rbla_secure.report": {
        "rbla_secure.run_folder",
        "protocols.session",
        "rbla_secure.federation",
        "rbla_secure.planning",
        "rbla_secure.privacy.figures",
        "rbla_secure.privacy.ledger",
        "rbla_secure.privacy.noise",
        "rbla_secure.privacy.standing",
        "rbla_secure.privacy.sample_ledger",
        "rbla_secure.privacy.lifetime_ledger",
        "rbla_secure.config",
        "rbla_secure.identities.authority",
        "rbla_secure.robustness",
        "rbla_secure.evaluation",
    },
    # An attacked run is a run: it is put together from the same parts.
    "rbla_secure.evaluation.attacked_run": {
        "protocols",
        "rbla_secure.engines",
        "rbla_secure.evaluation",
        "rbla_secure.federation",
        "rbla_secure.planning",
        "rbla_secure.stopwatch",
    }
    | VOCABULARY
    | BLOCKS,
    # What the server's screening told is seen at its side of the homomorphic sum.
    "rbla_secure.evaluation.mounted": {
        "protocols.homomorphic.parties.server",
        "protocols.interface",
        "protocols.session",
        "rbla_secure.federation",
        "rbla_secure.planning",
    }
    | VOCABULARY,
    # A run with canaries adds uploads as the secure sum would.
    "rbla_secure.evaluation.privacy_attacks.canaries": {
        "rbla_secure.run_folder",
        "protocols.interface",
        "protocols.ring",
        "protocols.session",
        "rbla_secure.evaluation",
        "rbla_secure.federation",
        "rbla_secure.planning",
    }
    | VOCABULARY
    | BLOCKS,
    # So are the rounds and steps of an audit.
    "rbla_secure.evaluation.privacy_audit": {
        "rbla_secure.run_folder",
        "protocols",
        "rbla_secure.federation",
        "rbla_secure.planning",
    }
    | VOCABULARY
    | BLOCKS,
    "rbla_secure.run_names": set(),
    "rbla_secure.actions": {"rbla_secure"},
    "rbla_secure.api": {"rbla_secure", "protocols.errors"},
    "rbla_secure.job": {"rbla_secure", "protocols.homomorphic.services.operated"},
    "rbla_secure.frozen_base": {
        "rbla_secure.errors",
        "rbla_secure.atomic_files",
        "rbla_secure.run_folder",
        "rbla_secure.seeding",
        "rbla_secure.tasks",
    },
    "rbla_secure.exported_adapter": {
        "rbla_secure.planning",
        "rbla_secure.report.privacy",
        "rbla_secure.run_folder",
        "rbla_secure.tasks.base_model",
    }
    | VOCABULARY
    | {"rbla_secure.lora"},
    "rbla_secure.cli": {"rbla_secure", "protocols.errors", "protocols.identity", "protocols.primitives"},
}

# One third-party library per file or folder; numpy is free everywhere.
LIBRARIES: dict[str, set[str]] = {
    "cryptography": {"protocols.primitives", "protocols.identity"},
    "tenseal": {"protocols.homomorphic.scheme.bfv"},
    "zstandard": {"protocols.homomorphic.scheme.seal_form"},
    "torch": {
        "rbla_secure.tasks",
        "rbla_secure.lora.peft_io",
        "rbla_secure.lora.fold",
        "rbla_secure.privacy.kept_model",
        "rbla_secure.privacy.sample_level",
        "rbla_secure.evaluation.privacy_attacks.gradients",
        "rbla_secure.evaluation.attacked_run",
        "rbla_secure.evaluation.privacy_audit.examples",
        "rbla_secure.frozen_base",
        "rbla_secure.job",
    },
    "peft": {
        "rbla_secure.tasks",
        "rbla_secure.lora.peft_io",
        "rbla_secure.lora.fold",
        "rbla_secure.evaluation.privacy_attacks.gradients",
    },
    "safetensors": {
        "rbla_secure.tasks",
        "rbla_secure.lora.peft_io",
        "rbla_secure.run_folder.checkpoint_file",
        "rbla_secure.federation.client.state_folder",
    },
    "pydantic": {
        "rbla_secure.config",
        "rbla_secure.run_folder",
        "rbla_secure.federation",
        "rbla_secure.report",
        "rbla_secure.evaluation.suite",
        "rbla_secure.evaluation.privacy_audit.suite",
        "rbla_secure.evaluation.privacy_audit.results",
        "rbla_secure.privacy.ledger",
        "rbla_secure.privacy.ledger_fields",
        "rbla_secure.privacy.ledger_file",
        "rbla_secure.privacy.sample_ledger",
        "rbla_secure.privacy.lifetime_ledger",
    },
    "dp_accounting": {"rbla_secure.privacy.accounting", "rbla_secure.privacy.renyi_filter"},
    "scipy": {
        "rbla_secure.privacy.auditing",
        "rbla_secure.privacy.one_run",
        "rbla_secure.evaluation.statistics",
    },
    "tomli_w": {"rbla_secure.config"},
    "rich": {
        "rbla_secure.actions",
        "rbla_secure.api",
        "rbla_secure.report.console",
        "rbla_secure.cli.output",
    },
}


def module_name(path: Path) -> str:
    """The dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in SOURCES}


def for_types(tree: ast.AST) -> set[ast.AST]:
    """Everything below `if TYPE_CHECKING:`, which is read by a type checker alone."""
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
    guarded = [node for node in tests if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"]
    return {below for node in guarded for below in ast.walk(node)}


@cache
def imports(path: Path, *, types: bool = True) -> tuple[str, ...]:
    """Every module that a file imports, by its full name; relative imports do not occur."""
    found: list[str] = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    left_out = set() if types else for_types(tree)
    for node in ast.walk(tree):
        if node in left_out:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name if name in MODULES else str(node.module) for name in names]
    return tuple(found)


def inside(module: str, prefix: str) -> bool:
    """Whether a module is a prefix or stands below it."""
    return module == prefix or module.startswith(prefix + ".")


def rule_of(module: str) -> str:
    """The longest prefix that has a rule."""
    return max((prefix for prefix in ALLOWED if inside(module, prefix)), key=len, default="")


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_module_imports_only_what_its_place_allows(path: Path) -> None:
    """Building blocks do not know each other; only the composition composes."""
    module = module_name(path)
    if module == "protocols":
        assert not list(imports(path)), "a package's front door imports nothing"
        return
    if module == "rbla_secure":
        # What it imports when it is asked is its own interface; tests/rbla_secure/test_api.py counts what it loads before.
        assert set(imports(path)) == {"typing", "rbla_secure.api"}
        return
    rule = rule_of(module)
    assert rule, f"{module} has no import rule: add one"

    ours = {name for name in imports(path) if name.split(".")[0] in {"protocols", "rbla_secure"}}

    allowed = ALLOWED[rule] | {rule}
    strangers = {name for name in ours if not any(inside(name, prefix) for prefix in allowed)}
    assert strangers - {"rbla_secure"} == set(), f"{module} must not import {strangers}"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_library_is_imported_only_where_it_belongs(path: Path) -> None:
    """Replacing a library touches one file or folder."""
    module = module_name(path)

    used = {name.split(".")[0] for name in imports(path)}

    for library, places in LIBRARIES.items():
        if library in used:
            assert any(inside(module, place) for place in places), f"{module} must not import {library}"


@cache
def graph() -> Mapping[str, frozenset[str]]:
    """By module of ours, what it imports when it runs: anywhere in the file, but for types alone."""
    return {module_name(path): frozenset(imports(path, types=False)) for path in SOURCES}


def reached(start: str, graph: Mapping[str, frozenset[str]]) -> set[str]:
    """The modules that a module imports, itself or through others."""
    found, left = set[str](), [start]
    while left:
        module = left.pop()
        if module in found:
            continue
        found.add(module)
        left += graph.get(module, ())
    return found


# What a user starts to train an adapter; the command line imports a command's own code when it runs it.
ORDINARY = ("rbla_secure.job", "rbla_secure.api", "rbla_secure.cli.run", "rbla_secure.cli.resume")


@pytest.mark.parametrize("start", ORDINARY)
def test_an_ordinary_run_imports_no_attacks(start: str) -> None:
    """Attacks stand on what is attacked: nothing of the evaluation is among what a run imports, directly or not."""
    assert {name for name in reached(start, graph()) if inside(name, "rbla_secure.evaluation")} == set()


def test_the_search_for_attacks_would_find_them() -> None:
    """The control: through the command that evaluates, and through one import too many far below a run."""
    assert "rbla_secure.evaluation.attacked_run" in reached("rbla_secure.cli.evaluate", graph())
    below, attack = "rbla_secure.federation.server.step_checks", "rbla_secure.evaluation.poisoning.triggers"
    planted = {**graph(), below: graph()[below] | {attack}}
    for start in ORDINARY:
        assert attack in reached(start, planted)


def test_every_third_party_import_has_a_rule() -> None:
    """A new dependency is a decision: it gets a place of its own."""
    standard = __import__("sys").stdlib_module_names
    used = {name.split(".")[0] for path in SOURCES for name in imports(path)}

    third_party = used - set(standard) - {"protocols", "rbla_secure", "numpy"}

    assert third_party == set(LIBRARIES)


def test_the_rules_would_notice_a_wrong_import() -> None:
    """The check can fail: a forbidden import is found by the same functions."""
    assert rule_of("protocols.masking.client") == "protocols.masking"
    assert not any(inside("rbla_secure.config", p) for p in ALLOWED["protocols.masking"])
    assert not any(inside("protocols.masking.terms", p) for p in ALLOWED["protocols.identity"])
    assert rule_of("rbla_secure.federation.client.memory") == "rbla_secure.federation.client"
    assert not any(
        inside("rbla_secure.federation.server.defence", p) for p in ALLOWED["rbla_secure.federation.client"]
    )
    assert not any(
        inside("rbla_secure.federation.client.memory", p) for p in ALLOWED["rbla_secure.federation.server"]
    )
    assert not any(inside("rbla_secure.federation.round", p) for p in ALLOWED["rbla_secure.run_folder"])
    assert not any(inside("protocols.identity.roster", p) for p in ALLOWED["protocols.masking"])
    assert not any(inside("protocols.masking.graph", p) for p in ALLOWED["protocols.homomorphic"])
    assert not any(inside("protocols.homomorphic.scheme.bfv", p) for p in ALLOWED["protocols.masking"])
    assert not any(inside("rbla_secure.privacy.clipping", p) for p in ALLOWED["rbla_secure.lora"])
    assert rule_of("rbla_secure.robustness.rules.krum") == "rbla_secure.robustness.rules"
    assert not any(inside("rbla_secure.privacy.noise", p) for p in ALLOWED["rbla_secure.robustness"])
    assert not any(inside("rbla_secure.lora.update", p) for p in ALLOWED["rbla_secure.robustness.rules"])
    assert not any(inside("rbla_secure.federation.round", p) for p in ALLOWED["rbla_secure.planning"])
    assert inside("protocols.masking.client", "protocols.masking")
    assert not inside("protocols.masking_extra", "protocols.masking")


# Whose implementations answer for themselves: by asking which one it is, code would have to change when one is added.
ANSWER_FOR_THEMSELVES = {
    "SecureSum": "Masking",
    "SumServer": "HomomorphicServer",
    "SumClient": "PlainClient",
    "Mode": "MaskingMode",
    "Segmentation": "GroupSegmentation",
    "GaussianMechanism": "CentralGaussian",
}


def last_name(node: ast.AST) -> str:
    """The last part of a dotted name, also of one with type parameters; empty for anything else."""
    if isinstance(node, ast.Subscript):
        node = node.value
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def implementations_of(roots: set[str], texts: list[str]) -> set[str]:
    """These classes and all that are derived from them, by name."""
    derived = {
        node.name: {last_name(base) for base in node.bases}
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef)
    }
    found = set(roots)
    while more := {name for name, bases in derived.items() if bases & found} - found:
        found |= more
    return found


def switches(text: str, classes: set[str]) -> list[str]:
    """Where code asks which implementation it has: by class, by the name of a mode, or whether there are groups."""
    found = []
    for node in ast.walk(ast.parse(text)):
        names: list[ast.AST] = []
        if isinstance(node, ast.Call) and last_name(node.func) in {"isinstance", "issubclass"}:
            names = list(ast.walk(node.args[1]))
        if isinstance(node, ast.MatchClass):
            names = [node.cls]
        found += [name for name in map(last_name, names) if name in classes]
        if isinstance(node, ast.Attribute):
            if last_name(node.value) == "SecureSumMode":
                found.append(f"SecureSumMode.{node.attr}")
            if node.attr == "grouped":
                found.append(".grouped")
    return found


def test_nobody_asks_which_implementation_it_has() -> None:
    """A secure sum, a cut into segments or a noise mechanism is asked what it does; only the registry and a default name a mode."""
    texts = {module_name(path): path.read_text(encoding="utf-8") for path in SOURCES}
    classes = implementations_of(set(ANSWER_FOR_THEMSELVES), list(texts.values()))

    found = {module: named for module, text in texts.items() if (named := switches(text, classes))}

    assert found == {
        "rbla_secure.config.schema": ["SecureSumMode.MASKING"],
        "rbla_secure.planning.modes": ["SecureSumMode.PLAIN"],
    }
    assert set(ANSWER_FOR_THEMSELVES.values()) <= classes


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("if isinstance(self._secure_sum, Masking): pass", ["Masking"]),
        ("if isinstance(server, (int, secure_sum.MaskingServer)): pass", ["MaskingServer"]),
        ("if isinstance(server, int | HomomorphicServer): pass", ["HomomorphicServer"]),
        ("if issubclass(kind, CentralGaussian): pass", ["CentralGaussian"]),
        ("match mechanism:\n    case CentralGaussian(): pass", ["CentralGaussian"]),
        ("if config.secure_sum is SecureSumMode.PLAIN: pass", ["SecureSumMode.PLAIN"]),
        ("if plan.grouped: pass", [".grouped"]),
        ("if isinstance(error, OSError): pass", []),
    ],
)
def test_a_question_of_that_kind_would_be_noticed(text: str, found: list[str]) -> None:
    """The check can fail: a switch in any of its forms is found, and an honest question is none."""
    texts = [path.read_text(encoding="utf-8") for path in SOURCES]

    assert switches(text, implementations_of(set(ANSWER_FOR_THEMSELVES), texts)) == found


def test_tests_are_no_package() -> None:
    """An __init__.py under tests/ would let tests/protocols shadow protocols."""
    assert not list((ROOT / "tests").rglob("__init__.py"))
