"""Row quorums in every mode, and filters over single updates in whole rounds, against filters applied by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols.session import ClientId
from rbla_secure.config import RobustnessConfig
from rbla_secure.config.choices import FilterName, PreStepName
from rbla_secure.errors import PlanError
from rbla_secure.federation.coordinator import Coordinator
from rbla_secure.federation.round import prepare_round, run_round
from rbla_secure.federation.server.defence import Defence
from rbla_secure.federation.server.previous_step import PreviousStep
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.lora.bands import rank_bands
from rbla_secure.planning.plan import Plan
from rbla_secure.planning.warnings import warnings
from rbla_secure.robustness.filter import FilterOptions
from rbla_secure.robustness.registry import build
from rbla_secure.robustness.updates import BandUpdates, Updates
from rbla_secure.robustness.verdicts import Filtered
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.stopwatch import Stopwatch
from tests.rbla_secure.federation.server.defended import quorum_plan
from tests.support import federations
from tests.support.defended import TIERS, Integers, defended_round, drifted, make_plan, sending
from tests.support.federations import (
    InMemory,
    WhenSaved,
    drift,
    make_adapter,
    make_participants,
    open_round,
)
from tests.support.identities import server_sum


@pytest.mark.parametrize("mode", ["plain", "masking", "homomorphic"])
def test_a_band_that_can_never_open_is_named_with_f_and_nobody_uploads_it(mode: str) -> None:
    """Five holders stand two attackers; three they do not: the plan says so, and the rows stay as they are."""
    plan = quorum_plan(mode, robustness={"f": 3})

    session = plan.session(run=federations.RUN, round_number=1, attempt=1, cohort=tuple(plan.ranks))

    assert [segment.index for segment in session.segments] == [0]
    assert [
        text for text in warnings(plan.promises) if "robustness.f=3: rows 2-3: 5 holders, 7 needed" in text
    ]


def test_more_attackers_than_any_band_stands_are_refused() -> None:
    with pytest.raises(
        PlanError, match=r"robustness\.f=9 asks for 19 holders of a band.*nothing could ever open"
    ):
        quorum_plan("plain", robustness={"f": 9})


# --- filters over single updates, against the same filter by hand ---


def by_hand(plan: Plan, adapter: Adapter, *, previous: Any = None, seed: int = 1) -> Filtered:
    """The plan's filter on what the clients of round 1 send, decoded in a few lines of their own."""
    clients = tuple(sorted(plan.ranks))
    scale = (2 ** (plan.config.quantization.bits - 1) - 1) / plan.config.quantization.bound
    sent = {client: drifted(plan, adapter, client) for client in clients}
    bands = {}
    for band in rank_bands(plan.ranks.values()):
        holders = [i for i, client in enumerate(clients) if plan.ranks[client] >= band.stop]
        values = np.stack([sent[clients[i]][band.index][:-1] / scale for i in holders])
        bands[band.index] = BandUpdates(holders=np.array(holders), values=values)
    updates = Updates(
        clients=clients,
        ranks=np.array([plan.ranks[client] for client in clients]),
        weights=np.ones(len(clients)),
        bands=bands,
    )
    wanted = plan.config.robustness
    reference = {
        band.index: np.full(band.height * plan.layout.row_length, np.float64(np.float32(0.01)))
        for band in plan.bands
    }
    settings = RobustnessConfig(bound=plan.config.clip_norm / 2, radius=plan.config.clip_norm)
    options = FilterOptions(settings=settings, reference=reference)
    found = build(
        wanted.filter,
        f=wanted.f,
        privacy_quorum=plan.config.min_holders,
        pre_step=wanted.pre_step,
        options=options,
    )
    return found.apply(updates, previous=previous, seed=seed)


NAMES = [name for name in FilterName if name not in {FilterName.NONE, FilterName.KRUM}]


@pytest.mark.parametrize("step", [PreStepName.NONE, PreStepName.NEIGHBOR_MIXING])
@pytest.mark.parametrize("name", NAMES)
def test_decisions_are_those_of_the_filter_alone(name: FilterName, step: PreStepName) -> None:
    """Who is kept, which bands open, and where the adapter goes."""
    plan = make_plan(robustness={"filter": name.value, "pre_step": step.value})
    adapter = make_adapter(plan)

    outcome = defended_round(
        plan,
        adapter,
        InMemory(make_participants(plan)),
        reference=lambda before, _: before.rows.astype(np.float64) + np.float32(0.01),  # type: ignore[arg-type,return-value]
    )

    expected = by_hand(plan, adapter)
    assert outcome.judged is not None
    assert {name: v.accepted for name, v in outcome.judged.verdicts.items()} == {
        name: v.accepted for name, v in expected.verdicts.items()
    }
    assert set(outcome.judged.totals) == set(expected.totals)
    moved = outcome.adapter.rows.astype(np.float64) - adapter.rows
    for index, total in expected.totals.items():
        band = plan.bands[index]
        average = (total.weighted_sum / total.weight).reshape(band.height, -1)
        np.testing.assert_allclose(moved[band.start : band.stop], average, atol=1e-6)


