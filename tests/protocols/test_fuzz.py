"""Whatever bytes arrive, a decoder returns the one message they encode or raises an error by name."""

import os

import pytest

from tests.support.fuzzer import FUZZER


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_mutated_messages_end_with_named_errors(seed: int) -> None:
    """A thousand inputs end as they must, quickly and in little memory."""
    report = FUZZER.fuzz(1000, seed=seed)

    assert report.failures == []
    assert report.clean, f"slowest {report.slowest}, peak {report.peak_bytes} bytes"


def test_every_message_type_is_fuzzed() -> None:
    """A new message cannot be forgotten."""
    assert FUZZER.missing_types(FUZZER.make_targets(os.urandom)) == set()
