"""One client adds what it likes to sums that nobody can take apart: it closes bands, and moves nothing beyond the limits.

Each attack is mounted on a server without the check too, where it succeeds: what refuses it is the check.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols.masking import client as masking_client
from protocols.session import ClientId
from rbla_secure.federation import round as round_module
from rbla_secure.federation.coordinator import Coordinator
from rbla_secure.federation.round import RoundOutcome
from rbla_secure.federation.server import defence as defence_module
from rbla_secure.federation.server.average_check import CheckedAverage
from rbla_secure.federation.server.round_record import record_of
from rbla_secure.federation.step_bound import average_limits, over_rounds, single_limits, step_limit
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.quantize import dequantize_weighted
from rbla_secure.run_folder.audit_log import EventKind, read_events
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.stopwatch import Stopwatch
from tests.support.defended import defended_round, make_hostile, sending
from tests.support.federations import (
    InMemory,
    make_adapter,
    make_participants,
    make_plan,
    make_session,
)
from tests.support.identities import server_sum

LEVELS = 32_767
MASKED: dict[str, Any] = {"secure_sum": "masking", "masking": {"profile": "semi-honest"}}
PROFILES = ("semi-honest", "one-answer", "consistency")
# By segment, what a client adds: any vector of the ring.
Forge = Callable[[int, Any], Any]


@pytest.fixture(autouse=True)
def modified_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The range of a masked input is checked by its own client's code alone, and a hostile client has its own code."""
    monkeypatch.setattr(masking_client, "check_inputs", lambda *_: None)


def careless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that divides by what it was told and takes what it gets."""
    monkeypatch.setattr(round_module, "refused_claims", lambda *_: {})
    monkeypatch.setattr(defence_module, "refused_claims", lambda *_: {})
    monkeypatch.setattr(defence_module, "impossible", lambda *_: {})
    monkeypatch.setattr(
        round_module,
        "check_average",
        lambda _plan, _session, _totals, averaged: CheckedAverage(average=averaged, refused={}),
    )


def attack(plan: Plan, adapter: Adapter, hostile: Mapping[ClientId, Forge], **network: Any) -> RoundOutcome:
    """A round in which these clients add what they make of their honest integers."""
    people = make_participants(plan, examples=network.pop("examples", 1000))
    segments = {segment.length: segment.index for segment in make_session(plan).segments}
    for client, forge in hostile.items():
        make_hostile(people, client, partial(_forged, forge, segments))
    return defended_round(plan, adapter, InMemory(people, **network))


def _forged(forge: Forge, segments: Mapping[int, int], values: Any) -> Any:
    return forge(segments[len(values)], np.array(values))


def moved(before: Adapter, outcome: RoundOutcome) -> float:
    return float(np.linalg.norm(outcome.adapter.rows.astype(np.float64) - before.rows))


def statistic(*, back: int, value: Callable[[int], int]) -> Forge:
    """Another number in the place of one statistic, chosen by segment; the values stay."""

    def forge(segment: int, values: Any) -> Any:
        values[-back] = value(segment)
        return values

    return forge


def holders(plan: Plan) -> tuple[int, ...]:
    return tuple(len(segment.holders) for segment in make_session(plan).segments)


# --- uniform weights ---


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("target", [1, 0, -5])
def test_with_uniform_weights_there_is_no_weight_to_forge(profile: str, target: int) -> None:
    """What would make the sum of weights 1 / 32767 lands in the one statistic there is: the adapter is the honest one's."""
    plan = make_plan(secure_sum="masking", masking={"profile": profile})
    adapter = make_adapter(plan)
    forge = statistic(back=1, value=lambda i: -(holders(plan)[i] - 1) * LEVELS + target)

    outcome = attack(plan, adapter, {"large-02": forge})

    assert outcome.adapter.to_bytes() == attack(plan, adapter, {}).adapter.to_bytes()
    assert outcome.refused_bands == {}


