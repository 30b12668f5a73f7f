"""Whatever bytes arrive, a decoder returns the one message they encode or raises an error by name."""

import os

import pytest

from benchmarks.fuzz_decoders import fuzz, make_targets, missing_types


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_mutated_messages_end_with_named_errors(seed: int) -> None:
    report = fuzz(1000, seed=seed)

    assert report.failures == []
    assert report.clean, f"slowest {report.slowest}, peak {report.peak_bytes} bytes"


def test_every_message_type_is_fuzzed() -> None:
    assert missing_types(make_targets(os.urandom)) == set()
