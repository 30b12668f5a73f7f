"""Missing noise made good exactly, through the whole protocol: scales, ledger, secrets, refusals, and planted faults."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from protocols.errors import InputError
from protocols.masking.terms import Terms
from protocols.plain import Plain
from protocols.primitives.prg import UniformStream
from protocols.primitives.secret import Secret
from protocols.session import ClientId, ExtraReveal, Segment, Session
from rbla_secure.errors import PlanError
from rbla_secure.federation.client import participant
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.coordinator import Coordinator
from rbla_secure.federation.exchange import Answer
from rbla_secure.federation.messages import StageRefusal, StageRequest, decode_answer
from rbla_secure.federation.noise_components import Seeds, add_components, component_seeds, remove_components
from rbla_secure.federation.noise_shares import noise_key
from rbla_secure.federation.round import RoundOutcome
from rbla_secure.federation.server import opened_totals
from rbla_secure.federation.server.spending import seen_by
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.planning.forecast import forecast
from rbla_secure.planning.modes import build_secure_sum
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.accounting import epsilon, noise_multiplier_for
from rbla_secure.privacy.ledger import Ledger, Observer
from rbla_secure.privacy.noise import GaussianMechanism
from rbla_secure.privacy.shares import BandShares
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.stopwatch import Stopwatch
from tests.support.federations import (
    BASE,
    InMemory,
    beginning_with,
    make_adapter,
    make_config,
    make_participants,
    make_session,
    play_round,
)
from tests.support.identities import server_sum
from tests.support.noise_law import has_std
from tests.support.updates import make_layout

# Wide enough for a band's noise to tell its variance from 2/3, 3/2 and 8/9 of it.
LAYOUT = make_layout((15_000, 10_000))
# Band 0 has nine uploaders, band 1 four of them: two and one of them are made good.
TIERS = {"large": {"rank": 2, "clients": 4}, "small": {"rank": 1, "clients": 5}}
RECOVERED = 0.25
PROFILES = ("semi-honest", "consistency")
Integers = Mapping[int, npt.NDArray[np.int64]]


def make_plan(
    profile: str = "semi-honest",
    *,
    privacy: Mapping[str, Any] | None = None,
    recovered: float = RECOVERED,
    **changes: Any,
) -> Plan:
    config = make_config(
        **{
            "tiers": TIERS,
            "secure_sum": "masking",
            "masking": {"profile": profile},
            "noise_multiplier": 1.5,
            "min_holders": 2,
            "privacy": {
                "colluders": 0,
                "simulation": True,
                "recovered_dropout": recovered,
                **(privacy or {}),
            },
            **changes,
        }
    )
    plan = Plan.build(config, layout=LAYOUT, base_digest=BASE)
    return beginning_with(plan, make_adapter(plan))


def mechanism_of(plan: Plan) -> GaussianMechanism:
    assert plan.mechanism is not None
    return plan.mechanism


def still(adapter: Adapter, _seed: int) -> Rows:
    """Training that changes nothing: what comes out is noise."""
    return adapter.rows.copy()


def play(plan: Plan, **network: Any) -> tuple[Adapter, RoundOutcome]:
    adapter = make_adapter(plan)
    exchange = InMemory(make_participants(plan, train=dict.fromkeys(plan.ranks, still)), **network)
    return adapter, play_round(plan, adapter, exchange)


def noise_in(plan: Plan, before: Adapter, outcome: RoundOutcome, band: int) -> npt.NDArray[np.float64]:
    """The integers that the noise added to the sum of a band, read off the averaged row."""
    moved = (outcome.adapter.rows.astype(np.float64) - before.rows)[band]
    return np.asarray(moved * plan.quantizer.scale * outcome.holders[band])


def is_target(plan: Plan, noise: npt.NDArray[np.float64], share: float = 1.0) -> bool:
    """Whether noise has this share of the target's variance."""
    return has_std(noise, math.sqrt(mechanism_of(plan).variance() * share))


