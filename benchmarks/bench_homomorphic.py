"""What one client's encryption costs beside the CKKS set-up that public systems use.

    pytest benchmarks/bench_homomorphic.py --benchmark-group-by=param:length

The baseline is `ckks`: N = 8192, coefficients [60, 40, 40], scale 2^40, public key, serialised as it is sent. Ours are the
profiles of `protocols/homomorphic/scheme/parameters.py`, from integers to the bytes on the wire. pytest-benchmark prints every
time as a ratio to the fastest of its group; all steps, memory and errors are in `homomorphic_peer.py`.
"""

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from protocols.homomorphic.scheme import bfv, polynomials
from protocols.homomorphic.scheme.fields import to_slots
from protocols.homomorphic.scheme.parameters import PROFILES, by_name

CLIENTS = 10


@pytest.mark.parametrize("length", [10_000, 100_000])
@pytest.mark.parametrize("subject", ["ckks", *(profile.name for profile in PROFILES)])
def test_upload(benchmark: BenchmarkFixture, subject: str, length: int) -> None:
    """One client, from its values to the bytes it sends."""
    values = np.random.default_rng(0).integers(-100, 101, size=length)
    if subject == "ckks":
        tenseal = bfv.library()
        context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40], n_threads=1
        )
        context.global_scale = 2.0**40
        floats = (values / 100).astype(np.float32)

        def upload() -> int:
            blocks = [
                tenseal.ckks_vector(context, floats[at : at + 4096].tolist()) for at in range(0, length, 4096)
            ]
            return sum(len(block.serialize()) for block in blocks)
    else:
        profile = by_name(subject)
        secret = bfv.RoundSecret.generate(profile)
        key = bfv.public_key(profile, polynomials.encode(secret.public_key(), profile.moduli))

        def upload() -> int:
            slots = to_slots(values, profile, members=CLIENTS)
            return len(polynomials.encode(key.encrypt(slots), profile.ciphertext_moduli))

    sent = benchmark(upload)

    benchmark.extra_info["bytes over float32"] = sent / (4 * length)