def test_the_control_divides_by_the_forged_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the weight is summed and nothing is checked, one client makes the step thousands of times as long."""
    plan = make_plan(**MASKED, weights="examples")
    adapter = make_adapter(plan)
    forge = statistic(back=2, value=lambda i: -(holders(plan)[i] - 1) * LEVELS + 1)
    careless(monkeypatch)
    monkeypatch.setattr(round_module, "dequantize", dequantize_weighted)

    outcome = attack(plan, adapter, {"large-02": forge})

    assert moved(adapter, outcome) > 1e3 * step_limit(plan)


@pytest.mark.parametrize(
    ("upload", "claimed"), [("banded", -1), ("banded", -2 * LEVELS), ("padded", 4 * LEVELS)]
)
def test_an_impossible_share_of_values_cut_off_is_not_told(upload: str, claimed: int) -> None:
    """Below zero, or above one of the three holders of a band: it is named, it enters no mean, and it moves nothing."""
    plan = make_plan(**MASKED, upload=upload)
    adapter = make_adapter(plan)
    forge = statistic(back=1, value=lambda i: claimed if i == 1 else 0)

    outcome = attack(plan, adapter, {"large-01": forge})

    assert outcome.adapter.to_bytes() == attack(plan, adapter, {}).adapter.to_bytes()
    assert outcome.cut_off == 0.0
    (remark,) = outcome.remarks
    assert "rows 2-3: its holders claim" in remark
    cohort = tuple(plan.ranks)
    record = record_of(plan, outcome, round_number=1, cohort=cohort, accuracy=0.5, loss=1.0)
    assert record.checks == [remark]


# --- weights by examples ---


def lies(plan: Plan) -> dict[str, Forge]:
    """Sums of weights that six and three holders of weight one cannot have, by what is wrong with them."""
    others = [count - 1 for count in holders(plan)]
    sums = {
        "one unit": (1, 1),
        "nothing": (0, 0),
        "negative": (-5, -5),
        "just too little": (6 * 2048 - 1, 3 * 2048 - 1),
        "just too much": (6 * LEVELS + 1, 3 * LEVELS + 1),
    }
    return {
        name: statistic(back=2, value=lambda i, of=of: of[i] - others[i] * LEVELS)
        for name, of in sums.items()
    }


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("lie", ["one unit", "nothing", "negative", "just too little", "just too much"])
def test_an_impossible_weight_is_refused_and_changes_nothing(profile: str, lie: str) -> None:
    """Both bands of the liar are named with their range and stay as they were, to the bit."""
    plan = make_plan(secure_sum="masking", masking={"profile": profile}, weights="examples")
    adapter = make_adapter(plan)

    outcome = attack(plan, adapter, {"large-02": lies(plan)[lie]})

    assert outcome.adapter.to_bytes() == adapter.to_bytes()
    assert outcome.aborted == ""
    assert set(outcome.refused_bands) == {0, 1}
    if lie != "just too much":  # which the ring's own range refuses first
        assert "6 holders claim a weight of" in outcome.refused_bands[0]
        assert "[0.375" in outcome.refused_bands[0]


def test_a_weight_that_contradicts_the_band_above_closes_the_lower_band() -> None:
    """Six holders that weigh as much as three of them, who weigh one each, would leave the others nothing."""
    plan = make_plan(**MASKED, weights="examples")
    adapter = make_adapter(plan)
    forge = statistic(back=2, value=lambda _: -2 * LEVELS)

    outcome = attack(plan, adapter, {"small-01": forge})

    assert set(outcome.refused_bands) == {0}
    assert "that do not hold the band above" in outcome.refused_bands[0]
    assert outcome.holders == {1: 3}
    assert outcome.adapter.rows[0].tobytes() == adapter.rows[0].tobytes()
    assert (outcome.adapter.rows[1:] != adapter.rows[1:]).any()


def test_a_weight_that_could_be_stretches_by_no_more_than_the_inverse_of_the_least() -> None:
    """Three clients of weight one are made out to have the least: their average is sixteen times as long, and no more."""
    plan = make_plan(**MASKED, weights="examples", tiers={"a": {"rank": 1, "clients": 3}})
    adapter = make_adapter(plan)
    forge = statistic(back=2, value=lambda _: 3 * 2048 - 2 * LEVELS)

    honest, lied = attack(plan, adapter, {}), attack(plan, adapter, {"a-02": forge})

    assert lied.refused_bands == {}
    assert moved(adapter, lied) == pytest.approx(LEVELS / 2048 * moved(adapter, honest), rel=1e-4)
    assert moved(adapter, lied) <= step_limit(plan)


# --- values ---


def huge(_: int, values: Any) -> Any:
    """The whole range of the ring, far beyond one client's."""
    return np.full_like(values, 10**8)


