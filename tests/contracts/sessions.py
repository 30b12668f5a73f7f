"""Sessions, inputs and their sums in Python integers: what tests of secure sums arrange with.

Nothing here uses ring arithmetic or a protocol: the expected sums and survivors are worked out independently.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from protocols.interface import SecureSum, SegmentInput, SumClient, SumServer
from protocols.session import ClientId, Segment, Session

RUN = bytes(range(16))
PLAN = hashlib.sha256(b"a plan").digest()
MODEL = hashlib.sha256(b"a model").digest()
OTHER_MODEL = hashlib.sha256(b"another model").digest()
LARGEST_SUM = 2**30 - 1

# No deadline, as no test is timed, and no database on disk. One method is run by the subclasses of a contract.
PROPERTY = settings(
    deadline=None,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
)

Inputs = dict[ClientId, dict[int, SegmentInput]]


def names(count: int) -> tuple[ClientId, ...]:
    """So many client ids in increasing order."""
    width = max(2, len(str(count)))
    return tuple(f"client-{number:0{width}d}" for number in range(1, count + 1))


def segment(index: int, length: int, members: Iterable[ClientId], quorum: int = 1, **more: Any) -> Segment:
    """A segment in fewer words."""
    return Segment(index=index, length=length, members=tuple(members), quorum=quorum, **more)


def make_session(count: int = 4, *segments: Segment, **terms: Any) -> Session:
    """A session of so many members; by default with one segment of five values for all of them."""
    members = names(count)
    defaults: dict[str, Any] = {
        "run": RUN,
        "round": 1,
        "attempt": 1,
        "members": members,
        "threshold": count // 2 + 1,
        "input_bound": 1000,
        "segments": segments or (segment(0, 5, members),),
        "config_digest": PLAN,
    }
    return Session(**{**defaults, **terms})


def make_inputs(session: Session, *, seed: int = 0, bindings: Mapping[int, bytes] | None = None) -> Inputs:
    """Every member's summands, spread over the whole range that the session allows."""
    generator = np.random.default_rng(seed)
    bound = session.input_bound
    return {
        member: {
            part.index: SegmentInput(
                values=generator.integers(-bound, bound, size=part.length, endpoint=True, dtype=np.int64),
                binding=(bindings or {}).get(part.index, MODEL),
            )
            for part in session.segments
            if member in part.members
        }
        for member in session.members
    }


def same_bindings(session: Session, binding: bytes = MODEL) -> dict[int, bytes]:
    """One binding for every segment."""
    return {part.index: binding for part in session.segments}


