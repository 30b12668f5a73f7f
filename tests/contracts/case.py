"""One implementation of a secure sum under the contract: its hooks, and how its sessions are played."""

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from protocols.errors import (
    ProtocolError,
    StageError,
    WireError,
)
from protocols.interface import SecureSum, SegmentInput, SumResult
from protocols.session import Segment, Session
from tests.contracts.sessions import (
    MODEL,
    OTHER_MODEL,
    Inputs,
    Play,
    make_session,
    names,
    narrowed,
    own_quorum,
    same_bindings,
)

HEADER_BITS = 32  # magic, version, type
FIRST, SECOND, THIRD, LAST = names(4)


def good_input(length: int = 5) -> SegmentInput:
    """A summand that fits the session of `make_session`."""
    return SegmentInput(values=np.arange(length, dtype=np.int64), binding=MODEL)


def replaced(values: object, binding: object = MODEL) -> dict[int, SegmentInput]:
    """The inputs of one segment with something wrong in them."""
    return {0: SegmentInput(values=values, binding=binding)}  # type: ignore[arg-type]


BAD_INPUTS: dict[str, dict[int, SegmentInput]] = {
    "no segment": {},
    "a foreign segment": {1: good_input()},
    "one segment too many": {0: good_input(), 1: good_input()},
    "int32": replaced(np.zeros(5, dtype=np.int32)),
    "uint64": replaced(np.zeros(5, dtype=np.uint64)),
    "float": replaced(np.zeros(5)),
    "bool": replaced(np.zeros(5, dtype=bool)),
    "too short": replaced(np.zeros(4, dtype=np.int64)),
    "too long": replaced(np.zeros(6, dtype=np.int64)),
    "a scalar that would broadcast": replaced(np.zeros((), dtype=np.int64)),
    "one value that would broadcast": replaced(np.zeros(1, dtype=np.int64)),
    "a matrix": replaced(np.zeros((1, 5), dtype=np.int64)),
    "one above the bound": replaced(np.array([0, 0, 0, 0, 1001])),
    "one below the bound": replaced(np.array([0, 0, 0, 0, -1001])),
    "the smallest int64": replaced(np.array([0, 0, 0, 0, -(2**63)])),
    "a multiple of the ring": replaced(np.array([0, 0, 0, 0, 2**32])),
    "no binding": replaced(np.zeros(5, dtype=np.int64), None),
    "an empty binding": replaced(np.zeros(5, dtype=np.int64), b""),
    "a short binding": replaced(np.zeros(5, dtype=np.int64), MODEL[:-1]),
    "a long binding": replaced(np.zeros(5, dtype=np.int64), MODEL + b"\x00"),
}


class SecureSumCase(ABC):
    """What the conformance tests of one implementation ask of it, and how they play its sessions."""

    secure_sum: ClassVar[SecureSum]
    ring_bits: ClassVar[int] = 32
    refusal_of_a_foreign_first_request: ClassVar[type[ProtocolError]] = StageError
    # Of clients that were given another model: an implementation that binds all segments to one has no other.
    odd_bindings: ClassVar[dict[int, bytes]] = {0: OTHER_MODEL}

    @abstractmethod
    def check_mixed_bindings(
        self, session: Session, result: SumResult, sums_of_inputs: dict[int, list[int]]
    ) -> None:
        """Assert what the implementation does with segment 0 when its clients were bound to different models."""

    @abstractmethod
    def check_foreign_server_binding(
        self, session: Session, result: SumResult, sums_of_inputs: dict[int, list[int]]
    ) -> None:
        """Assert what it does with segment 0 when the server's binding is not that of the clients."""

    def check_other_segments(self, result: SumResult, sums_of_inputs: dict[int, list[int]]) -> None:
        """Assert what it does with segment 1 in either case, where segments are bound one by one."""
        assert result.sums[1].tolist() == sums_of_inputs[1]

    def least_threshold(self, count: int) -> int:
        """The smallest threshold that the implementation takes among so many members."""
        return count // 2 + 1

    def quorum(self, session: Session, part: Segment) -> int:
        """The surviving holders below which a segment stays closed."""
        return own_quorum(session, part)

    def refusal_of_a_cut(self, stage: str, missing: int) -> type[ProtocolError]:
        """The error for a reply that lacks so many bytes at its end."""
        return WireError

    def fitted(self, session: Session) -> Session:
        """The session in the ring under test and with a threshold that the implementation takes."""
        least = self.least_threshold(len(session.members))
        return narrowed(replace(session, threshold=max(session.threshold, least)), self.ring_bits)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a test that takes a `stage` once for each stage of the implementation."""
        if "stage" in metafunc.fixturenames:
            metafunc.parametrize("stage", self.secure_sum.stages)

    def started(self, session: Session | None = None, inputs: Inputs | None = None) -> Play:
        """A session of four clients, or the given one, that has not begun."""
        return Play(self.secure_sum, self.fitted(session or make_session()), inputs)

    def finished(
        self, session: Session, inputs: Inputs, silent_from: dict[str, str] | None = None
    ) -> SumResult:
        """The result of a session in which some clients fall silent."""
        play = self.started(session, inputs)
        stages = self.secure_sum.stages
        for number, stage in enumerate(stages):
            play.play(stage, [m for m, last in (silent_from or {}).items() if stages.index(last) <= number])
        return play.server.result(same_bindings(play.session))
