"""How far masking is from what AES alone would take, what recovering shares costs, and a thousand signing clients.

    python benchmarks/aes_limit.py [--quick] [--out benchmarks/results/aes_limit.json]

The limit is AES-128-CTR (`update_into`) over as many bytes as the masks have, in chunks of the same size, in turns with
what it is compared to: on one thread, and shared evenly by as many threads as there are cores. Masks are made on one
thread, and as they are by default, where threads are used if the work is worth them. Each is set beside what it can be
compared with:

    one thread       processor time over that of AES on one thread
    default threads  time on the wall over that of AES on one thread: what a machine's cores bring;
                     and over that of AES on all cores: how far from what they could bring

Four parts, each in a process of its own:

    removal   the server's mask removal, seeds given: n self masks
    masking   a client's masks, X25519 secrets given: n - 1 pairwise masks and its self mask
    recovery  what opening a sum takes besides removing masks, 5 % of the clients dropped out, sparse graph
    session   a whole session in which everybody signs, 5 % dropped out, all parties in one process; every client adds
              the same vector, and uploads arrive one at a time. Enrolment and trust store are made before the clock
              starts; the store is one object that all parties use.

Wall time means something on an idle machine alone. The peak is that of the whole process since it began, so a part that
stands for all parties says more than any of them needs.
"""

import argparse
import copy
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from parties import BINDING, STAGES, Cohort, authority_for, dropped_of, machine, play

from protocols.masking.masks import SEED_SIZE, SegmentMasks
from protocols.masking.parameters import share_graph_parameters
from protocols.masking.secure_sum import MaskingServer
from protocols.masking.server import opening
from protocols.primitives import prg
from protocols.primitives.secret import Secret
from protocols.profiles import SEMI_HONEST

BOUND = 2**15 - 1
DROPPED = 0.05
REPEATS = 7
MOST_RATIO, MOST_SECONDS, MOST_BYTES = 1.5, 1.5, 2 * 10**9
# By part: members and vector length.
FULL = {
    "removal": (1000, 100_000),
    "masking": (100, 1_000_000),
    "recovery": (1000, 1),
    "session": (1000, 1_000_000),
}
QUICK = {
    "removal": (200, 100_000),
    "masking": (20, 1_000_000),
    "recovery": (200, 1),
    "session": (120, 100_000),
}

Figures = dict[str, Any]


def aes_alone(size: int) -> None:
    """So many bytes of one stream."""
    stream = Cipher(AES(bytes(prg.KEY_SIZE)), CTR(bytes(16))).encryptor()
    zeros, buffer = memoryview(bytes(prg.CHUNK_BYTES)), bytearray(prg.CHUNK_BYTES + 15)
    for at in range(0, size, prg.CHUNK_BYTES):
        stream.update_into(zeros[: size - at], buffer)


