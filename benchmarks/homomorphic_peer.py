"""What our encrypted sums cost beside the CKKS set-up that public systems use, both in one run on one machine.

    pip install -e '.[he,bench]'
    python benchmarks/homomorphic_peer.py [--quick] [--lengths 10000 100000 1000000] [--out FILE]

The baseline is CKKS with N = 8192, coefficients [60, 40, 40] and scale 2^40: TenSEAL's example parameters and NVFlare's,
one vector of 4,096 values per ciphertext, weights applied before encryption. It is measured under a public key, which is
what our clients use, and beside it with a symmetric key, which every client would have to share and which therefore
opens everybody's updates. Ours are the three profiles of `protocols/homomorphic/scheme/parameters.py`.

All start from the same float32 vectors of ten clients (sigma 0.01, cut at 0.06) and end with the sum as float64. Timed
are processor seconds on one thread, per client unless marked:

    prepare     ours: rounding to integers, packing them into slots;   baseline: nothing
    encrypt     TenSEAL's bfv_vector or ckks_vector of Python lists made from the values
    serialise   ours: TenSEAL's serialize, taking the residues out, packing them;   baseline: TenSEAL's serialize
    load        ours: bits to residues, range check;    baseline: TenSEAL's ckks_vector_from
    add         one ciphertext sum on top of another
    decrypt     once for all ten, unpacking included

Every subject and length runs in a process of its own, three times; the medians stand in the table. Peak memory is that
of the process beyond what it had after its imports, with the ten clients one after the other. Errors are against the sum
of the float32 vectors; "exact" says whether the sum of our integers came out exactly. Last, what screening adds: a
CKKS copy, two numbers per client computed on it, and keys for that.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from parties import machine

from protocols.homomorphic.scheme import bfv, ckks, polynomials
from protocols.homomorphic.scheme.fields import Slots, from_slots, to_slots
from protocols.homomorphic.scheme.parameters import PROFILES, by_name
from protocols.homomorphic.screening import screening
from protocols.session import Segment

Floats = npt.NDArray[np.float32]
Figures = dict[str, Any]

CLIENTS = 10
BOUND = 0.06
SIGMA = 0.01
REPEATS = 3
PEERS = ("ckks public key", "ckks symmetric key")
STEPS = ("prepare", "encrypt", "serialise", "load", "add", "decrypt")
CLIENT_STEPS = STEPS[:3]
# Of the cell that the targets are about.
TARGET_LENGTH = 1_000_000
FEWER_BYTES, LESS_ENCRYPTION, MOST_EXPANSION = 6.0, 5.0, 2.1
# Signal bits per profile: the most that its fields hold for ten clients, at most 16.
BITS = {"bfv-2x20": 16, "bfv-3x12": 8, "bfv-2x29": 16}


@dataclass
class Clock:
    """Processor seconds by step."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))

    def measure(self, step: str, work: Callable[[], Any]) -> Any:
        """Add what the work takes."""
        began = time.process_time()
        result = work()
        self.seconds[step] += time.process_time() - began
        return result


def vectors(length: int) -> Iterator[Floats]:
    """The clients' vectors, one after the other."""
    for client in range(CLIENTS):
        values = np.random.default_rng(client).normal(0.0, SIGMA, length)
        yield np.clip(values, -BOUND, BOUND).astype(np.float32)


def peer(name: str, length: int) -> Figures:
    """The baseline."""
    tenseal = bfv.library()
    kind = tenseal.ENCRYPTION_TYPE.SYMMETRIC if "symmetric" in name else tenseal.ENCRYPTION_TYPE.ASYMMETRIC
    began = time.process_time()
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40], encryption_type=kind, n_threads=1
    )
    context.global_scale = 2.0**40
    keys = time.process_time() - began
    clock, total, size, start = Clock(), None, 0, peak()
    for values in vectors(length):
        blocks = clock.measure(
            "encrypt",
            lambda values=values: [
                tenseal.ckks_vector(context, values[at : at + 4096].tolist()) for at in range(0, length, 4096)
            ],
        )
        sent = clock.measure("serialise", lambda blocks=blocks: [block.serialize() for block in blocks])
        size = sum(map(len, sent))
        loaded = clock.measure(
            "load", lambda sent=sent: [tenseal.ckks_vector_from(context, block) for block in sent]
        )
        if total is None:
            total = loaded
        else:
            clock.measure("add", partial(_add_all, total, loaded))
    opened = clock.measure("decrypt", lambda: np.concatenate([block.decrypt() for block in total or []]))
    expected = sum(values.astype(np.float64) for values in vectors(length))
    return {
        **per_client(clock),
        "key_seconds": keys,
        "bytes": size,
        "peak_bytes": peak() - start,
        "max_error": float(np.abs(opened - expected).max()),
    }


