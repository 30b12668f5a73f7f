"""All parties of one masking session, played and timed one at a time: what the benchmarks of masking share.

Clients go through the pure steps and keep no copy of what they sent, uploads reach the server one by one, so memory
is what a real server and one client at work would use, plus the small state of everybody else.
"""

import gc
import os
import platform
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from protocols.identity.trust import Identity, ThrowawayAuthority
from protocols.interface import SegmentInput, SumResult
from protocols.masking import client as steps
from protocols.masking.messages import KeyDirectory, ShareDelivery, SurvivorList
from protocols.masking.secure_sum import MaskingServer
from protocols.masking.server.keys import AdvertiseKeys, ShareKeys
from protocols.masking.server.masked_input import MaskInput
from protocols.masking.server.reveal import RevealShares
from protocols.masking.terms import MaskingTerms
from protocols.profiles import MaskingProfile
from protocols.ring import IntegerVector
from protocols.session import Segment, Session

Floats = npt.NDArray[np.float32]

BINDING = bytes(32)
NOW = 1_800_000_000
STAGES = (AdvertiseKeys.name, ShareKeys.name, MaskInput.name, RevealShares.name)


@dataclass
class Seconds:
    """Seconds by name, of the process's processors (all threads) and of the clock on the wall."""

    cpu: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    wall: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Add what the block takes."""
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.cpu[name] += time.process_time() - cpu
        self.wall[name] += time.perf_counter() - wall


@dataclass(kw_only=True)
class Played:
    """What a session gave and cost. Client seconds are sums over the clients."""

    result: SumResult
    exact: bool
    uploads: int
    clients: Seconds
    server: Seconds
    bytes_up: Mapping[str, int]  # of the first client, by stage
    client_peak_bytes: int  # of the first client's upload, if traced


@dataclass(kw_only=True)
class Cohort:
    """The terms of a session, and who signs."""

    terms: MaskingTerms
    identities: Mapping[str, Identity]

    @classmethod
    def of(
        cls,
        members: int,
        length: int,
        profile: MaskingProfile,
        *,
        input_bound: int,
        ring_bits: int = 32,
        authority: ThrowawayAuthority | None = None,
    ) -> "Cohort":
        """One segment for all; signed if there is an authority."""
        names = member_names(members)
        session = Session(
            run=bytes(16),
            round=1,
            attempt=1,
            members=names,
            threshold=profile.threshold(members),
            input_bound=input_bound,
            segments=(Segment(index=0, length=length, members=names, quorum=3),),
            config_digest=bytes(32),
            ring_bits=ring_bits,
        )
        trust = authority.trust(NOW) if authority is not None else None
        identities = authority.identities if authority is not None else {}
        return cls(terms=MaskingTerms(session=session, profile=profile, trust=trust), identities=identities)


def member_names(members: int) -> tuple[str, ...]:
    """So many client ids in increasing order."""
    return tuple(f"client-{number:04d}" for number in range(1, members + 1))


def authority_for(members: int) -> ThrowawayAuthority:
    """Identities for everybody."""
    return ThrowawayAuthority.create(dict.fromkeys(member_names(members), 8), now=NOW)


def play(
    cohort: Cohort,
    values: Callable[[int], Floats | IntegerVector],
    *,
    dropped: frozenset[int] = frozenset(),
    quantise: Callable[[Floats], IntegerVector] | None = None,
    before_result: Callable[[MaskingServer], None] = lambda _server: None,
    trace: bool = False,
) -> Played:
    """One session.

    Args:
        cohort: Its terms.
        values: A position's input; not timed.
        dropped: The positions that fall silent after share_keys, before they upload.
        quantise: Applied to the values and timed as the client's stage "quantise"; without it, values are integers.
        before_result: Called with the server after reveal_shares has closed; not timed.
        trace: Whether the first upload is made once more, not timed, to see what memory it takes.
    """
    terms, clients, seconds = cohort.terms, Seconds(), Seconds()
    session = terms.session
    server = MaskingServer(terms)
    states: dict[int, object] = {}
    bytes_up: dict[str, int] = {}
    expected = np.zeros(session.segments[0].length, dtype=np.int64)
    uploads = peak = 0
    for stage in STAGES:
        with seconds.on(stage):
            requests = server.requests()
        for name, request in requests.items():
            position = session.position(name)
            if position in dropped and stage == MaskInput.name:
                continue
            given = None
            if stage == MaskInput.name:
                given = values(position)
                if trace and not uploads:
                    state, spare = states[position], partial(quantise or np.asarray, given)
                    peak = traced_peak(partial(_spare_upload, cohort, state, name, request, spare))
                if quantise is not None:
                    with clients.on("quantise"):
                        given = quantise(given)
                expected += given
                uploads += 1
            with clients.on(stage):
                states[position], reply = _answer(cohort, states.get(position), name, request, given)
            bytes_up.setdefault(stage, len(reply))
            with seconds.on(stage):
                server.receive(name, reply)
        with seconds.on(stage):
            server.close_stage()
    before_result(server)
    with seconds.on(RevealShares.name):
        result = server.result({0: BINDING})
    return Played(
        result=result,
        exact=0 in result.sums and np.array_equal(result.sums[0], expected),
        uploads=uploads,
        clients=clients,
        server=seconds,
        bytes_up=bytes_up,
        client_peak_bytes=peak,
    )


def _answer(
    cohort: Cohort, state: object, name: str, request: bytes, given: IntegerVector | None
) -> tuple[object, bytes]:
    """One client's step, from bytes to bytes."""
    identity = cohort.identities.get(name)
    match state:
        case None:
            common = cohort.terms
            terms = MaskingTerms(session=common.session, profile=common.profile, trust=common.trust)
            step = steps.create_key_advertisement(terms, name, identity)
        case steps.Advertised():
            step = steps.create_sealed_shares(state, KeyDirectory.from_bytes(request))
        case steps.Shared():
            assert given is not None
            inputs = {0: SegmentInput(values=given, binding=BINDING)}
            step = steps.create_masked_input(state, ShareDelivery.from_bytes(request), inputs, identity)
        case steps.Masked():
            step = steps.create_revealed_shares(state, SurvivorList.from_bytes(request))
        case _:
            raise TypeError(f"{name}: no step follows {type(state).__name__}")
    return step.state, step.message.to_bytes()


