"""What our masking costs beside Flower's SecAgg+, both in one run on one machine.

    pip install -e '.[flower]'
    python benchmarks/secagg_peer.py [--quick] [--clients 10 30 100] [--lengths 100000 1000000] [--fresh]

Flower's side is its public client mod and its public workflow, stage by stage, on a grid that hands the messages over
within the process: no ray, no network. Everybody shares with everybody on both sides: num_shares = n, where its rule
that the number of shares be odd does not apply. Its reconstruction threshold is that of our semi-honest profile, every
weight is its max_weight (its most precise setting), everything else its default. Ours starts from the same float32
vectors, and its clipping and stochastic rounding are timed too: at 32 bits on the peer's own grid (steps of 8 / 2^21),
packed to 16 bits within [-1, 1] in the smallest ring that holds the sum.

Timed are the processor seconds of all threads. Ours contain encoding and decoding every message; the peer's protobuf
encoding and the copies of its messages are not timed, its bytes are those of its protobuf records. 5 % of the clients,
at least one, drop out after they have shared keys and before they upload. The peer's keys are shared once per cohort,
and its uploads are made once per length and count in both drop-out cells, as the same computations would be repeated.

Results are saved after each part; a later call goes on from there, given the same machine, versions and lengths.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from parties import (
    STAGES,
    Cohort,
    Floats,
    Played,
    authority_for,
    dropped_of,
    machine,
    peak_since,
    plain_mean,
    play,
    restart_peak,
    values_of,
)

from protocols.masking.server import opening
from protocols.primitives.prg import UniformStream
from protocols.profiles import ONE_ANSWER, SEMI_HONEST
from protocols.ring import RING_BITS, IntegerVector, capacity

PEER = "flwr"
PEER_SERIES = "1.41."
CLIP, LEVELS = 8.0, 2**21  # the peer's defaults
PACKED_CLIP, PACKED_LEVELS = 1.0, 2**15 - 1
DROPPED_SHARES = (0.0, 0.05)
# Of the cell that the targets are about: 100 clients, 100,000 values.
TARGET_CELL = (100, 100_000)

Cell = dict[str, Any]


# --- ours ---


def packed_bits(clients: int) -> int:
    """The smallest ring that holds the sum of 16-bit values."""
    return next(bits for bits in RING_BITS if capacity(clients, bits=bits) >= PACKED_LEVELS)


def quantise(values: Floats, *, clip: float, levels: int) -> IntegerVector:
    """Clipping and stochastic rounding to -levels..levels, as the peer's own clients do."""
    scaled = np.clip(values.astype(np.float64), -clip, clip) * (levels / clip)
    floor = np.floor(scaled)
    uniform = UniformStream(os.urandom(16)).words(len(scaled)) * 2.0**-32
    return (floor + (uniform < scaled - floor)).astype(np.int64)


def our_cells(clients: int, lengths: Sequence[int]) -> list[Cell]:
    """Both profiles, both ring sizes, all lengths and drop-outs."""
    began = time.process_time()
    authority = authority_for(clients)
    enrolment = time.process_time() - began
    cells = []
    for length in lengths:
        for dropped in (dropped_of(clients, share) for share in DROPPED_SHARES):
            mean = plain_mean(clients, length, dropped)
            for profile in (SEMI_HONEST, ONE_ANSWER):
                signed = authority if profile is ONE_ANSWER else None
                for bits in (32, packed_bits(clients)):
                    clip, levels = (CLIP, LEVELS) if bits == 32 else (PACKED_CLIP, PACKED_LEVELS)
                    cohort = Cohort.of(
                        clients, length, profile, input_bound=levels, ring_bits=bits, authority=signed
                    )
                    cell = _our_cell(cohort, dropped, clip, levels, mean)
                    cell["side"] = f"ours, {profile.name}{', signed' if signed else ''}, {bits} bits"
                    cell["enrolment_seconds"] = enrolment if signed else 0.0
                    cells.append(cell)
    return cells


def _our_cell(
    cohort: Cohort, dropped: frozenset[int], clip: float, levels: int, mean: npt.NDArray[np.float64]
) -> Cell:
    clients, length = len(cohort.terms.session.members), len(mean)
    plays: list[Played] = []
    peaks = []
    for _ in range(3 if clients * length <= 10**7 else 1):
        # Lagrange coefficients that an earlier session has left behind would flatter us.
        opening._recovery_over.cache_clear()  # noqa: SLF001
        before = restart_peak()
        plays.append(
            play(
                cohort,
                lambda position: values_of(position, length),
                dropped=dropped,
                quantise=lambda values: quantise(values, clip=clip, levels=levels),
                trace=True,
            )
        )
        peaks.append(peak_since(before))
    first = plays[0]
    answered = dict.fromkeys(STAGES[:2], clients)  # the others by those who upload
    client = {
        stage: median(played.clients.cpu[stage] for played in plays) / answered.get(stage, first.uploads)
        for stage in (*STAGES[:2], "quantise", *STAGES[2:])
    }
    server = {stage: median(played.server.cpu[stage] for played in plays) for stage in STAGES}
    error = np.abs(first.result.sums[0] * (clip / levels) / first.uploads - mean).max()
    return {
        "clients": clients,
        "length": length,
        "dropped": len(dropped),
        "client_seconds": client,
        "client_mask_seconds": client["quantise"] + client["mask_input"],
        "client_peak_bytes": first.client_peak_bytes,
        "server_seconds": server,
        "server_unmask_seconds": server["reveal_shares"],
        "server_peak_bytes": max(peaks),
        "bytes_up": dict(first.bytes_up),
        "bytes_up_total": sum(first.bytes_up.values()),
        "max_error": float(error),
        "exact": all(played.exact for played in plays),
        "repeats": len(plays),
    }