def test_padded_uploads_are_filtered_like_any_other() -> None:
    """Zeros in rows that a client does not hold are no claim about them."""
    wanted = {"filter": "tier-dnc-cosine"}
    padded, banded = (make_plan(robustness=wanted, upload=upload) for upload in ("padded", "banded"))
    adapter = make_adapter(padded)

    found = [defended_round(plan, adapter, InMemory(make_participants(plan))) for plan in (padded, banded)]

    assert found[0].holders == found[1].holders
    assert found[0].adapter.to_bytes() == found[1].adapter.to_bytes()


# --- clients that do not run our code ---


def with_weight(values: Any, weight: int) -> Any:
    """The first of the statistics of a plan with weights: its weight."""
    changed = np.array(values)
    changed[-2] = weight
    return changed


def scaled(factor: int) -> Any:
    """The same update so many times as long, of the same weight."""

    def make(honest: Integers) -> Integers:
        return {
            i: np.append(np.clip(factor * values[:-1], -32767, 32767), values[-1:])
            for i, values in honest.items()
        }

    return make


def test_the_server_clips_again() -> None:
    """A client that sends two thousand times its update moves the average as one of the clip norm."""
    plan = make_plan(
        robustness={"filter": "norm-bound", "bound": 1e6},
        clip_norm=0.05,
        quantization={"bits": 16, "bound": 1.0},
    )
    adapter = make_adapter(plan)
    exchange = InMemory(make_participants(plan), answers=sending({"large-01": scaled(10)}))
    honest = InMemory(make_participants(plan))

    hostile, same = (defended_round(plan, adapter, each) for each in (exchange, honest))

    assert hostile.judged is not None
    assert hostile.judged.verdicts["large-01"].accepted
    # Its honest update was clipped already: ten times as long and clipped again it is the same, up to rounding.
    difference = hostile.adapter.rows.astype(np.float64) - same.adapter.rows
    assert np.abs(difference).max() < 2 * (1.0 / 32767)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ((0, 0), "weight 0"),
        ((-32767, -32767), "weight -1"),
        ((2047, 2047), "weight 0.0625 is not"),
        ((32767, 16384), "different weights"),
        ((0, 32767), "different weights"),
    ],
)
def test_a_weight_that_is_not_the_plans_is_rejected(weights: tuple[int, int], reason: str) -> None:
    """By verdict, with the reason; the round goes on without its client."""
    plan = make_plan(robustness={"filter": "coordinate-median"}, weights="examples", examples_cap=10)

    def lie(honest: Integers) -> Integers:
        return {i: with_weight(values, weights[i]) for i, values in honest.items()}

    exchange = InMemory(make_participants(plan), answers=sending({"large-01": lie}))

    outcome = defended_round(plan, make_adapter(plan), exchange)

    assert outcome.judged is not None
    verdict = outcome.judged.verdicts["large-01"]
    assert not verdict.accepted
    assert reason in verdict.reason
    assert outcome.holders == {0: 9, 1: 4}


def test_a_weight_above_one_is_no_input() -> None:
    """It leaves the range that the secure sum allows: its client is turned away."""
    plan = make_plan(robustness={"filter": "coordinate-median"}, weights="examples")
    lie = sending({"small-01": lambda honest: {i: with_weight(v, 40_000) for i, v in honest.items()}})

    outcome = defended_round(plan, make_adapter(plan), InMemory(make_participants(plan), answers=lie))

    assert "InputError" in outcome.refusals["small-01"]
    assert outcome.holders == {0: 9, 1: 5}


def test_rows_that_a_client_does_not_hold_are_not_its_to_fill() -> None:
    """Where uploads are padded, something else than zeros there costs a client its place."""
    plan = make_plan(robustness={"filter": "coordinate-median"}, upload="padded")
    capture = sending({"small-01": lambda honest: {**honest, 1: np.full_like(honest[1], 1000)}})

    outcome = defended_round(plan, make_adapter(plan), InMemory(make_participants(plan), answers=capture))

    assert outcome.judged is not None
    assert "rows that it does not hold" in outcome.judged.verdicts["small-01"].reason
    assert outcome.holders == {0: 9, 1: 5}


