"""Attacks on whole rounds, and on what a participant sees: what was claimed before is refuted, what is claimed now is not.

The bounds are those of Gaussian differential privacy (`privacy/auditing.py`), each from one canary and its absence.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from protocols.primitives.prg import UniformStream
from protocols.session import ClientId
from rbla_secure.errors import PrivacyError
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.planning import noise as planned_noise
from rbla_secure.planning.noise import views
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.auditing import audit
from rbla_secure.privacy.ledger import Observer
from rbla_secure.privacy.noise import Release
from rbla_secure.privacy.noise.distributed import DistributedDiscreteGaussian
from tests.support.federations import (
    LARGE,
    SMALL,
    InMemory,
    make_adapter,
    make_participants,
    make_plan,
    play_round,
)
from tests.support.planted_promises import promise_instead

ROUNDS = 400
Scores = npt.NDArray[np.float64]


def watched_plan() -> Plan:
    """Add-or-remove at multiplier 2: a round is claimed to be 0.5-GDP. Thresholds and quorums would be 4 of 6, and 3."""
    return make_plan(
        noise_multiplier=2.0,
        privacy={"mechanism": "central", "adjacency": "add-or-remove"},
        quantization={"bits": 16, "bound": 1.0},
        min_holders=3,
    )


def claimed(plan: Plan) -> Release:
    assert plan.mechanism is not None
    return views(plan.promises, plan.mechanism, present={}, colluding=plan.promises.colluders)[
        Observer.PUBLIC
    ]


def scores(plan: Plan, silent: Iterable[ClientId], *, row: int) -> Scores:
    """How far rounds move along a direction in which everybody pushes one row with all that the clip leaves."""
    zero = make_adapter(plan)
    direction = np.zeros(zero.rows.shape)
    direction[row] = 1 / np.sqrt(plan.layout.row_length)
    people = dict.fromkeys(silent, "upload")

    def push(adapter: Adapter, _seed: int) -> Rows:
        return (adapter.rows + 5 * direction[: adapter.rank]).astype(np.float32)

    # One round again and again: the same requests have the same answers, and the server's noise is all that differs.
    exchange = InMemory(make_participants(plan, train=dict.fromkeys(plan.ranks, push)), silent_from=people)
    found = []
    for _ in range(ROUNDS):
        outcome = play_round(plan, zero, exchange)
        found.append(float(((outcome.adapter.rows - zero.rows) * direction).sum()))
    return np.array(found)


# The neighbour lacks one client: the thin band falls below its quorum, or the round below its threshold.
NEIGHBOURS: dict[str, tuple[set[ClientId], set[ClientId], int]] = {
    "quorum": (set(), {LARGE[0]}, 1),
    "threshold": ({SMALL[1], SMALL[2]}, set(SMALL), 0),
}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_one_client_that_is_not_there_shows_no_more_than_is_claimed(name: str) -> None:
    """At exactly the quorum and the threshold of other plans, with everybody else pushing the same way."""
    plan = watched_plan()
    present, absent, row = NEIGHBOURS[name]

    audit(scores(plan, present, row=row), scores(plan, absent, row=row)).check(claimed(plan))


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_bands_that_close_by_count_are_refuted(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The control: with quorums and a threshold, the absence of one takes away the sum of three, or of four."""
    promise_instead(monkeypatch, whoever_is_there=False)
    plan = watched_plan()
    present, absent, row = NEIGHBOURS[name]

    with pytest.raises(PrivacyError, match=r"above the claimed 0\.501"):
        audit(scores(plan, present, row=row), scores(plan, absent, row=row)).check(claimed(plan))


# --- what a participant knows ---


def pair_plan(**privacy: Any) -> Plan:
    """Two clients a band: a participant that subtracts its own share has half of the noise before it."""
    return make_plan(
        noise_multiplier=2.0,
        privacy={"colluders": 0, **privacy},
        min_holders=2,
        tiers={"all": {"rank": 1, "clients": 2}},
        masking={"profile": "semi-honest"},
        secure_sum="masking",
    )


def seen_by_a_participant(plan: Plan, canary: float) -> Scores:
    """Coordinate by coordinate an independent attack: the noisy sum of the canary and the participant's input, less its own."""
    mechanism = plan.mechanism
    assert isinstance(mechanism, DistributedDiscreteGaussian)
    trials = np.zeros(40_000, dtype=np.int64)
    others = mechanism.add_noise({0: trials}, UniformStream(bytes(range(16))))[0]
    own = mechanism.add_noise({0: trials}, UniformStream(bytes(range(16, 32))))[0]
    opened = canary * mechanism.sensitivity(plan.config.privacy.adjacency) + others + own
    return np.asarray(opened - own, dtype=np.float64)


def test_a_participant_that_subtracts_its_own_noise_learns_no_more_than_is_claimed() -> None:
    """Of two shares it knows one: its view is that of multiplier sqrt(1/2) z, and the public reader's that of z."""
    plan = pair_plan()
    assert plan.mechanism is not None
    seen = views(plan.promises, plan.mechanism, present={0: 2}, colluding=0)
    found = audit(seen_by_a_participant(plan, 1.0), -seen_by_a_participant(plan, 0.0))

    found.check(seen[Observer.PARTICIPANT])
    with pytest.raises(PrivacyError, match="above the claimed"):
        found.check(seen[Observer.PUBLIC])


def test_a_participant_that_is_counted_as_a_reader_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a view that counts all noise against it claims more than the attack leaves."""
    plan = pair_plan()
    assert plan.mechanism is not None
    monkeypatch.setattr(planned_noise, "known_noise", lambda _observer, colluding: colluding)
    seen = views(plan.promises, plan.mechanism, present={0: 2}, colluding=0)

    with pytest.raises(PrivacyError, match="above the claimed"):
        audit(seen_by_a_participant(plan, 1.0), -seen_by_a_participant(plan, 0.0)).check(
            seen[Observer.PARTICIPANT]
        )
