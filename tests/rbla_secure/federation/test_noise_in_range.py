"""Noise that a plan accepts can be drawn: at every clip norm, in every band, by the server and by clients."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.primitives.prg import UniformStream
from rbla_secure.errors import PlanError
from rbla_secure.privacy.discrete_gaussian import discrete_gaussian
from tests.support.federations import make_plan
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
