"""What masking costs over the same sum in the clear: whole sessions, all parties in one process, in one run.

    pytest benchmarks/bench_secure_sum.py --benchmark-group-by=param:length

The baseline is `plain`; pytest-benchmark prints every time as a ratio to the fastest of its group.
"""

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from protocols.interface import SecureSum, SegmentInput
from protocols.masking.secure_sum import Masking
from protocols.plain import Plain
from protocols.run import run_session
from protocols.session import Segment, Session

CLIENTS = 10
BINDING = bytes(32)


@pytest.mark.parametrize("length", [10_000, 100_000, 1_000_000])
@pytest.mark.parametrize("secure_sum", [Plain(), Masking()], ids=["plain", "masking"])
def test_session(benchmark: BenchmarkFixture, secure_sum: SecureSum, length: int) -> None:
    """Ten clients, one segment, nobody drops out."""
    members = tuple(f"client-{number:02d}" for number in range(CLIENTS))
    session = Session(
        run=bytes(16),
        round=1,
        attempt=1,
        members=members,
        threshold=6,
        input_bound=2**15 - 1,
        segments=(Segment(index=0, length=length, members=members, quorum=3),),
        config_digest=bytes(32),
    )
    values = np.random.default_rng(0).integers(-(2**15) + 1, 2**15, size=length)
    inputs = {member: {0: SegmentInput(values=values, binding=BINDING)} for member in members}

    result = benchmark(run_session, secure_sum, session, inputs, bindings={0: BINDING})

    assert np.array_equal(result.sums[0], CLIENTS * values)
