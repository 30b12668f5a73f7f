"""The claims of threat_model.md about servers that choose the model, weights that are claimed, and shares that are wrong."""

import hashlib
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from protocols.masking.messages import RevealedShares
from protocols.primitives.secret import Secret
from protocols.profiles import CONSISTENCY, ONE_ANSWER, MaskingProfile
from protocols.run import run_session
from rbla_secure.cli import main
from rbla_secure.config import Config
from rbla_secure.errors import EvaluationError, PlanError, RefusalError
from rbla_secure.evaluation.mounted import check_each_seen, mounted
from rbla_secure.federation.broadcast import Broadcast, band_digests
from rbla_secure.federation.client.contribution import contribution
from rbla_secure.federation.client.memory import Memory
from rbla_secure.federation.round import RoundOutcome
from rbla_secure.federation.server.weight_claims import refused_claims
from rbla_secure.federation.step_bound import step_limit
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.opening import tier_protection
from rbla_secure.planning.promises import Promises
from rbla_secure.run_folder.audit_log import EventKind, read_events
from tests.contracts.sessions import make_inputs, make_session, same_bindings
from tests.protocols.masking.parties import EveryonesMasking
from tests.support.federations import make_adapter, make_config, make_plan
from tests.support.model_world import (
    LARGE,
    World,
    believe_anything,
    clip_all_bands_together,
    count_all_ranks_together,
)
from tests.support.run_folders import cut_back, snapshot
from tests.support.tiny_job import job, write_images

MALICIOUS = ["one-answer", "consistency"]
TIERS = {"small": {"rank": 2, "clients": 9}, "large": {"rank": 4, "clients": 4}}


@pytest.mark.parametrize("profile", MALICIOUS)
@pytest.mark.parametrize(
    ("rest", "classes", "isolated"),
    [("dropped", "none", [0]), ("dropped", "of view", []), ("folded", "none", [])],
)
def test_claim_40_one_model_isolates_no_client(
    monkeypatch: pytest.MonkeyPatch, profile: str, rest: str, classes: str, isolated: list[int]
) -> None:
    """Dead at rank 2, alive at 4, the others of rank 4 dropped: only without classes and folds the low band opens to one."""
    believe_anything(monkeypatch)
    if classes == "none":
        count_all_ranks_together(monkeypatch)
    world = World(masking={"profile": profile}, lora={"rest": rest}, tiers=TIERS)

    result = world.play(world.model(dead_in=0, alive_in=2), drop=LARGE[1:])

    assert world.isolated(result, "large-01") == isolated


@pytest.mark.parametrize("clip", ["each band", "all bands"])
def test_claim_40_in_turns_what_is_sent_of_a_band_is_alike_at_every_rank(
    monkeypatch: pytest.MonkeyPatch, clip: str
) -> None:
    """The same client with the same examples, of rank 2 and of rank 4: its lowest band's integers, clipped and rounded."""
    if clip == "all bands":
        clip_all_bands_together(monkeypatch)
    found = []
    for rank in (2, 4):
        tiers = {
            "one": {"rank": rank, "clients": 1},
            "small": {"rank": 2, "clients": 2},
            "large": {"rank": 4, "clients": 4},
        }
        world = World(tiers=tiers, training={"rows": "in-turns", "batch_size": 8, "learning_rate": 0.05})
        world.play(world.plan.initial_adapter)
        change = world.changes["one-01"]
        sent = contribution(world.plan, world.session, "one-01", change, weight=1.0, noise_key=bytes(16))
        found.append((change[:2], sent[0]))

    (low, few), (high, many) = found

    assert low.tobytes() == high.tobytes()
    assert few.any()
    assert np.array_equal(few, many) == (clip == "each band")