# --- the peer ---


def peer_cells(clients: int, lengths: Sequence[int]) -> list[Cell]:
    """All lengths and drop-outs of one cohort."""
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")
    from peer_flower import PeerCohort  # noqa: PLC0415  # after main has looked whether there is a Flower

    return PeerCohort(clients).cells(lengths, DROPPED_SHARES)


# --- the story ---


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every part that is not in the file yet, each in a process of its own."""
    head = {
        "machine": machine(PEER, "pycryptodome"),
        "lengths": options.lengths,
        "peak_memory": "client: tracemalloc over one upload; server: growth of resident memory from the first upload "
        "(ours: from the first advertisement) to the result, one client at a time at work in the same process",
    }
    saved = json.loads(options.out.read_text()) if options.out.exists() and not options.fresh else {}
    parts = saved["parts"] if {key: saved.get(key) for key in head} == head else {}
    for clients in options.clients:
        for side, cells in (("ours", our_cells), (PEER, peer_cells)):
            name = f"{side}, {clients} clients"
            if name in parts:
                continue
            began = time.perf_counter()
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                parts[name] = pool.submit(cells, clients, options.lengths).result()
            print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
            options.out.parent.mkdir(exist_ok=True)
            options.out.write_text(json.dumps({**head, "parts": parts}, indent=1) + "\n")
    return {**head, "parts": parts}


def table(cells: list[Cell]) -> Iterator[str]:
    """Markdown; ratios say how many times less than the peer's ours is."""
    yield "CPU in ms; client figures per client; (x) = the peer's figure over ours"
    yield ""
    yield (
        "| n | d | dropped | side | keys + shares | mask | server unmask | server total | kB up "
        "| client peak MB | server peak MB | max error | exact |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    for cell in cells:
        peer = peer_of(cells, cell)

        def ratio(value: Callable[[Cell], float], scale: float, cell: Cell = cell, peer: Cell = peer) -> str:
            own = f"{value(cell) * scale:,.4g}"
            return own if cell is peer else f"{own} ({value(peer) / value(cell):.3g}x)"

        server_peak = cell["server_peak_bytes"]
        columns = [
            str(cell["clients"]),
            f"{cell['length']:,}",
            str(cell["dropped"]),
            cell["side"],
            ratio(_keys_and_shares, 1e3),
            ratio(lambda c: c["client_mask_seconds"], 1e3),
            ratio(lambda c: c["server_unmask_seconds"], 1e3),
            ratio(lambda c: sum(c["server_seconds"].values()), 1e3),
            ratio(lambda c: c["bytes_up_total"], 1e-3),
            f"{cell['client_peak_bytes'] / 1e6:.1f}",
            "-" if server_peak is None else f"{server_peak / 1e6:.0f}",
            f"{cell['max_error']:.2g}",
            "yes" if cell.get("exact") else "-",
        ]
        yield f"| {' | '.join(columns)} |"


def _keys_and_shares(cell: Cell) -> float:
    """A client's stages but masking."""
    return sum(cell["client_seconds"].values()) - cell["client_mask_seconds"]


def peer_of(cells: list[Cell], cell: Cell) -> Cell:
    """The peer's cell of the same case."""
    case = ("clients", "length", "dropped")
    return next(c for c in cells if c["side"] == PEER and all(c[name] == cell[name] for name in case))


def targets(cells: list[Cell]) -> Iterator[str]:
    """One line per target and variant of ours."""
    found = [c for c in cells if (c["clients"], c["length"]) == TARGET_CELL and c["side"] != PEER]
    if not found:
        yield "The targets are about 100 clients and 100,000 values, which were not measured."
    for cell in found:
        peer = peer_of(cells, cell)
        unmask = peer["server_unmask_seconds"] / cell["server_unmask_seconds"]
        mask = peer["client_mask_seconds"] / cell["client_mask_seconds"]
        size = cell["bytes_up_total"] / peer["bytes_up_total"]
        least = 30 if cell["dropped"] else 100
        most = 0.55 if cell["side"].endswith("32 bits") else 0.4
        name = f"{cell['side']}, {cell['dropped']} dropped"
        yield _verdict(f"{name}: server unmask {unmask:.0f}x less CPU, target {least}x", unmask >= least)
        yield _verdict(f"{name}: upload {size:.3f}x the bytes, target {most}x", size <= most)
        yield _verdict(f"{name}: client masking {mask:.1f}x less CPU, target 1x", mask >= 1)
        yield _verdict(f"{name}: sums exact", cell["exact"])


def _verdict(text: str, met: bool) -> str:  # noqa: FBT001
    return f"- {'met' if met else 'MISSED'}: {text}"


def main() -> None:
    """Measure, save, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 30, 100])
    parser.add_argument("--lengths", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--quick", action="store_true", help="10 clients, 100,000 values; saved elsewhere")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "secagg_peer.json")
    options = parser.parse_args()
    try:
        found = version(PEER)
    except PackageNotFoundError:
        found = "none"
    if not found.startswith(PEER_SERIES):
        sys.exit(f"{PEER} {PEER_SERIES}x is needed, found {found}: pip install -e '.[flower]'")
    if options.quick:
        options.clients, options.lengths = [10], [100_000]
        options.out = options.out.with_stem(options.out.stem + "_quick")
    results = measure(options)
    cells = [cell for part in results["parts"].values() for cell in part]
    lines = [
        f"{PEER} {found} SecAgg+ and protocols, {results['machine']}",
        "",
        *table(sorted(cells, key=lambda c: (c["clients"], c["length"], c["dropped"], c["side"] != PEER))),
        "",
        *targets(cells),
    ]
    options.out.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