def _add_all(totals: list[Any], others: list[Any]) -> None:
    for total, other in zip(totals, others, strict=True):
        total.add_(other)


def ours(name: str, length: int) -> Figures:
    """One of our profiles."""
    profile = by_name(name)
    levels = 2 ** (BITS[name] - 1) - 1
    began = time.process_time()
    secret = bfv.RoundSecret.generate(profile)
    public = polynomials.encode(secret.public_key(), profile.moduli)
    keys = time.process_time() - began
    key = bfv.public_key(profile, public)
    moduli, count = profile.ciphertext_moduli, profile.ciphertexts(length)
    clock, total, size, start = Clock(), None, 0, peak()
    integers = np.zeros(length, dtype=np.int64)

    def prepare(values: Floats) -> tuple[npt.NDArray[np.int64], Slots]:
        rounded = np.rint(values.astype(np.float64) * (levels / BOUND)).astype(np.int64)
        return rounded, to_slots(rounded, profile, members=CLIENTS)

    encrypted = bfv.PublicKey._encrypted  # noqa: SLF001  # timed alone, as the baseline's counterpart is

    def timed(key: bfv.PublicKey, row: Slots) -> Any:
        return clock.measure("encrypt", partial(encrypted, key, row))

    for values in vectors(length):
        rounded, slots = clock.measure("prepare", partial(prepare, values))
        integers += rounded
        before = clock.seconds["encrypt"]
        with patch.object(bfv.PublicKey, "_encrypted", timed):
            sent = clock.measure(
                "serialise", lambda slots=slots: polynomials.encode(key.encrypt(slots), moduli)
            )
        clock.seconds["serialise"] -= clock.seconds["encrypt"] - before
        size = len(sent)
        loaded = clock.measure(
            "load", partial(polynomials.decode, sent, count=count, moduli=moduli, degree=profile.degree)
        )
        if total is None:
            total = loaded
        else:
            clock.measure("add", partial(polynomials.add, total, loaded, moduli))
    assert total is not None
    opened = clock.measure(
        "decrypt",
        lambda: from_slots(secret.decrypt(total), profile, members=CLIENTS, contributors=CLIENTS),
    )[:length]
    expected = sum(values.astype(np.float64) for values in vectors(length))
    return {
        **per_client(clock),
        "key_seconds": keys,
        "bytes": size,
        "peak_bytes": peak() - start,
        "max_error": float(np.abs(opened * (BOUND / levels) - expected).max()),
        "exact": bool(np.array_equal(opened, integers)),
    }


def screened(length: int) -> Figures:
    """What screening adds per client, and per round for its keys."""
    segments = (Segment(index=0, length=length, members=("client",), quorum=1),)
    rule = screening.Screening(max_norm=1e6, release=screening.ScreeningRelease.VALUES)
    figures: Figures = {}
    start = peak()

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = work()
        figures[name] = time.process_time() - began
        return result

    secret = timed("key_seconds", ckks.ScreeningSecret.generate)
    keys = timed("key_serialise_seconds", secret.evaluation_keys)
    evaluator = timed("key_load_seconds", lambda: ckks.Evaluator(keys))
    public = polynomials.encode(secret.public_key(), screening.MODULI)
    key = ckks.screening_key(public)
    first, second = (values.astype(np.float64) / BOUND for values in list(vectors(length))[:2])
    rows = screening.rows({0: first}, segments, rule)
    direction = screening.unit_direction({0: first + second}, segments, rule)
    assert direction is not None
    sent = timed(
        "client_seconds",
        lambda: polynomials.encode(key.encrypt(rows), screening.CIPHERTEXT_MODULI),
    )
    copy = timed(
        "load_seconds",
        lambda: polynomials.decode(
            sent,
            count=len(rows),
            moduli=screening.CIPHERTEXT_MODULI,
            degree=screening.DEGREE,
        ),
    )
    square = timed("norm_seconds", lambda: evaluator.squared_norm(copy))
    product = timed("projection_seconds", lambda: evaluator.projection(copy, direction))
    opened = timed("decrypt_seconds", lambda: (secret.open(square), secret.open(product)))
    norm = float(np.sqrt((first**2).sum()))
    cosine = float((first * (first + second)).sum() / norm / np.sqrt(((first + second) ** 2).sum()))
    found = rule.judge(squared_norm=opened[0], projection=opened[1])
    assert found.norm is not None
    assert found.cosine is not None
    return {
        **figures,
        "bytes": len(sent),
        "evaluation_key_bytes": len(keys),
        "peak_bytes": peak() - start,
        "norm": norm,
        "norm_error": abs(found.norm - norm),
        "cosine": cosine,
        "cosine_error": abs(found.cosine - cosine),
    }


def per_client(clock: Clock) -> dict[str, float]:
    """Seconds of one client; decryption is one for all, and the first client is not added to anything."""
    parts = {"decrypt": 1, "add": CLIENTS - 1}
    return {step: seconds / parts.get(step, CLIENTS) for step, seconds in clock.seconds.items()}