def test_claim_40_a_plan_whose_classes_cannot_be_whole_is_refused_and_check_says_who_is_protected() -> None:
    """Two clients of a rank are no class; folded, they are protected; semi-honest, they are not."""
    tiers = {"few": {"rank": 2, "clients": 2}, "many": {"rank": 4, "clients": 8}}

    def config(profile: str, rest: str) -> Config:
        return make_config(
            secure_sum="masking", masking={"profile": profile}, lora={"rest": rest}, tiers=tiers
        )

    with pytest.raises(PlanError, match=r"the 2 clients a round of rank 2 .* are fewer than 3"):
        make_plan(**config("one-answer", "dropped").model_dump())
    assert set(tier_protection(Promises.build(config("one-answer", "folded"))).values()) == {
        "protected: all clients start a round from one function"
    }
    semi_honest = tier_protection(Promises.build(config("semi-honest", "dropped")))
    assert all(text.startswith("NOT protected against a server that lies") for text in semi_honest.values())


@pytest.mark.parametrize("number", [1, 2, 4])
def test_claim_41_a_model_that_honest_rounds_cannot_have_made_is_not_trained_on(number: int) -> None:
    """One bit in round 1, a step and a hundredth for each later round, one value beyond its bound: refused."""
    plan = make_plan(rounds=9, quantization={"bits": 16, "bound": 1.0})
    start, reach = plan.initial_adapter, step_limit(plan) * (number - 1)
    direction = np.ones(start.rows.shape) / np.sqrt(start.rows.size)

    def offered(rows: Any) -> Broadcast:
        adapter = Adapter(layout=plan.layout, rows=rows.astype(np.float32))
        return Broadcast(adapter=adapter, digests=band_digests(plan, adapter))

    value = start.rows.copy()
    value[1, 3] += np.float32(1.01 * (number - 1) + 1e-6)
    for bad in (start.rows + (1.01 * reach + 1e-3) * direction, value):
        with pytest.raises(RefusalError):
            Memory(plan).accept(offered(bad), number)
    Memory(plan).accept(offered(start.rows + 0.7 * reach * direction), number)


def test_claim_11_a_clip_norm_that_no_counts_can_have_led_to_is_refused() -> None:
    """Round 2 has heard none: of the whole ladder one norm is believed; round 9 has heard seven."""
    plan = make_plan(noise_multiplier=0.3, privacy={"clipping": "adaptive", "simulation": True})

    def believed(number: int) -> list[float]:
        return [norm for norm in plan.clip_norms if _believes(Memory(plan), number, norm)]

    assert believed(2) == [1.0]
    assert believed(9) == [norm for norm in plan.clip_norms if abs(np.log(norm)) < 7 * 0.2 * 0.5 + 0.011]


def _believes(memory: Memory, number: int, norm: float) -> bool:
    try:
        memory.check_clip_norm(number, norm)
    except RefusalError:
        return False
    return True


def test_claim_21_41_a_state_folder_is_one_clients_and_a_seed_one_plans(tmp_path: Path) -> None:
    """What a client accepted and gave it knows after a restart; meanwhile nobody else has the folder."""
    plan, other = make_plan(), make_plan(stage_seconds=7.0)
    start = Broadcast(adapter=plan.initial_adapter, digests=band_digests(plan, plan.initial_adapter))
    with closing(Memory.in_folder(plan, tmp_path, client="small-01")) as memory:
        memory.accept(start, 1)
        memory.give(1)
        memory.accept(start, 2)
        with pytest.raises(RefusalError, match="in use by another process, or by another client"):
            Memory.in_folder(plan, tmp_path, client="small-02")

    with closing(Memory.in_folder(plan, tmp_path, client="small-01")) as again:
        with pytest.raises(RefusalError, match="round 1 has had this participant's input"):
            again.check_not_given(1)
        moved = Adapter(layout=plan.layout, rows=plan.initial_adapter.rows + np.float32(1e-4))
        with pytest.raises(RefusalError, match="round 2 began with another adapter"):
            again.accept(Broadcast(adapter=moved, digests=band_digests(plan, moved)), 2)
    with pytest.raises(RefusalError, match="take a new seed"):
        Memory.in_folder(other, tmp_path, client="small-01")


