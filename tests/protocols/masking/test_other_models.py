"""Clients that were sent different models agree on no sum."""

from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest

from protocols.interface import SegmentInput, SumResult
from protocols.masking import client as steps
from protocols.masking.secure_sum import Masking, MaskingClient
from protocols.masking.server import opening
from protocols.profiles import ONE_ANSWER, SEMI_HONEST, MaskingProfile
from protocols.ring import RingVector, to_ring
from protocols.run import run_session
from tests.protocols.masking.hostile import (
    MASK,
    MODEL,
    OTHER_MODEL,
    HostileServer,
    authority,
    make_session,
    names,
    segment,
    stream,
    subsets,
)
from tests.protocols.masking.hostile_scenes import SIGNED, VICTIM, profile_name

NOISE_WORDS: Final = 20_000

# 255 degrees of freedom: mean 255, standard deviation 22.6. Uniform bytes exceed this once in more than 10^9 draws.
UNIFORM_BELOW: Final = 400.0


# Another model for one client.


def chi_squares(vector: RingVector) -> list[float]:
    """How far each of the four bytes of the words is from uniform."""
    lanes = vector.astype("<u4").view(np.uint8).reshape(-1, 4).T
    expected = len(vector) / 256
    return [float(((np.bincount(lane, minlength=256) - expected) ** 2 / expected).sum()) for lane in lanes]


def with_another_model(server: HostileServer, *odd: int) -> None:
    """These clients compute from another model: their inputs are bound to its digest."""
    for position in odd:
        for index, given in server.inputs[position].items():
            server.inputs[position][index] = replace(given, binding=OTHER_MODEL)


def wide_scene(profile: MaskingProfile, **terms: Any) -> HostileServer:
    """Four honest clients with one long segment."""
    part = segment(0, names(4), 2, NOISE_WORDS)
    return HostileServer(make_session(4, part, **{"threshold": 3, **terms}), profile)


@pytest.mark.parametrize("profile", [SEMI_HONEST, *SIGNED], ids=profile_name)
def test_with_one_model_the_sum_is_far_from_noise(profile: MaskingProfile) -> None:
    """The control of the next tests: where the masks cancel the chi-square test sees it."""
    server = wide_scene(profile)

    assert server.finish() == server.plain()
    total = server.unmask([1, 2, 3, 4], 0)
    assert total is not None
    assert max(chi_squares(total)) > 100 * UNIFORM_BELOW


@pytest.mark.parametrize("odd", [(1,), (4,), (1, 2), (1, 2, 3)], ids=str)
@pytest.mark.parametrize("profile", [SEMI_HONEST, *SIGNED], ids=profile_name)
def test_with_another_model_for_some_the_sum_is_noise(profile: MaskingProfile, odd: tuple[int, ...]) -> None:
    """The server that knows both models takes every self mask off under the right one, and still reads noise."""
    server = wide_scene(profile)
    with_another_model(server, *odd)

    server.finish()

    for chosen in filter(None, subsets([1, 2, 3, 4])):
        total = server.unmask(chosen, 0, blind=True)
        assert total is not None
        if chosen == {1, 2, 3, 4}:
            assert server.open_over(chosen, 0) is not None  # no mask that it would have to remove is missing
        assert max(chi_squares(total)) < UNIFORM_BELOW


def test_a_victim_with_another_model_is_dropped_for_the_others_sum() -> None:
    """Its mask key is recovered under the others' model alone: they get their sum, and its own upload stays noise."""
    server = wide_scene(ONE_ANSWER).play_before(MASK)
    with_another_model(server, VICTIM)
    server.step()
    server.present -= {VICTIM}

    assert server.finish() == server.plain()

    upload = server.unmask([VICTIM], 0, blind=True)
    assert upload is not None
    assert server.open_over([VICTIM], 0) is None
    assert max(chi_squares(upload)) < UNIFORM_BELOW


def outcome(profile: MaskingProfile, inputs: dict[str, dict[int, SegmentInput]]) -> SumResult:
    """What the package's own server makes of these inputs."""
    session = make_session(4, segment(0, names(4), 2, NOISE_WORDS), threshold=3)
    trust = None if profile is SEMI_HONEST else authority().view

    class Signing(Masking):
        """Gives every client its own identity."""

        def client(self, session: Any, me: str, *, extra_secrets: Any = None) -> MaskingClient:
            identity = None if trust is None else authority().identity(me)
            return MaskingClient(self.terms(session), me, identity, stream(me))

    return run_session(Signing(profile, trust=trust), session, inputs, bindings={0: MODEL})


def by_name(server: HostileServer) -> dict[str, dict[int, SegmentInput]]:
    """The inputs by client id."""
    return {server.session.client_at(position): given for position, given in server.inputs.items()}


@pytest.mark.parametrize("profile", [SEMI_HONEST, *SIGNED], ids=profile_name)
def test_the_bound_digest_alone_turns_the_sum_into_noise(
    monkeypatch: pytest.MonkeyPatch, profile: MaskingProfile
) -> None:
    """With the check of the sum's range switched off, a sum over two models is published, and is nothing but noise."""
    monkeypatch.setattr(opening, "reason_to_reject", lambda *_args, **_more: "")
    server = wide_scene(profile)
    with_another_model(server, VICTIM)

    result = outcome(profile, by_name(server))

    assert not result.refused
    assert max(chi_squares(to_ring(result.sums[0]))) < UNIFORM_BELOW


@pytest.mark.parametrize("profile", [SEMI_HONEST, *SIGNED], ids=profile_name)
def test_the_range_of_the_sum_alone_closes_the_segment(
    monkeypatch: pytest.MonkeyPatch, profile: MaskingProfile
) -> None:
    """With one model, so that all masks cancel, a sum beyond what its survivors can add up to is still refused."""
    server = wide_scene(profile)
    monkeypatch.setattr(steps, "check_inputs", lambda *_args: None)  # a client that keeps to no bound
    inputs = by_name(server)
    beyond = inputs["client-01"][0].values.copy()
    beyond[7] = 2**30
    inputs["client-01"] = {0: SegmentInput(values=beyond, binding=MODEL)}

    result = outcome(profile, inputs)
    monkeypatch.setattr(opening, "reason_to_reject", lambda *_args, **_more: "")
    without = outcome(profile, inputs)

    assert not result.sums
    assert "another model or did not follow the protocol" in result.refused[0]
    assert without.sums[0].tolist() == [
        sum(column) for column in zip(*(given[0].values.tolist() for given in inputs.values()), strict=True)
    ]
