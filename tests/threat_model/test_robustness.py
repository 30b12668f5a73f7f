"""A test for every numbered claim of threat_model.md about hostile clients, under the claim's number."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols.homomorphic.services.operated import HomomorphicServices
from rbla_secure.errors import PlanError
from rbla_secure.federation.messages import StageRefusal, StageRequest, decode_answer
from rbla_secure.planning.warnings import warnings
from rbla_secure.run_folder.audit_log import EventKind, read_events
from rbla_secure.run_folder.records import RoundRecord
from tests.rbla_secure import test_restarted_screening as restarted
from tests.rbla_secure.federation import grouped
from tests.rbla_secure.federation import test_groups as groups
from tests.rbla_secure.federation.server import defended
from tests.rbla_secure.federation.server import test_defence as clear
from tests.rbla_secure.federation.server.test_row_quorums import MODES, play
from tests.rbla_secure.federation.server.test_row_quorums import services as services  # noqa: PLC0414  # a fixture
from tests.support.defended import Integers, defended_round, make_plan, sending
from tests.support.federations import RUN, InMemory, make_adapter, make_participants, make_session


@pytest.mark.parametrize(("mode", "profile"), MODES)
def test_claim_36_a_band_opens_over_its_row_quorum_alone(
    mode: str, profile: str, services: list[HomomorphicServices]
) -> None:
    """Against two attackers five of five holders, never four; a band of four is named, and nobody uploads it."""
    plan = defended.quorum_plan(mode, profile)
    adapter = make_adapter(plan)

    short = play(plan, adapter, services, gone=("large-05",))
    whole = play(plan, adapter, services, gone=("small-01",))

    assert (set(short.holders), set(whole.holders)) == ({0}, {0, 1})
    assert short.adapter.rows[1:].tobytes() == adapter.rows[1:].tobytes()
    tiers = {"large": {"rank": 3, "clients": 4}, "small": {"rank": 1, "clients": 3}}
    thin = make_plan(tiers=tiers, secure_sum=mode, robustness={"f": 2})
    session = thin.session(run=RUN, round_number=1, attempt=1, cohort=tuple(thin.ranks))
    assert [segment.index for segment in session.segments] == [0]
    assert any("rows 2-3: 4 holders, 5 needed" in text for text in warnings(thin.promises))


def test_claim_37_the_server_takes_no_clients_word() -> None:
    """Five kinds of malformed uploads cost their senders the round, a long one is cut, and the others are averaged."""
    plan = make_plan(
        robustness={"filter": "norm-bound", "bound": 1e6},
        upload="padded",
        quantization={"bits": 16, "bound": 1.0},
        weights="examples",
        examples_cap=10,
    )
    crafted: dict[str, Any] = {
        "large-01": lambda sent: {i: clear.with_weight(v, 0) for i, v in sent.items()},
        "large-02": lambda sent: {i: clear.with_weight(v, 20_000 + i) for i, v in sent.items()},
        "small-01": lambda sent: {i: clear.with_weight(v, -32_767) for i, v in sent.items()},
        "small-02": lambda sent: {**sent, 1: np.full_like(sent[1], 1000)},
        "small-03": lambda sent: {i: np.full_like(v, 40_000) for i, v in sent.items()},
        "small-04": _long,
    }
    adapter = make_adapter(plan)

    outcome = defended_round(plan, adapter, InMemory(make_participants(plan), answers=sending(crafted)))

    assert outcome.judged is not None
    kept = {name for name, verdict in outcome.judged.verdicts.items() if verdict.accepted}
    assert kept == {"large-03", "large-04", "large-05", "small-04", "small-05"}
    assert set(outcome.refusals) == {"small-03"}
    assert outcome.holders == {0: 5, 1: 3}
    # Five updates of length 1 at most, one of which was twelve times as long.
    assert np.linalg.norm(outcome.adapter.rows[0] - adapter.rows[0]) <= 1 + 1e-3


def _long(sent: Integers) -> Integers:
    """The largest values that there are, in the one row that the client holds."""
    largest = np.full_like(sent[0], 32_767)
    return {**sent, 0: np.append(largest[:-2], sent[0][-2:])}


@pytest.mark.parametrize("profile", groups.PROFILES)
@pytest.mark.parametrize("rule", ["coordinate-median", "trimmed-mean"])
def test_claim_38_the_average_stays_among_the_honest_groups(rule: str, profile: str) -> None:
    """One of three groups spoilt, with a weight of its own making; a plan against two is refused."""
    plan = groups.wide_plan(profile, robustness={"group_rule": rule}, gamma=1.0)
    adapter = make_adapter(plan)

    outcome = groups.poisoned(plan, adapter, 1, claim=-20_000)

    moved = np.abs(outcome.adapter.rows.astype(np.float64) - adapter.rows)
    assert set(outcome.holders) == {0, 1}
    assert moved.max() <= groups.honest_range(plan, adapter) + groups.GRID
    with pytest.raises(PlanError, match=r"2 \* 2 < 3 does not hold"):
        grouped.make_plan(profile, robustness={"f": 2})


@pytest.mark.parametrize("profile", groups.PROFILES)
def test_claim_38_a_group_is_the_plans_and_opens_over_its_quorum(profile: str) -> None:
    """A client is in one group of its own tier and refuses another round's; two of three members open nothing."""
    plan = grouped.make_plan(profile)
    session, other = make_session(plan), make_session(plan, round_number=2)
    adapter = make_adapter(plan)
    bent = StageRequest(session=_with_segments(session, other), payload=b"", adapter=b"").to_bytes()

    answers = [decode_answer(each.handle(bent)) for each in make_participants(plan).values()]
    gone = groups.threes(plan, 3)[0][0]
    outcome = groups.play(plan, adapter, gone={gone: groups.input_stage(plan)})

    assert all(isinstance(answer, StageRefusal) for answer in answers)
    assert all(len({plan.ranks[name] for name in segment.members}) == 1 for segment in session.segments)
    assert set(outcome.refused_bands) == {1}
    assert outcome.adapter.rows[1:].tobytes() == adapter.rows[1:].tobytes()


