"""Every way in which up to six clients can fall silent, under every profile: exact sums, or the end by name.

A client stays, or is silent from one of the stages on: (stages + 1)^n assignments. Two that agree up to some stage are
one and the same run up to there, so the runs are played as a tree whose nodes are who answered; the leaves are counted
with the assignments that they stand for, and no assignment is left out.
"""

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import combinations, count
from typing import Any, Final

import numpy as np
import pytest

from protocols.errors import BelowThresholdError, StageError
from protocols.interface import SegmentInput
from protocols.masking.secure_sum import Masking, MaskingClient, MaskingServer
from protocols.masking.server.opening import MaskedSums
from protocols.masking.server.stage import Stage
from protocols.profiles import CONSISTENCY, ONE_ANSWER, SEMI_HONEST, MaskingProfile
from protocols.session import ClientId, Segment, Session
from tests.protocols.masking.hostile import MASK, MODEL, authority, make_session, names

# By number of clients: the threshold, from the papers' rules: t > n/2, 2t > n + c with c = 0 below ten, 3t > 2n.
THRESHOLDS: Final[dict[str, dict[int, int]]] = {
    "semi-honest": {2: 2, 3: 2, 4: 3, 5: 3, 6: 4},
    "one-answer": {2: 2, 3: 2, 4: 3, 5: 3, 6: 4},
    "consistency": {2: 2, 3: 3, 4: 3, 5: 4, 6: 5},
}
BINDINGS: Final = {0: MODEL, 1: MODEL, 2: MODEL, 3: MODEL}


def make_terms(members: int, threshold: int) -> Session:
    """A segment of everyone's, one that the first lacks, one that two hold and all upload, one of the last three."""
    everyone = names(members)
    return make_session(
        members,
        Segment(index=0, length=2, members=everyone, quorum=2),
        Segment(index=1, length=1, members=everyone[1:], quorum=min(2, members - 1)),
        Segment(index=2, length=1, members=everyone, holders=everyone[:2], quorum=2),
        Segment(index=3, length=1, members=everyone[-3:], quorum=1),
        threshold=threshold,
    )


def make_inputs(session: Session) -> dict[ClientId, dict[int, SegmentInput]]:
    """Powers of three, so that every sum tells who is in it; padding is zero."""
    return {
        member: {
            part.index: SegmentInput(
                values=np.full(part.length, 3**place if member in part.holders else 0, dtype=np.int64),
                binding=MODEL,
            )
            for part in session.segments_of(member)
        }
        for place, member in enumerate(session.members)
    }


def least_holders(profile: MaskingProfile, session: Session, part: Segment) -> int:
    """How many of its holders must survive: its quorum, or under one-answer the least number above the proof's bound."""
    if profile is not ONE_ANSWER:
        return part.quorum
    n, t, m, below, colluders = len(session.members), session.threshold, len(part.holders), part.quorum - 1, 0
    bound = below + Fraction((m - below) * (n - t), n - colluders)
    return next(number for number in count() if number > bound)


