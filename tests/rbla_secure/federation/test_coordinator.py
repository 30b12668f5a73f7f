"""The coordinator makes every round durable, stops by name after too many aborted ones, and goes on where it was."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import pytest

from protocols.session import ClientId
from rbla_secure.errors import AbortedRunError
from rbla_secure.federation.coordinator import Coordinator
from rbla_secure.federation.exchange import Answer, Exchange, Parcel
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.cohort import sample_cohort
from rbla_secure.planning.plan import Plan
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.run_folder.records import RoundRecord, RoundSeconds
from rbla_secure.stopwatch import Stopwatch
from tests.support.federations import BASE, LAYOUT, InMemory, WhenSaved, make_participants, make_plan
from tests.support.identities import server_sum


@final
class Outages(Exchange):
    """Nobody hears the requests of some rounds."""

    def __init__(self, plan: Plan, *rounds: int) -> None:
        self._inner = InMemory(make_participants(plan))
        self._rounds = rounds

    def send(self, messages: Mapping[ClientId, Sequence[Parcel]]) -> Iterator[Answer]:
        heard = {
            client: [parcel for parcel in parcels if parcel.round not in self._rounds]
            for client, parcels in messages.items()
        }
        yield from self._inner.send(heard)


class Run:
    """A run folder, and what was observed of its rounds."""

    def __init__(self, path: Path, **changes: Any) -> None:
        self.plan = make_plan(**changes)
        self.folder = RunFolder.create(path, self.plan.config)
        self.observed: list[RoundRecord] = []
        self.evaluated: list[str] = []

    def coordinator(self, *outages: int) -> Coordinator:
        def evaluate(adapter: Adapter) -> tuple[float, float]:
            self.evaluated.append(adapter.digest().hex())
            return 0.5, 1.5

        def observe(record: RoundRecord, seconds: RoundSeconds) -> None:
            assert seconds.round == record.round
            self.observed.append(record)

        return Coordinator(
            plan=self.plan,
            secure_sum=server_sum(self.plan),
            folder=self.folder,
            exchange=Outages(self.plan, *outages),
            evaluate=evaluate,
            stopwatch=Stopwatch(),
            observers=[WhenSaved(observe)],
        )

    def go_on(self, *outages: int) -> Any:
        """Run from what is durable; `outages` are rounds in which nobody answers."""
        return self.coordinator(*outages).run(self.folder.load(self.plan))


def test_a_run_does_its_rounds_and_writes_each_down(tmp_path: Path) -> None:
    """Every round is evaluated, observed and durable, and the result is the adapter after the last."""
    run = Run(tmp_path / "run", rounds=4)

    progress = run.go_on()

    durable = run.folder.load(run.plan)
    assert progress.round == durable.round == 4
    assert progress.records == durable.records == run.observed
    assert progress.timings == durable.timings
    assert progress.adapter.digest() == durable.adapter.digest()  # type: ignore[union-attr]
    assert [record.round for record in run.observed] == [1, 2, 3, 4]
    assert [record.adapter for record in run.observed] == run.evaluated
    assert len(set(run.evaluated)) == 4


def test_a_run_begins_with_one_seeded_adapter(tmp_path: Path) -> None:
    """All start from the same A, with B zero, at the largest rank."""
    run, again = Run(tmp_path / "one"), Run(tmp_path / "two")
    other = Run(tmp_path / "three", seed=1)

    plans = [Plan.build(each.plan.config, layout=LAYOUT, base_digest=BASE) for each in (run, again, other)]
    starts = [plan.initial_adapter for plan in plans]

    assert run.coordinator().initial_adapter() is run.plan.initial_adapter

    assert starts[0].digest() == starts[1].digest() != starts[2].digest()
    assert starts[0].rank == 3
    assert not starts[0].lora_B("layer1").any()


def test_every_round_has_the_cohort_of_its_number(tmp_path: Path) -> None:
    """Cohorts are drawn by the plan's seed and the round."""
    tiers = {"lab": {"rank": 2, "clients": 8, "cohort": 4}}
    run = Run(tmp_path / "run", tiers=tiers)

    run.go_on()

    assert [record.cohort for record in run.observed] == [
        list(sample_cohort(run.plan.config.tiers, seed=0, round_number=number))
        for number in range(1, run.plan.config.rounds + 1)
    ]


def test_aborted_rounds_change_nothing(tmp_path: Path) -> None:
    """An aborted round is written down, keeps the adapter, and the next one goes on from it."""
    run = Run(tmp_path / "run", rounds=5, max_aborted_rounds=3)

    run.go_on(2, 3)

    adapters = [record.adapter for record in run.observed]
    assert [bool(record.aborted) for record in run.observed] == [False, True, True, False, False]
    assert adapters[0] == adapters[1] == adapters[2] != adapters[3]