def _spare_upload(
    cohort: Cohort, state: object, name: str, request: bytes, given: Callable[[], IntegerVector]
) -> None:
    """The same upload once more: steps change no state."""
    _answer(cohort, state, name, request, given())


def traced_peak(work: Callable[[], object]) -> int:
    """Bytes that Python and NumPy allocate at most while this runs."""
    tracemalloc.start()
    work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def values_of(position: int, length: int) -> Floats:
    """A client's update, the same for both sides."""
    return np.random.default_rng(position).normal(0, 0.1, size=length).astype(np.float32)


def dropped_of(clients: int, share: float) -> frozenset[int]:
    """Positions, spread over the cohort; the first client stays, as bytes and memory are counted at it."""
    count = max(1, round(share * clients)) if share else 0
    return frozenset((2 * place + 1) * clients // (2 * count) for place in range(count))


def plain_mean(clients: int, length: int, dropped: frozenset[int]) -> npt.NDArray[np.float64]:
    """What both sides approximate."""
    survivors = [position for position in range(1, clients + 1) if position not in dropped]
    total = np.zeros(length)
    for position in survivors:
        total += values_of(position, length)
    return total / len(survivors)


def _memory(name: str) -> int:
    """A size from /proc/self/status, in bytes; 0 where there is none."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":")), 0)


def restart_peak() -> int:
    """Forget how much memory was resident at most; how much is now."""
    gc.collect()
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def peak_since(before: int) -> int:
    """By how much the resident memory has at most grown since :func:`restart_peak`, which has given `before`."""
    return _memory("VmHWM") - before


def machine(*packages: str) -> dict[str, str]:
    """What the figures were measured on and with."""
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return {
        "processor": models[0].partition(": ")[2] if models else platform.processor(),
        "cores": str(os.cpu_count()),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("numpy", "cryptography", *packages)},
    }