def peak() -> int:
    """Peak memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def run(subject: str, length: int) -> Figures:
    """One subject at one length; called in a process of its own."""
    bfv.library()
    if subject == "screening":
        return screened(length)
    return peer(subject, length) if subject in PEERS else ours(subject, length)


def cell(subject: str, length: int) -> Figures:
    """Medians over a few runs."""
    runs = []
    for _ in range(REPEATS):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            runs.append(pool.submit(run, subject, length).result())
    return {
        name: all(each[name] for each in runs)
        if isinstance(runs[0][name], bool)
        else median(each[name] for each in runs)
        for name in runs[0]
    }


def table(results: Figures, lengths: list[int]) -> Iterator[str]:
    """Markdown."""
    yield (
        "| d | subject | prepare | encrypt | serialise | load | add | decrypt (10) | keys | bytes / float32 "
        "| peak | max error |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
    for length in lengths:
        for subject in (*PEERS, *(profile.name for profile in PROFILES)):
            found = results[str(length)][subject]
            steps = " | ".join(f"{found[step] * 1e3:.1f} ms" for step in STEPS)
            exact = ", exact" if found.get("exact") else ""
            yield (
                f"| {length:,} | {subject} | {steps} | {found['key_seconds'] * 1e3:.0f} ms "
                f"| {found['bytes'] / (4 * length):.2f} | {found['peak_bytes'] / 1e6:.0f} MB "
                f"| {found['max_error']:.1e}{exact} |"
            )
    yield ""
    yield "Screening, per client (keys: per round):"
    yield ""
    yield "| d | client | load | norm | projection | decrypt | keys: make, write, load | copy / float32 | keys | norm, its error | cosine, its error |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for length in lengths:
        found = results[str(length)]["screening"]
        steps = " | ".join(
            f"{found[f'{step}_seconds'] * 1e3:.1f} ms"
            for step in ("client", "load", "norm", "projection", "decrypt")
        )
        keys = ", ".join(
            f"{found[f'key{step}_seconds'] * 1e3:.0f} ms" for step in ("", "_serialise", "_load")
        )
        yield (
            f"| {length:,} | {steps} | {keys} | {found['bytes'] / (4 * length):.1f} "
            f"| {found['evaluation_key_bytes'] / 1e6:.1f} MB | {found['norm']:.3f}, {found['norm_error']:.1e} "
            f"| {found['cosine']:.3f}, {found['cosine_error']:.1e} |"
        )


def targets(results: Figures) -> Iterator[str]:
    """One line each, about the default profile at a million values."""
    cells = results[str(TARGET_LENGTH)]
    our, theirs = cells["bfv-2x20"], cells["ckks public key"]
    fewer, less = theirs["bytes"] / our["bytes"], theirs["encrypt"] / our["encrypt"]
    expansion = our["bytes"] / (4 * TARGET_LENGTH)
    yield _verdict(f"{fewer:.1f}x fewer bytes, target {FEWER_BYTES:g}x", fewer >= FEWER_BYTES)
    yield _verdict(f"{less:.1f}x less encryption time, target {LESS_ENCRYPTION:g}x", less >= LESS_ENCRYPTION)
    whole = sum(theirs[step] for step in CLIENT_STEPS) / sum(our[step] for step in CLIENT_STEPS)
    yield f"- (a client in all, from floats to bytes: {whole:.1f}x less time)"
    yield _verdict(f"bytes {expansion:.2f}x float32, target {MOST_EXPANSION}x", expansion <= MOST_EXPANSION)
    exact = all(cell["exact"] for by in results.values() for name, cell in by.items() if name in BITS)
    yield _verdict("every sum of ours exact", exact)


def _verdict(text: str, met: bool) -> str:  # noqa: FBT001
    return f"- {'met' if met else 'MISSED'}: {text}"


def main() -> None:
    """Measure, save, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="10,000 values, for which no target is meant")
    parser.add_argument("--lengths", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], metavar="D")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "homomorphic_peer.json"
    )
    options = parser.parse_args()
    lengths = [10_000] if options.quick else options.lengths
    results: Figures = {}
    for length in lengths:
        results[str(length)] = {}
        for subject in (*PEERS, *(profile.name for profile in PROFILES), "screening"):
            began = time.perf_counter()
            results[str(length)][subject] = cell(subject, length)
            print(f"{length} {subject}: {time.perf_counter() - began:.0f} s", flush=True)
    whole = {"machine": machine("tenseal"), "quick": options.quick, "cells": results}
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(whole, indent=1) + "\n")
    lines = [f"{whole['machine']}", "", *table(results, lengths), ""]
    lines += targets(results) if TARGET_LENGTH in lengths else ["The targets are about a million values."]
    options.out.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