def _with_segments(session: Any, other: Any) -> bytes:
    """A session with the groups of another."""
    return bytes(replace(session, segments=other.segments).to_bytes())


@pytest.mark.parametrize("defence", clear.DEFENCES)
def test_claim_39_decisions_are_written_down_and_repeat(tmp_path: Path, defence: dict[str, Any]) -> None:
    """With rule, number and limit, in metrics and events; an interruption changes none of them."""
    whole, parts = (clear.Run(tmp_path / name, **defence) for name in ("whole", "parts"))
    lines = whole.go()
    with pytest.raises(KeyboardInterrupt):
        parts.go(until=2)

    resumed = parts.go()

    assert resumed == lines
    records = [RoundRecord.model_validate_json(line) for line in lines[:-1]]
    rejected = [
        (record.round, name, reason) for record in records for name, reason in record.rejected.items()
    ]
    noted = [
        (event.round, event.details["of"], event.details["reason"])
        for event in read_events(tmp_path / "whole" / "events.jsonl")
        if event.kind is EventKind.UPDATE_REJECTED
    ]
    assert noted == rejected
    if defence["robustness"].get("filter") == "tier-dnc-cosine":
        assert len(rejected) == 4
        assert all("score" in reason and "limit" in reason for _, _, reason in rejected)


def test_claim_39_a_resumed_run_screens_along_the_same_direction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a verifier that was started again: the same clients are screened out, and the same lines come out."""
    images = restarted.write_images(tmp_path)
    whole, part = tmp_path / "whole", tmp_path / "part"
    restarted.run(whole, images, verifier=True)
    restarted.interrupted(part, images, monkeypatch, verifier=True)

    assert restarted.main(["resume", str(part)]) == 0

    assert restarted.screened_out(part) == restarted.screened_out(whole)
    assert len(restarted.screened_out(whole)[1]) > 0
    assert (part / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
