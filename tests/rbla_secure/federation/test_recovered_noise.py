"""Missing noise made good exactly, through the whole protocol: scales, ledger, secrets, refusals, and planted faults."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from protocols.masking.terms import MaskingTerms
from protocols.primitives.prg import UniformStream
from protocols.primitives.secret import Secret
from protocols.session import ClientId, Segment, Session
from rbla_secure.federation.client import participant
from rbla_secure.federation.coordinator import Coordinator
from rbla_secure.federation.noise_components import Seeds, add_components, component_seeds, remove_components
from rbla_secure.federation.noise_shares import noise_key
from rbla_secure.federation.round import RoundOutcome
from rbla_secure.federation.server import opened_totals
from rbla_secure.federation.server.spending import seen_by
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.forecast import forecast
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.accounting import epsilon, noise_multiplier_for
from rbla_secure.privacy.ledger import Ledger, Observer
from rbla_secure.privacy.noise import GaussianMechanism
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.stopwatch import Stopwatch
from tests.rbla_secure.federation.recovering import (
    LAYOUT,
    Integers,
    Watch,
    make_plan,
    mechanism_of,
    play,
    still,
)
from tests.support.federations import (
    InMemory,
    make_participants,
    make_session,
)
from tests.support.identities import server_sum
from tests.support.noise_law import has_std

PROFILES = ("semi-honest", "consistency")


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

    def too_many(terms: MaskingTerms, segment: Segment, survivors: Any) -> range:
        missing = sum(terms.session.position(client) not in survivors for client in segment.members)
        return range(max(0, missing - 1), segment.extra_secrets)

    monkeypatch.setattr(MaskingTerms, "given_out", too_many)
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