def test_claim_42_a_claim_of_weight_moves_nothing() -> None:
    """Uniform weights are not sent; with weights by examples an impossible sum closes its band, any other changes 16-fold."""
    uniform, weighted = make_plan(), make_plan(weights="examples")
    levels = weighted.quantizer.levels

    def claimed(total: int) -> dict[int, str]:
        return refused_claims(weighted, {0: np.array([0, 0, 0, total, 0], dtype=np.int64)}, {0: 6})

    assert uniform.statistics == 1  # the share of cut-off coordinates, which is only printed
    assert weighted.least_weight == pytest.approx(1 / 16, abs=1e-4)  # rounded up to the grid
    for impossible in (-5, 0, 1, round(6 * levels / 16) - 6, 6 * levels + 1):
        assert "claim a weight of" in claimed(impossible)[0]
    assert claimed(6 * levels) == claimed(6 * round(weighted.least_weight * levels)) == {}


@pytest.mark.parametrize("profile", [ONE_ANSWER, CONSISTENCY], ids=lambda profile: profile.name)
def test_claim_43_a_wrong_share_is_set_aside_and_its_sender_named(profile: MaskingProfile) -> None:
    """The sum is that of the honest inputs, to the integer, and the result says who lied about whose share."""
    session = make_session(6, threshold=profile.threshold(6))
    inputs = make_inputs(session)

    def lie(client: str, stage: str, reply: bytes) -> bytes:
        if (client, stage) != ("client-02", "reveal_shares"):
            return reply
        message = RevealedShares.from_bytes(reply)
        flipped = {
            key: Secret(bytes(share)[:1] + bytes([bytes(share)[1] ^ 1]) + bytes(share)[2:])
            for key, share in message.self_mask_shares.items()
        }
        return RevealedShares(
            context=message.context,
            sender=message.sender,
            mask_key_shares=message.mask_key_shares,
            self_mask_shares=flipped,
        ).to_bytes()

    result = run_session(
        EveryonesMasking(profile), session, inputs, bindings=same_bindings(session), tamper=lie
    )

    want = sum(inputs[member][0].values for member in session.members)
    assert np.array_equal(result.sums[0], want)
    assert list(result.faults) == ["client-02"]


def _finished_run(tmp_path: Path) -> Path:
    """A small run through the command line."""
    folder = tmp_path / "run"
    assert main(["run", *job(write_images(tmp_path), rounds=2), "--out", str(folder)]) == 0
    return folder


def _poisoned(folder: Path) -> None:
    """Another adapter in the last checkpoint, and the metrics line that names it to match."""
    path = folder / "checkpoints" / "round-0002.safetensors"
    with safe_open(path, framework="numpy") as file:
        metadata, rows = file.metadata(), np.array(file.get_tensor("rows")) + np.float32(0.25)
    save_file({"rows": rows}, path, metadata=metadata)
    shape = np.asarray(rows.shape, dtype="<u8").tobytes()
    digest = hashlib.sha256(b"rbla-secure adapter\x00" + shape + rows.astype("<f4").tobytes()).hexdigest()
    _edit(folder / "metrics.jsonl", lambda lines: [lines[0], _with(lines[1], "adapter", digest)])


def _with(line: str, key: str, value: object) -> str:
    return json.dumps({**json.loads(line), key: value}, separators=(",", ":"))