def plain_sum(inputs: Inputs, part: Segment, contributors: Iterable[ClientId]) -> list[int]:
    """The sum of a segment over some contributors, in Python integers."""
    columns = [
        inputs[member][part.index].values.tolist() for member in contributors if member in part.members
    ]
    return [sum(column) for column in zip(*columns, strict=True)] if columns else [0] * part.length


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a session must come to."""

    survivors: tuple[ClientId, ...]
    open_segments: tuple[int, ...]
    sums: dict[int, list[int]]


def own_quorum(session: Session, part: Segment) -> int:  # noqa: ARG001
    """The quorum that stands in the session."""
    return part.quorum


def foretell(
    session: Session,
    inputs: Inputs,
    *,
    stages: Sequence[str],
    input_stage: str,
    silent_from: Mapping[ClientId, str],
    quorum: Callable[[Session, Segment], int] = own_quorum,
) -> Outcome | None:
    """The outcome when clients fall silent at given stages; None when too few are left at one of them.

    A quorum counts the holders that survive, not the members that only pad.
    """
    last = {member: stages.index(silent_from[member]) for member in silent_from}
    for number in range(len(stages)):
        if sum(last.get(member, len(stages)) > number for member in session.members) < session.threshold:
            return None
    uploaded = stages.index(input_stage)
    survivors = tuple(m for m in session.members if last.get(m, len(stages)) > uploaded)
    opened = [p for p in session.segments if len(set(survivors) & set(p.holders)) >= quorum(session, p)]
    return Outcome(
        survivors=survivors,
        open_segments=tuple(part.index for part in opened),
        sums={part.index: plain_sum(inputs, part, survivors) for part in opened},
    )


@st.composite
def sessions(
    draw: st.DrawFn, *, max_members: int = 6, max_segments: int = 3, max_length: int = 12
) -> Session:
    """Sessions of every legal shape, small."""
    count = draw(st.integers(2, max_members))
    members = names(count)
    segments = []
    for index in range(draw(st.integers(1, max_segments))):
        chosen = sorted(draw(st.sets(st.sampled_from(members), min_size=1)))
        holders = draw(st.one_of(st.just(chosen), st.sets(st.sampled_from(chosen), min_size=1).map(sorted)))
        quorum = draw(st.integers(1, len(holders)))
        length = draw(st.integers(1, max_length))
        segments.append(segment(index, length, chosen, quorum, holders=tuple(holders)))
    return make_session(
        count,
        *segments,
        threshold=draw(st.integers(count // 2 + 1, count)),
        input_bound=draw(st.one_of(st.integers(1, LARGEST_SUM // count), st.just(LARGEST_SUM // count))),
        round=draw(st.integers(1, 2**32 - 1)),
        attempt=draw(st.integers(1, 2**32 - 1)),
    )


def largest_sum(bits: int) -> int:
    """The largest sum that the inputs of a session in a ring of so many bits may have: just below half of the ring is used."""
    return 2 ** (bits - 2) - 1


def narrowed(session: Session, bits: int) -> Session:
    """The same session in another ring, with a bound that fits it."""
    return replace(
        session,
        ring_bits=bits,
        input_bound=min(session.input_bound, largest_sum(bits) // len(session.members)),
    )


@st.composite
def silences(draw: st.DrawFn, session: Session, stages: Sequence[str]) -> dict[ClientId, str]:
    """Some members, each with the stage from which on it is silent; often few enough to finish."""
    most = draw(st.sampled_from([1, len(session.members) - session.threshold, len(session.members)]))
    gone = draw(st.sets(st.sampled_from(session.members), max_size=most))
    return {member: draw(st.sampled_from(list(stages))) for member in sorted(gone)}


class Play:
    """One session driven stage by stage, so that a test can put a spoke in at any point."""

    def __init__(self, secure_sum: SecureSum, session: Session, inputs: Inputs | None = None) -> None:
        self.secure_sum = secure_sum
        self.session = session
        self.inputs = make_inputs(session) if inputs is None else inputs
        self.clients: dict[ClientId, SumClient] = {m: secure_sum.client(session, m) for m in session.members}
        self.server: SumServer = secure_sum.server(session)

    def answer(self, stage: str, member: ClientId, request: bytes) -> bytes:
        """One client's honest answer."""
        if stage == self.secure_sum.input_stage:
            return self.clients[member].contribute(request, self.inputs[member])
        return self.clients[member].reply(request)

    def answers(self, stage: str, silent: Iterable[ClientId] = ()) -> dict[ClientId, bytes]:
        """The honest answers of everyone who is asked and not silent."""
        asked = {m: r for m, r in self.server.requests().items() if m not in set(silent)}
        return {member: self.answer(stage, member, request) for member, request in asked.items()}

    def deliver(self, replies: Mapping[ClientId, bytes]) -> None:
        """Hand replies to the server."""
        for member, reply in replies.items():
            self.server.receive(member, reply)

    def play(self, stage: str, silent: Iterable[ClientId] = ()) -> None:
        """A whole stage."""
        self.deliver(self.answers(stage, silent))
        self.server.close_stage()

    def play_before(self, stage: str) -> None:
        """All stages before this one."""
        for earlier in self.secure_sum.stages[: self.secure_sum.stages.index(stage)]:
            self.play(earlier)

    def play_after(self, stage: str, silent: Iterable[ClientId] = ()) -> None:
        """All stages after this one."""
        for later in self.secure_sum.stages[self.secure_sum.stages.index(stage) + 1 :]:
            self.play(later, silent)

    def sums(self) -> dict[int, list[int]]:
        """The opened sums as Python integers."""
        result = self.server.result(same_bindings(self.session))
        return {index: values.tolist() for index, values in result.sums.items()}

    def honest_sums(self) -> dict[int, list[int]]:
        """The sums over all members."""
        return {
            part.index: plain_sum(self.inputs, part, self.session.members) for part in self.session.segments
        }