def aes_on(threads: int, size: int) -> None:
    """So many bytes, shared evenly by threads that are started for it, as those are that make masks."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(aes_alone, [size // threads] * threads))


def removal(members: int, length: int) -> Figures:
    """The self masks of all clients."""
    masks = SegmentMasks(context=bytes(32), segment=0, binding=BINDING)
    seeds = {position: Secret.random(SEED_SIZE) for position in range(1, members + 1)}
    target = np.zeros(length, dtype=np.uint32)
    return over_aes(lambda: masks.remove(target, seeds, {}), 4 * length * members)


def masking(members: int, length: int) -> Figures:
    """The masks of the client in the middle."""
    masks = SegmentMasks(context=bytes(32), segment=0, binding=BINDING)
    owner = members // 2
    partners = {p: Secret.random(SEED_SIZE) for p in range(1, members + 1) if p != owner}
    seed, target = Secret.random(SEED_SIZE), np.zeros(length, dtype=np.uint32)
    return over_aes(lambda: masks.hide(target, seed, partners, owner=owner), 4 * length * members)


def over_aes(work: Callable[[], None], size: int) -> Figures:
    """Seconds of the work and of AES alone, in turns; medians, and medians of the ratios of neighbours."""
    cores = prg._CORES  # noqa: SLF001
    series: dict[str, list[float]] = {}
    for turn in range(REPEATS + 1):
        alone_cpu, alone_wall = _seconds(partial(aes_alone, size))
        _, all_wall = _seconds(partial(aes_on, cores, size))
        with patch.object(prg, "_CORES", 1):
            one_cpu, _ = _seconds(work)
        _, default_wall = _seconds(work)
        if not turn:  # it warms up
            continue
        for name, value in {
            "aes_seconds": alone_cpu,
            "aes_wall_seconds": alone_wall,
            "aes_all_cores_wall_seconds": all_wall,
            "one_thread_seconds": one_cpu,
            "default_threads_wall_seconds": default_wall,
            "one_thread_over_aes": one_cpu / alone_cpu,
            "default_threads_over_aes": default_wall / alone_wall,
            "default_threads_over_aes_on_all_cores": default_wall / all_wall,
        }.items():
            series.setdefault(name, []).append(value)
    return {"bytes": size, "cores": cores, **{name: median(values) for name, values in series.items()}}


def _seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Of the processors, all threads together, and on the wall."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def recovery(members: int, length: int) -> Figures:
    """Opening a sum without removing the masks: Lagrange coefficients, secrets, key agreement with the dropped."""
    cohort = Cohort.of(members, length, SEMI_HONEST, input_bound=BOUND)
    kept: list[MaskingServer] = []
    play(
        cohort,
        lambda _position: np.ones(length, dtype=np.int64),
        dropped=dropped_of(members, DROPPED),
        before_result=lambda server: kept.append(copy.deepcopy(server)),
    )
    cpu = []
    for _ in range(3):
        opening._recovery_over.cache_clear()  # noqa: SLF001  # every session has helpers of its own
        server = copy.deepcopy(kept[0])
        with patch.object(SegmentMasks, "remove"):
            cpu.append(_seconds(partial(_open, server))[0])
    terms = cohort.terms
    return {
        "dropped": len(dropped_of(members, DROPPED)),
        "neighbours": share_graph_parameters(members, SEMI_HONEST).degree,
        "threshold": terms.share_threshold,
        "seconds": median(cpu),
    }


def _open(server: MaskingServer) -> None:
    # Nothing was removed, so the sum stays closed: what is timed is done by then.
    server.result({0: BINDING})


def session(members: int, length: int) -> Figures:
    """Everything, with signatures."""
    began = time.perf_counter()
    authority = authority_for(members)
    cohort = Cohort.of(members, length, SEMI_HONEST, input_bound=BOUND, authority=authority)
    enrolment, began = time.perf_counter() - began, time.perf_counter()
    values = np.random.default_rng(0).integers(-BOUND, BOUND, size=length, endpoint=True)
    removing: list[float] = []
    remove = SegmentMasks.remove

    def timed(masks: SegmentMasks, *arguments: Any) -> None:
        removing.append(_seconds(partial(remove, masks, *arguments))[1])

    with patch.object(SegmentMasks, "remove", timed):
        played = play(cohort, lambda _position: values, dropped=dropped_of(members, DROPPED))
    assert played.exact, "the sum is not the sum of the inputs"
    return {
        "survivors": played.uploads,
        "enrolment_wall_seconds": enrolment,
        "wall_seconds": time.perf_counter() - began,
        "clients_wall_seconds": dict(played.clients.wall),
        "clients_cpu_seconds": dict(played.clients.cpu),
        "server_wall_seconds": dict(played.server.wall),
        "server_cpu_seconds": dict(played.server.cpu),
        "mask_removal_wall_seconds": sum(removing),
        "bytes_up_per_client": sum(played.bytes_up.values()),
    }


PARTS = {part.__name__: part for part in (removal, masking, recovery, session)}


def run(name: str, members: int, length: int) -> Figures:
    """A part's figures and the peak memory of this process, which runs no other."""
    figures = PARTS[name](members, length)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"members": members, "length": length, **figures, "peak_resident_bytes": peak}