def test_whatever_integers_arrive_the_round_ends() -> None:
    """Extremes, noise and nothing at all: every client has a verdict, and nothing raises."""
    plan = make_plan(robustness={"filter": "tier-dnc-cosine"}, weights="examples", examples_cap=10)
    generator = np.random.default_rng(5)
    shapes: list[Any] = [
        lambda v: np.full_like(v, 32767),
        lambda v: np.full_like(v, -32767),
        np.zeros_like,
        lambda v: generator.integers(-32767, 32768, len(v)),
        lambda v: with_weight(np.zeros_like(v), 1),
        lambda v: with_weight(np.full_like(v, 32767), 1),
    ]
    crafted = {
        client: (lambda honest, shape=shape: {i: shape(v) for i, v in honest.items()})
        for client, shape in zip(plan.ranks, shapes, strict=False)
    }
    exchange = InMemory(make_participants(plan), answers=sending(crafted))

    outcome = defended_round(plan, make_adapter(plan), exchange)

    assert outcome.judged is not None
    assert set(outcome.judged.verdicts) == set(plan.ranks)
    assert np.isfinite(outcome.adapter.rows).all()


def test_without_a_valid_update_every_band_stays_closed() -> None:
    """The round finishes, and the adapter is unchanged to the bit."""
    plan = make_plan(robustness={"filter": "coordinate-median"}, weights="examples")
    lie = dict.fromkeys(plan.ranks, lambda honest: {i: with_weight(v, 5) for i, v in honest.items()})
    adapter = make_adapter(plan)

    outcome = defended_round(plan, adapter, InMemory(make_participants(plan), answers=sending(lie)))

    assert outcome.aborted == ""
    assert outcome.refused_bands == {0: "no valid update", 1: "no valid update"}
    assert outcome.adapter.to_bytes() == adapter.to_bytes()


@pytest.mark.parametrize("wrong", [0.0, np.nan, np.inf])
def test_a_reference_without_a_direction_closes_the_bands(wrong: float) -> None:
    """Training on public examples that went nowhere, or to infinity, stops no run."""
    plan = make_plan(robustness={"filter": "fl-trust"})
    adapter = make_adapter(plan)

    outcome = defended_round(
        plan,
        adapter,
        InMemory(make_participants(plan)),
        reference=lambda before, _: (before.rows + np.float32(wrong)).astype(np.float32),
    )

    assert outcome.aborted == ""
    assert set(outcome.refused_bands.values()) == {"the reference of fl-trust has no direction"}
    assert outcome.adapter.to_bytes() == adapter.to_bytes()


def test_a_weight_counts_at_most_twice_the_median() -> None:
    """One client with a hundred times the examples of the others weighs as two of them."""
    plan = make_plan(
        robustness={"filter": "norm-bound", "bound": 1e6},
        tiers={"all": {"rank": 1, "clients": 5}},
        weights="examples",
        examples_cap=1000,
        least_weight=0.01,
    )
    adapter = make_adapter(plan)
    participants = make_participants(plan, examples=10)
    participants["all-03"] = make_participants(plan, examples=1000)["all-03"]

    outcome = defended_round(plan, adapter, InMemory(participants))

    assert outcome.judged is not None
    weight = plan.quantizer.round_weight(0.01)
    assert outcome.judged.totals[0].weight == pytest.approx(6 * weight)


# --- drop-outs and interruptions ---


@pytest.mark.parametrize("name", ["tier-dnc-cosine", "trimmed-mean"])
def test_drop_outs_are_not_judged(name: str) -> None:
    """Who sent nothing has no verdict, and a band that they leave below its quorum stays closed."""
    plan = make_plan(robustness={"filter": name})
    adapter = make_adapter(plan)
    gone = ("large-01", "large-02", "large-03")
    exchange = InMemory(make_participants(plan), silent_from=dict.fromkeys(gone, "upload"))

    outcome = defended_round(plan, adapter, exchange)

    assert outcome.judged is not None
    assert set(outcome.judged.verdicts) == set(plan.ranks) - set(gone)
    needed = 4 if name == "tier-dnc-cosine" else 3
    assert outcome.refused_bands[1] == f"2 holders, {needed} needed against f=1"
    assert outcome.adapter.rows[1:].tobytes() == adapter.rows[1:].tobytes()


def test_a_band_without_any_holder_left_is_named() -> None:
    """The filter sees nothing of it, and it is closed all the same."""
    tiers = {"large": {"rank": 3, "clients": 3}, "small": {"rank": 1, "clients": 7}}
    plan = make_plan(robustness={"filter": "trimmed-mean"}, tiers=tiers)
    adapter = make_adapter(plan)
    silent = {name: "upload" for name, rank in plan.ranks.items() if rank == 3}

    outcome = defended_round(plan, adapter, InMemory(make_participants(plan), silent_from=silent))

    assert outcome.holders == {0: 7}
    assert outcome.refused_bands == {1: "0 surviving holders, quorum 3"}
    assert outcome.adapter.rows[1:].tobytes() == adapter.rows[1:].tobytes()


