"""The fuzzer of decoders, by its path: among the installed packages there may be one that is called benchmarks, too."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


def _load() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "fuzz_decoders.py"
    spec = spec_from_file_location("rbla_secure_fuzz_decoders", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FUZZER = _load()