def table(parts: dict[str, Figures]) -> Iterator[str]:
    """Markdown."""
    yield "| part | n | d | cores | AES, one thread | AES, all cores | one thread | over AES | default threads | over AES | over AES on all cores | peak |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
    for name in ("removal", "masking"):
        part = parts[name]
        speed = part["bytes"] / part["aes_seconds"] / 1e9
        yield (
            f"| {name} | {part['members']} | {part['length']:,} | {part['cores']} | {_ms(part['aes_seconds'])} "
            f"({speed:.1f} GB/s) | {_ms(part['aes_all_cores_wall_seconds'])} | {_ms(part['one_thread_seconds'])} "
            f"| {part['one_thread_over_aes']:.2f}x | {_ms(part['default_threads_wall_seconds'])} "
            f"| {part['default_threads_over_aes']:.2f}x | {part['default_threads_over_aes_on_all_cores']:.2f}x "
            f"| {part['peak_resident_bytes'] / 1e6:.0f} MB |"
        )
    yield ""
    yield "AES and ours on one thread are processor time; AES on all cores and ours on default threads are wall time."
    part, whole = parts["recovery"], parts["session"]
    yield ""
    yield (
        f"Share recovery: n = {part['members']}, {part['dropped']} dropped, {part['neighbours']} neighbours, "
        f"threshold {part['threshold']}: {part['seconds']:.2f} s."
    )
    yield ""
    yield (
        f"Signed session: n = {whole['members']}, d = {whole['length']:,}, {whole['survivors']} survivors: "
        f"{whole['wall_seconds']:.0f} s, peak {whole['peak_resident_bytes'] / 1e9:.2f} GB "
        f"(enrolment before it {whole['enrolment_wall_seconds']:.1f} s; "
        f"of the opening {whole['mask_removal_wall_seconds']:.2f} s are mask removal)."
    )
    yield ""
    yield "| stage | a client, ms wall | a client, ms CPU | server, s wall | server, s CPU |"
    yield "|---|---|---|---|---|"
    for stage in STAGES:
        asked = whole["members"] if stage in STAGES[:2] else whole["survivors"]
        columns = (
            whole["clients_wall_seconds"][stage] / asked * 1e3,
            whole["clients_cpu_seconds"][stage] / asked * 1e3,
            whole["server_wall_seconds"][stage],
            whole["server_cpu_seconds"][stage],
        )
        yield f"| {stage} | {' | '.join(f'{value:.2f}' for value in columns)} |"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


def targets(parts: dict[str, Figures]) -> Iterator[str]:
    """One line each."""
    for name in ("removal", "masking"):
        for threads in ("one thread", "default threads"):
            ratio = parts[name][f"{threads.replace(' ', '_')}_over_aes"]
            text = f"{name}, {threads}: {ratio:.2f}x AES on one thread, target {MOST_RATIO}x"
            yield _verdict(text, ratio <= MOST_RATIO)
    seconds = parts["recovery"]["seconds"]
    yield _verdict(f"recovery: {seconds:.2f} s, target {MOST_SECONDS} s", seconds <= MOST_SECONDS)
    peak = parts["session"]["peak_resident_bytes"]
    yield _verdict(f"session: peak {peak / 1e9:.2f} GB, target {MOST_BYTES / 1e9:.0f} GB", peak <= MOST_BYTES)


def _verdict(text: str, met: bool) -> str:  # noqa: FBT001
    return f"- {'met' if met else 'MISSED'}: {text}"


def main() -> None:
    """Measure, save, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smaller sizes, for which no target is meant")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "aes_limit.json")
    options = parser.parse_args()
    if options.quick:
        options.out = options.out.with_stem(options.out.stem + "_quick")
    parts = {}
    for name, sizes in (QUICK if options.quick else FULL).items():
        began = time.perf_counter()
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            parts[name] = pool.submit(run, name, *sizes).result()
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    results = {"machine": machine(), "quick": options.quick, "parts": parts}
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    lines = [f"{results['machine']}", "", *table(parts), ""]
    lines += ["The targets are about the full sizes."] if options.quick else targets(parts)
    options.out.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
