"""Whatever bytes arrive, a decoder returns the one message they encode or raises an error by name."""

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest


def load_fuzzer() -> ModuleType:
    """The benchmark by its path: among the installed packages there may be one that is called benchmarks, too."""
    path = Path(__file__).parents[2] / "benchmarks" / "fuzz_decoders.py"
    spec = spec_from_file_location("rbla_secure_fuzz_decoders", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FUZZER = load_fuzzer()


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_mutated_messages_end_with_named_errors(seed: int) -> None:
    """A thousand inputs end as they must, quickly and in little memory."""
    report = FUZZER.fuzz(1000, seed=seed)

    assert report.failures == []
    assert report.clean, f"slowest {report.slowest}, peak {report.peak_bytes} bytes"


def test_every_message_type_is_fuzzed() -> None:
    """A new message cannot be forgotten."""
    assert FUZZER.missing_types(FUZZER.make_targets(os.urandom)) == set()