def long(_: int, values: Any) -> Any:
    """Each value is one that three honest clients could add up to; all of them together are too long."""
    values[:-2] = 2 * LEVELS
    return values


ROOMY: dict[str, Any] = {"quantization": {"bits": 16, "bound": 1.0}}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("mode", ["huge", "long"])
def test_values_that_no_honest_clients_add_up_to_close_the_band(profile: str, mode: str) -> None:
    """A client of low rank closes the band that it holds, by name, and no other."""
    plan = make_plan(secure_sum="masking", masking={"profile": profile}, **ROOMY)
    adapter = make_adapter(plan)
    clean = attack(plan, adapter, {})

    outcome = attack(plan, adapter, {"small-01": huge if mode == "huge" else long})

    assert set(outcome.refused_bands) == {0}
    if mode == "long":
        assert "its average is 1." in outcome.refused_bands[0]
        assert "no honest clients can add up to" in outcome.refused_bands[0]
    assert outcome.adapter.rows[0].tobytes() == adapter.rows[0].tobytes()
    assert outcome.adapter.rows[1:].tobytes() == clean.adapter.rows[1:].tobytes()
    assert outcome.holders == {1: 3}


def test_the_control_takes_the_long_average(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check the same vector makes a step that every client would refuse in the next round."""
    plan = make_plan(**MASKED, **ROOMY, tiers={"a": {"rank": 3, "clients": 3}})
    adapter = make_adapter(plan)
    limit = over_rounds(step_limit(plan), float(np.linalg.norm(adapter.rows)), rounds=1)

    refused = attack(plan, adapter, {"a-01": long})
    careless(monkeypatch)
    taken = attack(plan, adapter, {"a-01": long})

    assert moved(adapter, refused) == 0
    assert moved(adapter, taken) > 3 * limit


def test_bands_within_their_limits_that_are_too_long_together_move_nothing() -> None:
    """A step is not scaled down: all of its bands are refused, and the adapter is unchanged to the bit."""
    plan = make_plan(**MASKED, **ROOMY)
    adapter = make_adapter(plan)
    limits, counts = average_limits(plan), holders(plan)

    def forge(i: int, values: Any) -> Any:
        # 97 % of its band's limit, in one value.
        values[:-1] = 0
        values[0] = round(0.97 * limits.bands[i] * counts[i] * plan.quantizer.scale)
        return values

    train = dict.fromkeys(plan.ranks, lambda adapter, _: adapter.rows)
    people = make_participants(plan, train=train)
    lengths = {segment.length: segment.index for segment in make_session(plan).segments}
    make_hostile(people, "large-01", lambda v: forge(lengths[len(v)], np.array(v)))
    outcome = defended_round(plan, adapter, InMemory(people))

    assert limits.total < 0.97 * np.hypot(*limits.bands)
    assert set(outcome.refused_bands) == {0, 1}
    assert all("all bands together" in reason for reason in outcome.refused_bands.values())
    assert outcome.adapter.to_bytes() == adapter.to_bytes()


@pytest.mark.parametrize("changes", [{}, {"gamma": 1.0}, {"average": "zero-pad"}, {"upload": "padded"}])
def test_one_client_moves_the_adapter_by_no_more_than_the_limit(changes: dict[str, Any]) -> None:
    """Whatever lengths it tries, in the bands it holds: what is taken is within the limit that clients know."""
    plan = make_plan(**MASKED, **ROOMY, **changes)
    adapter = make_adapter(plan)
    limit = over_rounds(step_limit(plan), float(np.linalg.norm(adapter.rows)), rounds=1)
    taken = []
    for size in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.01, 2.0):

        def forge(i: int, values: Any, size: float = size) -> Any:
            values[0] += round(size * holders(plan)[i] * plan.quantizer.scale)
            return values

        outcome = attack(plan, adapter, {"large-03": forge})
        taken.append(moved(adapter, outcome))

    assert max(taken) <= limit
    assert max(taken) > 0.5
    assert taken[-1] == 0


def test_padding_that_is_no_padding_is_within_the_same_limits() -> None:
    """A client that only pads a band adds to it as well: the count that matters is that of holders."""
    plan = make_plan(**MASKED, upload="padded")
    adapter = make_adapter(plan)

    def forge(_: int, values: Any) -> Any:
        values[0] = 4 * LEVELS if len(values) > 12 else values[0]
        return values

    outcome = attack(plan, adapter, {"small-01": forge})

    assert set(outcome.refused_bands) == {1}
    assert "a value of its average" in outcome.refused_bands[1]


def test_in_the_clear_the_same_average_is_refused() -> None:
    """Clients that do not clip, without masks and without a filter: six of them, who agree."""
    plan = make_plan(**ROOMY)
    adapter = make_adapter(plan)
    unclipped = {
        name: (lambda honest: {i: np.append(np.full(len(v) - 1, LEVELS), 0) for i, v in honest.items()})
        for name in plan.ranks
    }
    people = make_participants(plan)

    outcome = defended_round(plan, adapter, InMemory(people, answers=sending(unclipped)))

    assert set(outcome.refused_bands) == {0, 1}
    assert outcome.adapter.to_bytes() == adapter.to_bytes()


# --- noise ---


def test_under_noise_the_limit_has_the_noise_in_it_and_still_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that adds as much as the ring takes is far beyond what clip and noise together give."""
    plan = make_plan(**MASKED, noise_multiplier=1.0, privacy={"colluders": 0})
    adapter = make_adapter(plan)
    reach = plan.mechanism.input_bound if plan.mechanism is not None else 0

    def forge(_: int, values: Any) -> Any:
        return np.full_like(values, 4 * reach)

    outcome = attack(plan, adapter, {"small-01": forge})
    careless(monkeypatch)
    taken = attack(plan, adapter, {"small-01": forge})

    assert set(outcome.refused_bands) == {0}
    assert "no honest clients can add up to" in outcome.refused_bands[0]
    assert outcome.adapter.rows[0].tobytes() == adapter.rows[0].tobytes()
    assert moved(adapter, taken) > step_limit(plan)


# --- groups ---


GROUPED: dict[str, Any] = {
    **MASKED,
    "tiers": {"large": {"rank": 3, "clients": 9}},
    "robustness": {"f": 1, "group_size": 3},
}


@pytest.mark.parametrize("weights", ["uniform", "examples"])
def test_a_group_that_no_honest_members_have_is_refused_by_name(weights: str) -> None:
    """It loses its vote in all bands, whatever it spoiled; with two groups left against one attacker nothing opens."""
    plan = make_plan(**GROUPED, **ROOMY, weights=weights)
    adapter = make_adapter(plan)

    outcome = attack(plan, adapter, {"large-04": long})

    assert outcome.judged is not None
    (hostile,) = [name for name, verdict in outcome.judged.verdicts.items() if not verdict.accepted]
    assert "large-04" in outcome.judged.groups[hostile]
    assert "group sum: rows 1-3: " in outcome.judged.verdicts[hostile].reason
    assert outcome.judged.flags[hostile] == 1.0
    assert outcome.refused_bands == {0: "2 groups, 3 needed against f=1"}
    assert outcome.adapter.to_bytes() == adapter.to_bytes()


def test_a_group_of_a_forged_weight_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its average would be thousands of times as long; a server that divides has nothing but the median left."""
    plan = make_plan(**{**GROUPED, "robustness": {"f": 0, "group_size": 9}}, **ROOMY, weights="examples")
    adapter = make_adapter(plan)
    forge = statistic(back=2, value=lambda _: 1 - 8 * LEVELS)

    outcome = attack(plan, adapter, {"large-04": forge})
    careless(monkeypatch)
    taken = attack(plan, adapter, {"large-04": forge})

    assert outcome.judged is not None
    (verdict,) = outcome.judged.verdicts.values()
    assert "9 holders claim a weight of" in verdict.reason
    assert moved(adapter, outcome) == 0
    assert moved(adapter, taken) > 1e3 * step_limit(plan)


def test_a_group_is_measured_over_all_of_its_bands() -> None:
    """Each band within its limit, all together longer than one update: no three members add up to that."""
    tiers = {"small": {"rank": 1, "clients": 9}, "large": {"rank": 3, "clients": 9}}
    plan = make_plan(**{**GROUPED, "tiers": tiers}, **ROOMY)
    adapter, limits = make_adapter(plan), single_limits(plan)

    def forge(_: int, values: Any) -> Any:
        values[:] = 0
        for at in (0, plan.layout.row_length + 1):
            values[at] = round(0.9 * 3 * plan.quantizer.scale)
        return values

    people = make_participants(plan, train=dict.fromkeys(plan.ranks, lambda adapter, _: adapter.rows))
    make_hostile(people, "large-04", lambda values: forge(0, np.array(values)))
    outcome = defended_round(plan, adapter, InMemory(people))

    assert outcome.judged is not None
    (hostile,) = [verdict for verdict in outcome.judged.verdicts.values() if not verdict.accepted]
    assert limits.total < 0.9 * np.hypot(1.0, 1.0)
    assert "all bands together" in hostile.reason


# --- what is written down ---


@contextmanager
def running(plan: Plan, folder: Path, hostile: Mapping[ClientId, Forge]) -> Iterator[Coordinator]:
    """A whole run in which these clients are hostile in every round."""
    segments = {segment.length: segment.index for segment in make_session(plan).segments}
    people = make_participants(plan)
    for client, forge in hostile.items():
        make_hostile(people, client, partial(_forged, forge, segments))
    with closing(RunFolder.create(folder, plan.config)) as run:
        yield Coordinator(
            plan=plan,
            secure_sum=server_sum(plan),
            folder=run,
            exchange=InMemory(people),
            evaluate=lambda _: (0.5, 1.0),
            stopwatch=Stopwatch(),
        )


def test_what_is_refused_is_an_event_and_the_run_goes_on(tmp_path: Path) -> None:
    """Every round names the band and the reason, and the bands of others learn on."""
    plan = make_plan(**MASKED, **ROOMY, rounds=2)

    with running(plan, tmp_path / "run", {"small-01": long}) as coordinator:
        first = coordinator.initial_adapter()
        progress = coordinator.run(coordinator.folder.load(plan))

    events = read_events(tmp_path / "run" / "events.jsonl")
    refused = [event.details for event in events if event.kind is EventKind.BAND_REFUSED]
    assert [details["band"] for details in refused] == ["rows 1-1", "rows 1-1"]
    assert all("no honest clients can add up to" in str(details["reason"]) for details in refused)
    assert progress.adapter is not None
    assert progress.adapter.rows[0].tobytes() == first.rows[0].tobytes()
    assert (progress.adapter.rows[1:] != first.rows[1:]).any()