def _edit(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("".join(line + "\n" for line in change(path.read_text().splitlines())))


def _result_too_early(folder: Path) -> None:
    """Cut back to before the second session was opened, with the result of the first, which comes after that."""
    events = read_events(folder / "events.jsonl")
    at = next(i for i, each in enumerate(events) if each.kind is EventKind.SESSION_OPENED and each.round == 2)
    cut_back(folder, at, rounds=1)


FOLDER_EDITS: dict[str, Callable[[Path], object]] = {
    "config.toml": lambda folder: _edit(
        folder / "config.toml", lambda lines: [line.replace('"masking"', '"plain"') for line in lines]
    ),
    "run.json": lambda folder: (folder / "run.json").write_text(json.dumps({"run": "ab" * 16})),
    "metrics.jsonl": lambda folder: _edit(
        folder / "metrics.jsonl", lambda lines: [_with(lines[0], "accuracy", 0.999), *lines[1:]]
    ),
    "round-0002": _poisoned,
    "events.jsonl": lambda folder: (folder / "events.jsonl").write_text(""),
    "line 1: events.jsonl knows 0 rounds": _result_too_early,
    "attempts.jsonl": lambda folder: _edit(
        folder / "attempts.jsonl", lambda lines: [*lines, '{"round": 3, "attempt": 1}']
    ),
    "architecture.json": lambda folder: _edit(
        folder / "base" / "architecture.json", lambda lines: [line + " " for line in lines]
    ),
    "README.md": lambda folder: _edit(
        folder / "adapter" / "README.md", lambda lines: [*lines, "Withstands everything."]
    ),
    "adapter_model.safetensors": lambda folder: (
        folder / "adapter" / "adapter_model.safetensors"
    ).write_bytes((folder / "adapter" / "adapter_model.safetensors").read_bytes()[:-1] + b"\x01"),
}


@pytest.mark.parametrize("name", list(FOLDER_EDITS))
def test_claim_45_a_folder_that_differs_from_its_log_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Each edit ends `resume` with exit code 1 and leaves every file as it was; untouched, the run goes on."""
    folder = _finished_run(tmp_path)
    assert main(["resume", str(folder)]) == 0
    FOLDER_EDITS[name](folder)
    before = snapshot(folder)
    capsys.readouterr()

    code = main(["resume", str(folder)])

    assert code == 1
    assert snapshot(folder) == before
    # A poisoned checkpoint is found by the line that was edited to name it.
    assert name in (told := capsys.readouterr().err) or "metrics.jsonl" in told


def test_claim_46_an_attack_that_did_not_happen_is_not_scored() -> None:
    """An attacker that was refused, or of whom nothing was summed, ends the evaluation by name."""
    outcome = RoundOutcome(
        adapter=make_adapter(make_plan()), survivors=("honest",), refusals={"bad": "X: no"}
    )

    def silenced(_client: str, _number: int) -> bool:
        return False

    with pytest.raises(EvaluationError, match=r"attacker bad was refused \(X: no\)"):
        mounted(outcome, 1, ("bad",), ("honest",), silenced)
    assert mounted(replace(outcome, survivors=("bad", "honest")), 1, ("bad",), ("honest",), silenced) == {
        "bad"
    }
    summed = replace(outcome, survivors=("bad", "honest"), refusals={})
    with pytest.raises(EvaluationError, match=r"attacker bad failed by itself \(X: under noise\)"):
        mounted(summed, 1, ("bad",), ("honest",), silenced, failures={"bad": "X: under noise"})
    called_so = replace(outcome, refusals={"bad": "ScreeningError: no"})
    with pytest.raises(EvaluationError, match="attacker bad was refused"):
        mounted(called_so, 1, ("bad",), ("honest",), silenced)
    assert mounted(called_so, 1, ("bad",), ("honest",), silenced, screened={"bad"}) == {"bad"}
    shared = replace(outcome, survivors=("worse",), refusals={"bad": "X: no", "honest": "X: no"})
    assert mounted(shared, 1, ("bad", "worse"), ("honest",), silenced) == {"worse"}
    with pytest.raises(EvaluationError, match="attacker bad was refused or failed, and no update of it"):
        check_each_seen(shared.refusals.keys() - {"honest"}, {"worse"}, rounds=1)