class Run:
    """A run with a filter or groups, that can stop after any of its rounds."""

    def __init__(
        self, path: Path, *, rounds: int = 4, train: Mapping[ClientId, Any] | None = None, **changes: Any
    ) -> None:
        self.plan = make_plan(rounds=rounds, **changes)
        self.folder = RunFolder.create(path, self.plan.config)
        self.train = train
        self.path = path

    def go(self, *, until: int | None = None) -> list[bytes]:
        """Every line of metrics, and last the bytes of the adapter."""
        previous_step = PreviousStep(self.plan)
        seen = 0

        def stop(_record: Any, _seconds: Any) -> None:
            nonlocal seen
            seen += 1
            if seen == until:
                raise KeyboardInterrupt

        coordinator = Coordinator(
            plan=self.plan,
            secure_sum=server_sum(self.plan),
            folder=self.folder,
            exchange=InMemory(make_participants(self.plan, train=self.train)),
            evaluate=lambda adapter: (float(np.tanh(abs(adapter.rows).mean())), 1.0),
            stopwatch=Stopwatch(),
            observers=[previous_step, WhenSaved(stop)],
            defence=Defence.of(self.plan, previous_step),
        )
        previous_step.recall([coordinator.initial_adapter(), *self.folder.adapters(self.plan)])
        progress = coordinator.run(self.folder.load(self.plan))
        assert progress.adapter is not None
        lines = (self.path / "metrics.jsonl").read_bytes().splitlines()
        return [*lines, progress.adapter.to_bytes()]


DEFENCES: list[dict[str, Any]] = [
    {"robustness": {"filter": "tier-dnc-cosine"}},
    {"robustness": {"filter": "centered-clipping", "radius": 0.01}},
    {"robustness": {"filter": "trimmed-mean", "pre_step": "bucketing"}},
    {
        "robustness": {"group_size": 3, "f": 1},
        "secure_sum": "masking",
        "masking": {"profile": "semi-honest"},
        "tiers": {"all": {"rank": 2, "clients": 9}},
    },
]


@pytest.mark.parametrize("defence", DEFENCES)
@pytest.mark.parametrize("stopped", [1, 2, 3])
def test_a_resumed_run_ends_in_the_bytes_of_one_that_was_left_alone(
    tmp_path: Path, defence: dict[str, Any], stopped: int
) -> None:
    """Metrics and adapter: the last step is known again, and with it what is judged by it."""
    whole = Run(tmp_path / "whole", **defence).go()
    parts = Run(tmp_path / "parts", **defence)
    with pytest.raises(KeyboardInterrupt):
        parts.go(until=stopped)

    resumed = parts.go()

    assert len(resumed) == 5
    assert resumed == whole


def test_the_last_step_reaches_the_filter(tmp_path: Path) -> None:
    """From round 2 on the cosine to it decides: a client that turns round is rejected every time."""

    def steady(adapter: Adapter, seed: int) -> Rows:
        return (drift(adapter, seed) + np.float32(0.02)).astype(np.float32)

    def turned(adapter: Adapter, seed: int) -> Rows:
        return (2 * adapter.rows - steady(adapter, seed)).astype(np.float32)

    run = Run(
        tmp_path / "run",
        rounds=4,
        robustness={"filter": "cosine-to-previous"},
        train={**dict.fromkeys(federations.make_plan(tiers=TIERS).ranks, steady), "large-02": turned},
    )

    run.go()

    records = run.folder.load(run.plan).records
    assert [sorted(record.rejected) for record in records] == [[], *[["large-02"]] * 3]


def test_a_conversation_shows_inputs_to_filters_alone() -> None:
    """Without a filter nothing but sums is kept, also in the clear."""
    for name, kept in (("none", 0), ("trimmed-mean", 10)):
        plan = make_plan(robustness={"filter": name})
        session_server = open_round(plan)
        exchange = InMemory(make_participants(plan))
        prepare_round(session_server, exchange)
        results: list[Any] = []
        opened = session_server.result

        def noted(adapter: Adapter, opened: Any = opened, results: list[Any] = results) -> Any:
            results.append(opened(adapter))
            return results[-1]

        session_server.result = noted  # type: ignore[method-assign]
        run_round(
            plan, session_server, make_adapter(plan), exchange, defence=Defence.of(plan, PreviousStep(plan))
        )

        assert len(results[0].inputs) == kept


def test_an_unfiltered_plan_has_no_filtering() -> None:
    """The quorum alone is the secure sum's to keep."""
    plan = make_plan(robustness={"f": 1})

    assert Defence.of(plan, PreviousStep(plan)) is None