def test_too_many_aborted_rounds_in_a_row_end_the_run(tmp_path: Path) -> None:
    """After so many the run stops by name, says how to go on, and its rounds so far are durable."""
    run = Run(tmp_path / "run", rounds=9, max_aborted_rounds=3)

    with pytest.raises(AbortedRunError) as stop:
        run.go_on(2, 3, 4, 5, 6)

    assert "3 rounds in a row were aborted, max-aborted-rounds=3" in str(stop.value)
    assert "0 of 6 clients answered" in str(stop.value)
    assert f"rbla-secure resume {tmp_path / 'run'}" in str(stop.value)
    durable = run.folder.load(run.plan)
    assert durable.round == 4
    assert [bool(record.aborted) for record in durable.records] == [False, True, True, True]


def test_aborted_rounds_count_only_in_a_row(tmp_path: Path) -> None:
    """A round with a result starts the count anew."""
    run = Run(tmp_path / "run", rounds=8, max_aborted_rounds=3)

    progress = run.go_on(1, 2, 4, 5, 7, 8)

    assert progress.round == 8


def test_a_run_that_stopped_itself_can_be_tried_again(tmp_path: Path) -> None:
    """Whoever resumes it gets as many rounds more before it stops again, and may well reach the end."""
    run = Run(tmp_path / "run", rounds=8, max_aborted_rounds=2)
    with pytest.raises(AbortedRunError):
        run.go_on(1, 2, 3, 4)

    with pytest.raises(AbortedRunError, match="2 rounds in a row"):
        run.go_on(3, 4)
    progress = run.go_on()

    assert progress.round == 8
    assert [bool(record.aborted) for record in progress.records] == [True] * 4 + [False] * 4


class KilledError(Exception):
    """Stands for the end of the process."""


def test_the_count_survives_an_interruption(tmp_path: Path) -> None:
    """Aborted rounds before a crash count together with those after it."""
    run = Run(tmp_path / "run", rounds=9, max_aborted_rounds=3)
    killed = run.coordinator(1, 2)

    def kill(record: RoundRecord, _seconds: RoundSeconds) -> None:
        if record.round == 2:
            raise KilledError

    with pytest.raises(KilledError):
        replace(killed, observers=[WhenSaved(kill)]).run(run.folder.load(run.plan))

    with pytest.raises(AbortedRunError, match="3 rounds in a row"):
        run.go_on(3)
    assert run.folder.load(run.plan).round == 3


def test_a_finished_run_has_nothing_left(tmp_path: Path) -> None:
    """Going on after the last round changes nothing and asks nobody."""
    run = Run(tmp_path / "run")
    first = run.go_on()

    again = run.go_on(1, 2, 3)

    assert again.records == first.records
    assert again.adapter.digest() == first.adapter.digest()
    assert len(run.observed) == run.plan.config.rounds


def test_the_seconds_of_rounds_add_up(tmp_path: Path) -> None:
    """Everything that was measured as rounds stands in some round's line: nothing is lost between them."""
    run = Run(tmp_path / "run", secure_sum="masking")
    coordinator = run.coordinator()

    progress = coordinator.run(run.folder.load(run.plan))

    listed = sum((line.protocol or 0.0) + (line.training or 0.0) for line in progress.timings)
    assert listed == pytest.approx(coordinator.stopwatch.seconds("round"), rel=0.01)


@pytest.mark.parametrize("noisy", [False, True])
def test_under_noise_no_seconds_are_told_that_data_or_noise_make_longer(
    tmp_path: Path, *, noisy: bool
) -> None:
    """How long training took tells of examples, how long drawing took of the noise; without noise both are told."""
    run = Run(tmp_path / "run", rounds=1, noise_multiplier=1.5 if noisy else 0.0, min_holders=2)

    progress = run.coordinator().run(run.folder.load(run.plan))

    (line,) = progress.timings
    assert [each is None for each in (line.training, line.clients, line.protocol)] == [noisy] * 3
    assert line.evaluation > 0
    assert ('"training":null' in (tmp_path / "run" / "timings.jsonl").read_text()) == noisy


def test_every_attempt_is_numbered_before_its_session_opens(tmp_path: Path) -> None:
    """A crash inside a round leaves its attempt on the disk, and the next try has the next number."""
    run = Run(tmp_path / "run", rounds=1)

    def kill(_adapter: Adapter) -> tuple[float, float]:
        raise KilledError

    with pytest.raises(KilledError):
        replace(run.coordinator(), evaluate=kill).run(run.folder.load(run.plan))

    run.go_on()

    lines = (tmp_path / "run" / "attempts.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"round": 1, "attempt": 1},
        {"round": 1, "attempt": 2},
    ]