@dataclass(slots=True)
class Tree:
    """All runs of one session; `leaves` counts assignments by how they end."""

    profile: MaskingProfile
    session: Session
    inputs: dict[ClientId, dict[int, SegmentInput]]
    stages: tuple[str, ...]
    leaves: Counter[str] = field(default_factory=Counter)

    def grow(
        self,
        depth: int,
        server: MaskingServer,
        clients: Mapping[ClientId, MaskingClient],
        uploaded: Any = None,
    ) -> None:
        """Everything that can happen from this stage on."""
        if depth == len(self.stages):
            self.check_end(server, uploaded)
            return
        stage = self.stages[depth]
        after = {member: copy.copy(client) for member, client in clients.items()}
        requests = server.requests()
        assert set(requests) == set(clients)
        replies = {
            member: client.contribute(requests[member], self.inputs[member])
            if stage == MASK
            else client.reply(requests[member])
            for member, client in after.items()
        }
        for answered, closing in self.servers_after(server, replies).items():
            if len(answered) < self.session.threshold:
                with pytest.raises(BelowThresholdError, match=stage):
                    closing.close_stage()
                with pytest.raises(StageError):
                    closing.result(BINDINGS)
                # Those who answered may stay or fall silent later: it makes no difference any more.
                self.leaves[stage] += (len(self.stages) - depth) ** len(answered)
            else:
                closing.close_stage()
                remaining = {member: after[member] for member in answered}
                self.grow(depth + 1, closing, remaining, answered if stage == MASK else uploaded)

    def servers_after(
        self, server: MaskingServer, replies: Mapping[ClientId, bytes]
    ) -> dict[tuple[ClientId, ...], MaskingServer]:
        """By every set of clients that can have answered: a server that has got their answers."""
        found = {(): fork(server)}
        for size in range(1, len(replies) + 1):
            for answered in combinations(sorted(replies), size):
                found[answered] = fork(found[answered[:-1]])
                found[answered].receive(answered[-1], replies[answered[-1]])
        return found

    def check_end(self, server: MaskingServer, uploaded: tuple[ClientId, ...]) -> None:
        """The sums over those who uploaded, of the segments that enough of their holders have uploaded."""
        result = server.result(BINDINGS)
        place = {member: at for at, member in enumerate(self.session.members)}
        opened = {}
        for part in self.session.segments:
            present = [member for member in uploaded if member in part.holders]
            if len(present) >= least_holders(self.profile, self.session, part):
                opened[part.index] = [sum(3 ** place[member] for member in present)] * part.length

        assert result.survivors == uploaded
        assert {index: values.tolist() for index, values in result.sums.items()} == opened
        assert set(result.refused) == {0, 1, 2, 3} - set(opened)
        self.leaves["summed"] += 1
        self.leaves["with a segment refused"] += len(opened) < len(self.session.segments)
        self.leaves["refused with its quorum met"] += any(
            len(set(uploaded) & set(part.holders)) >= part.quorum and part.index not in opened
            for part in self.session.segments
        )


def fork(server: MaskingServer) -> MaskingServer:
    """The server once more, so that both can go on."""
    twin = copy.copy(server)
    twin._stage = None if server._stage is None else fork_stage(server._stage)
    twin._last = None if server._last is None else fork_stage(server._last)
    return twin


def fork_stage(stage: Any) -> Any:
    """A stage with its own sets, mappings and sums."""
    twin = copy.copy(stage)
    for name, value in vars(stage).items():
        if isinstance(value, Stage):
            setattr(twin, name, fork_stage(value))
        elif isinstance(value, MaskedSums):
            setattr(twin, name, replace(value, sums=[summed.copy() for summed in value.sums]))
        elif name == "_sums":
            setattr(twin, name, {key: summed.copy() for key, summed in value.items()})
        elif isinstance(value, (dict, set)):
            setattr(twin, name, value.copy())
    return twin


@pytest.mark.parametrize("members", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("profile", [SEMI_HONEST, ONE_ANSWER, CONSISTENCY], ids=lambda profile: profile.name)
def test_every_pattern_of_drop_outs(profile: MaskingProfile, members: int) -> None:
    """All assignments, exhaustively: each ends in exactly the survivors' sums or by name at the foretold stage."""
    session = make_terms(members, THRESHOLDS[profile.name][members])
    trust = None if profile is SEMI_HONEST else authority().view
    clients = {
        member: Masking(
            profile, trust=trust, identity=None if trust is None else authority().identity(member)
        ).client(session, member)
        for member in session.members
    }
    stages = Masking(profile).stages
    tree = Tree(profile=profile, session=session, inputs=make_inputs(session), stages=stages)

    tree.grow(0, Masking(profile, trust=trust).server(session), clients)

    assert sum(tree.leaves[end] for end in (*stages, "summed")) == (len(stages) + 1) ** members
    assert min(tree.leaves[stage] for stage in stages) > 0
    assert (tree.leaves["with a segment refused"] > 0) == (session.threshold < members)
    assert (tree.leaves["refused with its quorum met"] > 0) == (profile is ONE_ANSWER and members > 4)


@pytest.mark.parametrize("members", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("profile", [SEMI_HONEST, ONE_ANSWER, CONSISTENCY], ids=lambda profile: profile.name)
def test_the_thresholds_are_the_least_of_the_profiles(profile: MaskingProfile, members: int) -> None:
    """The table above is what the profiles ask for, so that as many clients as possible are lost."""
    assert profile.threshold(members) == THRESHOLDS[profile.name][members]
