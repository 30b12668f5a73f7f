"""Noise that a plan accepts can be drawn: at every clip norm, in every band, by the server and by clients.

And what is drawn is sent, however far out: a client that refused would tell by it how large its update is.
"""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.interface import SegmentInput
from protocols.primitives.prg import UniformStream
from rbla_secure.errors import PlanError
from rbla_secure.federation.client import participant
from rbla_secure.privacy.discrete_gaussian import discrete_gaussian
from rbla_secure.privacy.noise import TAIL
from rbla_secure.privacy.noise import mechanism as noise_mechanism
from tests.support.federations import LARGE, InMemory, make_adapter, make_participants, make_plan, play_round
from tests.support.properties import PROPERTY

OUT_OF_RANGE: dict[str, dict[str, Any]] = {
    "central": {"privacy": {"mechanism": "central"}, "noise_multiplier": 5000.0},
    "central, add-or-remove": {
        "privacy": {"mechanism": "central", "adjacency": "add-or-remove"},
        "noise_multiplier": 2e5,
    },
    "central, by rows in turns": {
        "privacy": {"mechanism": "central"},
        "noise_multiplier": 2e5,
        "training": {"rows": "in-turns"},
    },
    "central, at the largest norm of adaptive clipping": {
        "privacy": {"mechanism": "central", "clipping": "adaptive", "max_clip": 64.0, "count_noise": 1e4},
        "noise_multiplier": 2000.0,
    },
}


@pytest.mark.parametrize("changes", OUT_OF_RANGE.values(), ids=list(OUT_OF_RANGE))
def test_a_plan_whose_noise_cannot_be_drawn_is_refused(changes: dict[str, Any]) -> None:
    """By the plan, naming what to change; accepted, it died after sums were open. The control is a coarser grid."""
    with pytest.raises(
        PlanError, match=r"noise of .* integer units .* the most that is drawn: lower quantization\.bits"
    ):
        make_plan(**changes)

    assert make_plan(**changes, quantization={"bits": 8, "bound": 0.1}).mechanism is not None


@PROPERTY
@given(
    mechanism=st.sampled_from(("central", "distributed")),
    clipping=st.sampled_from(("flat", "adaptive")),
    multiplier=st.floats(1e-3, 1e6),
    clip_norm=st.floats(1e-4, 1e6),
    bits=st.integers(2, 32),
)
def test_whatever_noise_a_plan_accepts_can_be_drawn(
    mechanism: str, clipping: str, multiplier: float, clip_norm: float, bits: int
) -> None:
    """At the norms of every round, in every band: no draw is refused once clients have answered."""
    privacy = {
        "mechanism": mechanism,
        "clipping": clipping,
        "count_noise": 1e6 if clipping == "adaptive" else 0.0,
    }
    try:
        plan = make_plan(
            noise_multiplier=multiplier,
            clip_norm=clip_norm,
            privacy=privacy,
            quantization={"bits": bits, "bound": 0.1},
        )
    except PlanError:
        return

    assert plan.mechanism is not None
    for norm in {plan.clip_norms[0], plan.first_clip_norm, plan.clip_norms[-1]}:
        at_norm = replace(plan.mechanism, clip_norm=norm)
        for band in range(len(plan.bands)):
            for std in at_norm.component_stds(band):
                assert len(discrete_gaussian(std, 1, UniformStream(bytes(16)))) == 1


def far_out(patch: pytest.MonkeyPatch, *, client: str) -> None:
    """One client's noise begins with a number that is twice as far out as its upload has room for."""
    inputs, drawn = participant.Participant._inputs, noise_mechanism.discrete_gaussian
    drawing: list[str] = []

    def of_client(self: Any, *arguments: Any) -> Any:
        drawing[:] = [self._name]
        return inputs(self, *arguments)

    def planted(sigma: float, count: int, stream: UniformStream) -> Any:
        values = drawn(sigma, count, stream)
        if drawing == [client]:
            values[0] = round(2 * TAIL * sigma) + 2**31
        return values

    patch.setattr(participant.Participant, "_inputs", of_client)
    patch.setattr(noise_mechanism, "discrete_gaussian", planted)


@pytest.mark.parametrize("mode", ["plain", "masking"])
def test_a_share_of_noise_that_leaves_the_bound_is_sent(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All survive, and the sum is what the ring makes of it. The control: with values that do not wrap, the client refuses."""
    plan = make_plan(secure_sum=mode, noise_multiplier=2.0, privacy={"colluders": 0})
    far_out(monkeypatch, client=LARGE[0])

    ours = play_round(plan, make_adapter(plan), InMemory(make_participants(plan)))

    assert (ours.refusals, ours.dropped) == ({}, {})
    assert LARGE[0] in ours.survivors
    monkeypatch.setattr(
        participant,
        "SegmentInput",
        lambda *, values, binding, **_: SegmentInput(values=values, binding=binding, wraps=False),
    )
    fault = play_round(plan, make_adapter(plan), InMemory(make_participants(plan)))
    assert "a value leaves" in fault.refusals[LARGE[0]]
    assert LARGE[0] not in fault.survivors