# Who falls silent at which stage, and how many are missing then in either band.
GONE: dict[str, tuple[dict[ClientId, str], int, int]] = {
    "nobody": ({}, 0, 0),
    "one, of the thin band too": ({"large-01": "mask_input"}, 1, 1),
    "one before its keys": ({"small-01": "advertise_keys"}, 1, 0),
    "as many as are made good": ({"large-02": "share_keys", "small-05": "mask_input"}, 2, 1),
    "two that have given their input": ({"large-01": "reveal_shares", "small-01": "reveal_shares"}, 0, 0),
    "one that signs no survivors, where they are signed": ({"large-02": "agree_survivors"}, 0, 0),
    "one before its input, one after it": ({"small-02": "mask_input", "large-03": "reveal_shares"}, 1, 0),
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("case", GONE)
def test_up_to_the_bound_the_noise_is_what_was_planned(profile: str, case: str) -> None:
    """Whoever drops out, before or after its input: in both bands the variance is accepted, two thirds and three halves not."""
    silent, *missing = GONE[case]
    plan = make_plan(profile)

    before, outcome = play(plan, silent_from=silent)

    assert outcome.aborted == ""
    assert len(outcome.survivors) == 9 - missing[0]
    for band in (0, 1):
        noise = noise_in(plan, before, outcome, band)
        assert [is_target(plan, noise, share) for share in (2 / 3, 1, 3 / 2)] == [False, True, False]
    spent = seen_by(plan, make_session(plan), mechanism_of(plan), outcome.survivors)
    assert spent[Observer.COALITION].noise_multiplier == pytest.approx(1.5, rel=1e-6)


@pytest.mark.parametrize("profile", PROFILES)
def test_beyond_the_bound_what_stays_is_what_is_counted(profile: str) -> None:
    """Two of four are missing where one is made good: nothing is removed, two thirds are left, and the ledger says so."""
    plan = make_plan(profile)

    before, outcome = play(plan, silent_from={"large-01": "mask_input", "large-04": "mask_input"})

    thin = noise_in(plan, before, outcome, 1)
    assert is_target(plan, noise_in(plan, before, outcome, 0))
    assert is_target(plan, thin, 2 / 3)
    assert not is_target(plan, thin)
    spent = seen_by(plan, make_session(plan), mechanism_of(plan), outcome.survivors)
    assert spent[Observer.COALITION].noise_multiplier == pytest.approx(1.5 * math.sqrt(2 / 3), rel=1e-6)


@pytest.mark.parametrize(("silent", "share"), [("", 9 / 8), ("small-01", 8 / 7), ("small-02", 8 / 7)])
def test_a_colluders_noise_is_not_counted(silent: str, share: float) -> None:
    """With one client known to the server, the eight others have the target; everybody has more, as readers see."""
    plan = make_plan(privacy={"colluders": 1})

    before, outcome = play(plan, silent_from={silent: "mask_input"} if silent else {})

    assert is_target(plan, noise_in(plan, before, outcome, 0), share)
    spent = seen_by(plan, make_session(plan), mechanism_of(plan), outcome.survivors)
    assert spent[Observer.COALITION].noise_multiplier == pytest.approx(1.5, rel=1e-6)
    assert spent[Observer.PUBLIC].noise_multiplier == pytest.approx(1.5 * math.sqrt(share), rel=1e-6)


def test_padded_uploads_count_everybody_as_missing_or_not() -> None:
    """Where everyone uploads every band, the bound and the missing are those of the cohort."""
    plan = make_plan(upload="padded")

    before, outcome = play(plan, silent_from={"small-01": "mask_input", "large-01": "mask_input"})

    assert [segment.extra_secrets for segment in make_session(plan).segments] == [2, 2]
    for band in (0, 1):
        assert is_target(plan, noise_in(plan, before, outcome, band))


def test_the_count_of_adaptive_clipping_is_made_good_too() -> None:
    """It is one more coordinate of band 0, noised and freed of noise like the others."""
    plan = make_plan(privacy={"clipping": "adaptive", "count_noise": 1.0}, noise_multiplier=0.5)

    before, outcome = play(plan, silent_from={"small-01": "mask_input"})

    mechanism = replace(mechanism_of(plan), clip_norm=plan.clip_norm_of(make_session(plan)))
    assert has_std(noise_in(plan, before, outcome, 0), math.sqrt(mechanism.variance()))
    assert outcome.unclipped is not None


class Watch:
    """What the server takes out of the sums, and from what."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.revealed: Mapping[tuple[ClientId, int, int], bytes] = {}
        self.before: Integers = {}
        self.after: Integers = {}
        self.calls = 0
        monkeypatch.setattr(opened_totals, "remove_components", self._remove)

    def _remove(self, sums: Integers, mechanism: GaussianMechanism, revealed: Any) -> Integers:
        self.calls += 1
        self.before, self.revealed = sums, revealed
        self.after = remove_components(sums, mechanism, revealed)
        return self.after


@pytest.mark.parametrize("profile", PROFILES)
def test_what_is_released_is_the_kept_components_to_the_bit(
    profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sum after removal is exactly the components that stay, and the server learns the seeds of no others."""
    watch, plan = Watch(monkeypatch), make_plan(profile)
    session = make_session(plan)

    play(plan, silent_from={"large-01": "mask_input"})

    survivors = [client for client in session.members if client != "large-01"]
    assert set(watch.revealed) == {(client, 0, 1) for client in survivors}
    expected = {s.index: np.zeros(s.length, dtype=np.int64) for s in session.segments}
    for client in survivors:
        blank = {s.index: np.zeros(s.length, dtype=np.int64) for s in session.segments_of(client)}
        own = mechanism_of(plan).add_noise(blank, UniformStream(noise_key(plan, session, client)))
        kept = _components(plan, session, client, numbers=[0])
        for index in blank:
            expected[index] += own[index] + kept.get(index, 0)
    assert all(np.array_equal(watch.after[index], expected[index]) for index in expected)
    assert not np.array_equal(watch.before[0], watch.after[0])


def _components(
    plan: Plan, session: Session, client: ClientId, *, numbers: Sequence[int]
) -> dict[int, npt.NDArray[np.int64]]:
    """The removable components of these numbers, taken off zeros and turned around."""
    revealed = {
        (client, index, number): seeds[number]
        for index, seeds in component_seeds(plan, session, client).items()
        for number in numbers
        if number < len(seeds)
    }
    blank = {s.index: np.zeros(s.length, dtype=np.int64) for s in session.segments_of(client)}
    return {
        index: -values for index, values in remove_components(blank, mechanism_of(plan), revealed).items()
    }


def test_removal_undoes_addition_exactly() -> None:
    """All components added and all removed leave the integers as they were; seeds too few or too many are an error."""
    plan = make_plan()
    session, mechanism = make_session(plan), mechanism_of(plan)
    integers = {0: np.arange(LAYOUT.row_length), 1: -np.arange(LAYOUT.row_length)}
    seeds = component_seeds(plan, session, "large-01")

    noisy = add_components(integers, mechanism, seeds)
    revealed = {("large-01", index, i): seed for index, own in seeds.items() for i, seed in enumerate(own)}

    assert {index: len(own) for index, own in seeds.items()} == {0: 2, 1: 1}
    assert (noisy[0] != integers[0]).mean() > 0.99
    assert len(set(revealed.values())) == 3
    restored = remove_components(noisy, mechanism, revealed)
    assert all(np.array_equal(restored[index], integers[index]) for index in integers)
    with pytest.raises(ValueError, match="zip"):
        add_components(integers, mechanism, {0: seeds[0]})
    with pytest.raises(ValueError, match="zip"):
        add_components(integers, mechanism, {0: seeds[0], 1: (*seeds[1], *seeds[1])})


def test_a_session_that_aborts_gives_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the threshold no seed is revealed, no sum is opened and the adapter stays."""
    watch, plan = Watch(monkeypatch), make_plan()

    before, outcome = play(plan, silent_from=dict.fromkeys(list(plan.ranks)[:5], "reveal_shares"))

    assert outcome.aborted
    assert watch.calls == 0
    assert outcome.adapter.digest() == before.digest()


def test_the_seeds_of_a_closed_band_stay_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A band below its quorum is not opened, and nothing of its noise is given out."""
    watch, plan = Watch(monkeypatch), make_plan(min_holders=4)

    _, outcome = play(plan, silent_from={"large-01": "mask_input"})

    assert list(outcome.refused_bands) == [1]
    assert {index for _, index, _ in watch.revealed} == {0}


# --- planted faults ---


def test_a_server_that_removes_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: all components stay. The noise is nine sevenths and four thirds of the target, and the scale test says no."""

    def keep(sums: Integers, _mechanism: object, _revealed: object) -> Integers:
        return dict(sums)

    monkeypatch.setattr(opened_totals, "remove_components", keep)
    plan = make_plan()

    before, outcome = play(plan)

    for band, share in ((0, 9 / 7), (1, 4 / 3)):
        assert not is_target(plan, noise_in(plan, before, outcome, band))
        assert is_target(plan, noise_in(plan, before, outcome, band), share)


def test_one_component_too_many_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the rule counts one missing client too few. Eight ninths of the target are left, and the scale test says no."""

    def too_many(terms: Terms, segment: Segment, survivors: Any) -> range:
        missing = sum(terms.session.position(client) not in survivors for client in segment.members)
        return range(max(0, missing - 1), segment.extra_secrets)

    monkeypatch.setattr(Terms, "given_out", too_many)
    plan = make_plan()

    before, outcome = play(plan, silent_from={"small-01": "mask_input"})

    assert not is_target(plan, noise_in(plan, before, outcome, 0))
    assert is_target(plan, noise_in(plan, before, outcome, 0), 8 / 9)


def test_a_client_that_adds_other_noise_than_it_shares_is_not_a_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may share seeds of noise that it did not add: what the server subtracts is noise too, never less of it."""

    def foreign(plan: Plan, session: Session, client: ClientId) -> Seeds:
        seeds = component_seeds(plan, session, client)
        return seeds if client != "small-01" else {0: tuple(Secret(bytes([i] * 32)) for i in range(2))}

    monkeypatch.setattr(participant, "component_seeds", foreign)
    honest = component_seeds(make_plan(), make_session(make_plan()), "small-01")

    def adding(integers: Integers, mechanism: GaussianMechanism, seeds: Seeds) -> Integers:
        own = honest if seeds.get(0, (b"",))[0] == bytes(32) else seeds
        return add_components(integers, mechanism, own)

    monkeypatch.setattr("rbla_secure.federation.client.contribution.add_components", adding)
    plan = make_plan()

    before, outcome = play(plan)

    # Its two components stay, and two others are added: 2 (1/7 - 1/9) of the target.
    assert is_target(plan, noise_in(plan, before, outcome, 0), 1 + 2 * (1 / 7 - 1 / 9))


# --- what it spends ---


DROPOUTS = {0.0: 8.00, 0.05: 8.25, 0.1: 8.53, 0.2: 9.16, 0.3: 9.94}


def spent_by(plan: Plan, share: float) -> float:
    """Epsilon against the server after fifty rounds in each of which this share of the cohort is missing."""
    session = make_session(plan)
    left = session.members[round(share * len(session.members)) :]
    mechanism = plan.mechanism_of(session)
    assert mechanism is not None
    return epsilon([seen_by(plan, session, mechanism, left)[Observer.COALITION]] * 50, 1e-5)


def cohort_plan(recovered: float, *, colluders: int = 0) -> Plan:
    """Forty equal clients, epsilon 8 after fifty rounds."""
    return make_plan(
        tiers={"all": {"rank": 1, "clients": 40}},
        noise_multiplier=noise_multiplier_for(8.0, delta=1e-5, releases=50),
        privacy={"colluders": colluders},
        recovered=recovered,
    )


@pytest.mark.parametrize(("share", "without"), DROPOUTS.items())
def test_drop_outs_cost_nothing_up_to_the_bound(share: float, without: float) -> None:
    """A target of 8 stays 8.00 with up to thirty percent missing, and would be what the table says otherwise."""
    assert f"{spent_by(cohort_plan(0.3), share):.2f}" == "8.00"
    assert f"{spent_by(cohort_plan(0.3, colluders=4), share):.2f}" == "8.00"
    assert spent_by(cohort_plan(0.0), share) == pytest.approx(without, abs=0.0051)


def test_the_table_of_the_privacy_page_is_this_one() -> None:
    """Row by row, as it is printed."""
    page = (Path(__file__).parents[3] / "docs" / "privacy-analysis.md").read_text(encoding="utf-8")

    without = " | ".join(f"{value:.2f}" for value in DROPOUTS.values())
    assert f"| without recovery | {without} |\n" in page
    assert f"| `recovered-dropout = 0.3` |{' 8.00 |' * len(DROPOUTS)}\n" in page


def test_beyond_the_bound_the_larger_value_is_counted() -> None:
    """Half of forty missing where four are made good: what twenty keep of shares for thirty-six."""
    plan = cohort_plan(0.1)
    multiplier = plan.config.noise_multiplier * math.sqrt(20 / 36)

    spent = spent_by(plan, 0.5)

    alone = noise_multiplier_for(spent, delta=1e-5, releases=50)
    assert alone == pytest.approx(multiplier, rel=1e-4)
    assert 8.5 < spent < spent_by(cohort_plan(0.0), 0.5)


class Run:
    """A run folder and its coordinator."""

    def __init__(self, path: Path, **changes: Any) -> None:
        self.plan = make_plan(rounds=2, **changes)
        self.folder = RunFolder.create(path, self.plan.config)

    def go(self, **network: Any) -> Ledger:
        everyone = make_participants(self.plan, train=dict.fromkeys(self.plan.ranks, still))
        Coordinator(
            plan=self.plan,
            secure_sum=server_sum(self.plan),
            folder=self.folder,
            exchange=InMemory(everyone, **network),
            evaluate=lambda _: (0.5, 1.0),
            stopwatch=Stopwatch(),
        ).run(self.folder.load(self.plan))
        return Ledger.read(self.folder.path)


def test_the_ledger_of_a_run_is_that_of_one_without_drop_outs(tmp_path: Path) -> None:
    """With one client missing in each round; without recovery the same run spends more, and its terms say which it was."""
    silent = {"large-01": "mask_input"}
    whole = Run(tmp_path / "whole").go()
    made_good = Run(tmp_path / "good").go(silent_from=silent)
    short = Run(tmp_path / "short", recovered=0.0).go(silent_from=silent)

    spent = [ledger.epsilon(Observer.COALITION) for ledger in (whole, made_good, short)]

    assert spent[1] == pytest.approx(spent[0], rel=1e-6)  # another number of components, another slack
    assert spent[2] > 1.05 * spent[0]
    assert [ledger.terms.recovered for ledger in (made_good, short)] == [(2, 1), ()]
    assert "large-01" not in made_good.entries[0].clients


def test_a_forecast_says_what_is_made_good() -> None:
    """Per band, with the bound, and which band is too small for it."""
    found = forecast(make_plan(), mechanism_of(make_plan()))
    small = make_plan(recovered=0.2)

    text = " ".join(found.assumptions)
    assert "2 of 9 in rows 1-1, 1 of 4 in rows 2-2" in text
    assert "makes good not one client of rows 2-2: 1/4 or more would" in " ".join(
        forecast(small, mechanism_of(small)).advice
    )
    assert not any("makes good" in line for line in found.advice)


# --- terms and secrets ---


def test_the_session_has_room_for_the_seeds() -> None:
    """As many secrets as drop-outs are made good, under the rule that gives out those that are not needed."""
    segments = make_session(make_plan(recovered=0.2)).segments

    assert [(s.extra_secrets, s.extra_reveal) for s in segments] == [
        (1, ExtraReveal.BEYOND_MISSING),
        (0, ExtraReveal.NOTHING),
    ]
    assert make_plan(recovered=0.2).mechanism != make_plan(recovered=0.25).mechanism


@pytest.mark.parametrize("changes", [{"extra_secrets": 1}, {"extra_reveal": ExtraReveal.NOTHING}])
def test_a_client_refuses_other_terms_of_removal(changes: dict[str, Any]) -> None:
    """How much noise can be removed is in the client's own plan."""
    plan = make_plan()
    session = make_session(plan)
    first, *others = session.segments
    bent = replace(session, segments=(replace(first, **changes), *others))
    asked = StageRequest(session=bent.to_bytes(), payload=b"", adapter=b"").to_bytes()

    answer = decode_answer(make_participants(plan)["small-01"].handle(asked))

    assert isinstance(answer, StageRefusal)
    assert "not the plan's" in answer.reason


def test_seeds_travel_under_masking_alone() -> None:
    """A participant whose secure sum does not share seeds refuses the session."""
    plan = make_plan()
    me = Participant("small-01", plan=plan, secure_sum=Plain(), train=still, examples=1)
    asked = StageRequest(session=make_session(plan).to_bytes(), payload=b"", adapter=b"").to_bytes()

    answer = decode_answer(me.handle(asked))

    assert isinstance(answer, StageRefusal)
    assert "secure sum plain shares no extra secrets" in answer.reason


def test_seeds_come_from_the_system_and_do_not_print() -> None:
    """Fresh in every session, of the seed only in simulations, and not in any text form."""
    real, simulated = make_plan(privacy={"simulation": False}), make_plan()
    session = make_session(real)

    drawn = [component_seeds(real, session, "large-01") for _ in range(3)]
    again = [component_seeds(simulated, make_session(simulated), "large-01") for _ in range(3)]

    assert len({seed for seeds in drawn for own in seeds.values() for seed in own}) == 9
    assert len({seed for seeds in again for own in seeds.values() for seed in own}) == 3
    assert again[0] != component_seeds(simulated, make_session(simulated, round_number=2), "large-01")
    assert "<Secret of 32 bytes>" in repr(drawn[0])
    assert not _shows(repr(drawn[0]).encode(), drawn[0])
    assert _shows(bytes(drawn[0][1][0]).hex().encode(), drawn[0])


def test_seeds_are_dropped_with_the_input_and_appear_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept from the keys to the input; never printed by their holder, never in a file of the run."""
    made: list[Seeds] = []
    held: list[bool] = []
    everyone: list[Participant] = []

    def watched(plan: Plan, session: Session, client: ClientId) -> Seeds:
        made.append(component_seeds(plan, session, client))
        return made[-1]

    class Watched(InMemory):
        def send(self, messages: Any) -> Any:
            yield from super().send(messages)
            for one in everyone:
                text = repr(one._open) + repr(vars(one))
                assert not any(_shows(text.encode(), seeds) for seeds in made)
                held.extend(opened.seeds is not None for opened in one._open.values())

    monkeypatch.setattr(participant, "component_seeds", watched)
    plan = make_plan(rounds=2, privacy={"simulation": False})
    folder = RunFolder.create(tmp_path / "run", plan.config)
    exchange = Watched(make_participants(plan, train=dict.fromkeys(plan.ranks, still)))
    everyone += exchange._participants.values()
    Coordinator(
        plan=plan,
        secure_sum=server_sum(plan),
        folder=folder,
        exchange=exchange,
        evaluate=lambda _: (0.5, 1.0),
        stopwatch=Stopwatch(),
    ).run(folder.load(plan))

    assert len(made) == 18
    assert set(held) == {True, False}
    assert all(opened.seeds is None for one in everyone for opened in one._open.values())
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(_shows(data, seeds) for seeds in made)
    for one in everyone:
        one.end()
        assert one._open == {}


def _shows(data: bytes, seeds: Seeds) -> bool:
    """Whether a seed is in some bytes, plain, in hexadecimal digits, in base 64 or as Python shows bytes."""
    return any(
        form in data
        for own in seeds.values()
        for seed in own
        for form in (
            bytes(seed),
            bytes(seed).hex().encode(),
            base64.b64encode(seed)[:40],
            bytes.__repr__(seed)[2:-1].encode(),
        )
    )


def test_an_input_is_repeated_without_its_seeds() -> None:
    """The request of the input, sent again after the reveal, gets the identical answer; nothing is trained for it."""
    plan = make_plan()
    trained: list[int] = []

    def train(adapter: Adapter, seed: int) -> Rows:
        trained.append(seed)
        return adapter.rows.copy()

    participants = make_participants(plan, train=dict.fromkeys(plan.ranks, train))
    answers: list[bytes] = []

    def keep(client: ClientId, parcel: Any) -> list[Any]:
        if (client, parcel.stage) == ("small-01", "mask_input"):
            answers.append(parcel.data)
        return [Answer(client=client, parcel=parcel)]

    exchange = InMemory(participants, answers=keep)
    play_round(plan, make_adapter(plan), exchange)
    (asked,) = [data for stage, name, data in exchange.seen if (stage, name) == ("mask_input", "small-01")]

    again = participants["small-01"].handle(asked)

    assert again == answers[0]
    assert len(trained) == 9


def test_a_secure_sum_wants_every_seed() -> None:
    """Fewer seeds than the segment has room for are refused where the client's side of the session is made."""
    plan = make_plan()
    session = make_session(plan)
    seeds = component_seeds(plan, session, "large-01")

    with pytest.raises(InputError, match="1 extra secrets must be 2"):
        build_secure_sum(plan).client(session, "large-01", extra_secrets={**seeds, 0: seeds[0][:1]})


# --- refusals ---


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"privacy": {"mechanism": "central"}},
        "privacy.recovered-dropout=0.25 needs privacy.mechanism=distributed, not central",
    ),
    ({"secure_sum": "plain"}, "privacy.recovered-dropout=0.25 needs secure-sum=masking, not plain"),
    (
        {"secure_sum": "homomorphic"},
        "privacy.recovered-dropout=0.25 needs secure-sum=masking, not homomorphic",
    ),
    (
        {"profile": "one-answer"},
        "privacy.recovered-dropout=0.25 needs masking.profile=consistency or semi-honest, not one-answer",
    ),
    (
        {"privacy": {"expected_dropout": 0.1}},
        "privacy.recovered-dropout=0.25 needs privacy.expected-dropout=0, not 0.1",
    ),
    ({"noise_multiplier": 0.0}, "privacy.recovered-dropout=0.25 must be 0 without noise-multiplier above 0"),
    (
        {"recovered": 0.99},
        "makes good 8 of the 9 uploaders of rows 1-1, and must be fewer than the 8 whose noise the server does not know",
    ),
    ({"recovered": 0.05}, "makes good not one client of any band: it must be 0, or at least 1/9"),
    (
        {"tiers": {"all": {"rank": 1, "clients": 600}}, "recovered": 0.5},
        "makes good 300 of the 600 uploaders of rows 1-1, and at most 255 can be: use 0.425 or less",
    ),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_cannot_be_made_good_is_refused(changes: dict[str, Any], message: str) -> None:
    """Before anything is trained, with the argument, its value, the rule and what to do."""
    known = {"colluders": 1} if changes.get("recovered") == 0.99 else {}
    changes = {**changes, "privacy": {**changes.get("privacy", {}), **known}}

    with pytest.raises(PlanError) as refusal:
        make_plan(**changes)

    assert message in str(refusal.value)


def test_the_share_is_taken_as_it_is_written() -> None:
    """0.29 of a hundred uploaders are twenty-nine, although 0.29 * 100 is less in floating point."""
    plan = make_plan(tiers={"all": {"rank": 1, "clients": 100}}, recovered=0.29)

    assert mechanism_of(plan).bands == (
        BandShares(length=LAYOUT.row_length, uploaders=100, counted=100, recovered=29),
    )
