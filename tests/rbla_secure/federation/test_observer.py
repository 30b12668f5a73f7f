"""Observers are told of a round in one order, and of nothing that is not spent: the ledgers are on the disk before."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from protocols.session import ClientId, Session
from rbla_secure.errors import BudgetError
from rbla_secure.federation.coordinator import Coordinator
from rbla_secure.federation.exchange import Parcel
from rbla_secure.federation.observer import Observers, RoundObserver, SilentObserver
from rbla_secure.lora.adapter import Adapter
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.ledger import FILE, Shown
from rbla_secure.privacy.sample_ledger import FILE as SAMPLES_FILE
from rbla_secure.run_folder.audit_log import EventKind, read_events
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.run_folder.records import RoundRecord, RoundSeconds
from rbla_secure.stopwatch import Stopwatch
from tests.support.federations import InMemory, make_participants, make_plan
from tests.support.identities import server_sum

ROUNDS = 2
# With noise of clients and noise inside each client: both ledgers are kept.
NOISY: dict[str, Any] = {
    "rounds": ROUNDS,
    "noise_multiplier": 1.5,
    "privacy": {"colluders": 0},
    "sample_level": {"noise_multiplier": 1.0, "sample_rate": 0.1},
    "training": {"steps": 2},
}
# The stage in which what opens a sum is asked for; in the clear the inputs open themselves.
REVEAL = {"masking": "reveal_shares", "plain": ""}


class Noting(SilentObserver):
    """Notes every call and every stage that is asked for, with what the folder holds at that moment."""

    def __init__(self, folder: RunFolder, plan: Plan) -> None:
        self.folder, self.plan = folder, plan
        self.calls: list[str] = []
        self.spent: list[tuple[str, int, int]] = []
        self.opened: list[int] = []
        self.saved: list[tuple[str, int, int]] = []

    def note(self, call: str, number: int) -> None:
        if not self.calls or self.calls[-1] != call:
            self.calls.append(call)
        clients, samples = (self._entries(name, number) for name in (FILE, SAMPLES_FILE))
        self.spent.append((call, clients, samples))
        self.saved.append((call, number, self._lines()))

    def _entries(self, name: str, number: int) -> int:
        path = self.folder.path / name
        entries = json.loads(path.read_text())["entries"] if path.exists() else []
        return sum(entry["round"] == number for entry in entries)

    def _lines(self) -> int:
        path = self.folder.path / "metrics.jsonl"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def request(self, client: ClientId, parcel: Parcel) -> bytes:
        """A network that notes what passes of the stages that matter."""
        stages = server_sum(self.plan)
        if parcel.stage == stages.input_stage:
            self.note("adapter sent", parcel.round)
        elif parcel.stage == REVEAL[self.plan.config.secure_sum]:
            self.note("asked to reveal", parcel.round)
        return parcel.data

    def before_round(self, session: Session, adapter: Adapter) -> None:
        assert adapter.rank == self.plan.max_rank
        self.note("before_round", session.round)

    def before_training(self, session: Session, clients: Collection[ClientId]) -> None:
        assert tuple(clients) == session.members
        self.note("before_training", session.round)

    def before_reveal(self, session: Session, part: Shown, clients: Collection[ClientId]) -> None:
        assert set(clients) <= set(session.members)
        self.opened.append(
            max(
                event.round or 0
                for event in read_events(self.folder.path / "events.jsonl")
                if event.kind is EventKind.SESSION_OPENED
            )
        )
        self.note(f"before_reveal of {part}", session.round)

    def round_ended(self, before: Adapter, after: Adapter) -> None:
        assert before.digest() != after.digest()
        self.note("round_ended", 0)

    def direction_to_keep(self) -> bytes:
        self.note("direction_to_keep", 0)
        return b""

    def round_saved(self, record: RoundRecord, seconds: RoundSeconds) -> None:
        assert seconds.round == record.round
        self.note("round_saved", record.round)


def noted(path: Path, mode: str, *others: RoundObserver, **changes: Any) -> Noting:
    """A run of two rounds, watched."""
    plan = make_plan(**{**NOISY, "secure_sum": mode, **changes})
    folder = RunFolder.create(path, plan.config)
    noting = Noting(folder, plan)
    coordinator = Coordinator(
        plan=plan,
        secure_sum=server_sum(plan),
        folder=folder,
        exchange=InMemory(make_participants(plan), requests=noting.request),
        evaluate=lambda _: (0.5, 1.0),
        stopwatch=Stopwatch(),
        observers=[*others, noting],
    )
    try:
        coordinator.run(folder.load(plan))
    finally:
        folder.close()
    return noting


ORDER = {
    "masking": [
        "before_round",
        "before_training",
        "adapter sent",
        "before_reveal of sums",
        "asked to reveal",
        "round_ended",
        "direction_to_keep",
        "round_saved",
    ],
    "plain": [
        "before_round",
        "before_reveal of uploads",
        "before_training",
        "adapter sent",
        "before_reveal of sums",
        "round_ended",
        "direction_to_keep",
        "round_saved",
    ],
}


@pytest.mark.parametrize("mode", ORDER)
def test_a_round_is_told_in_one_order(tmp_path: Path, mode: str) -> None:
    """That of the module's docstring, in every round."""
    assert noted(tmp_path / "run", mode).calls == ORDER[mode] * ROUNDS


@pytest.mark.parametrize("mode", ORDER)
def test_what_an_observer_is_told_of_is_on_the_disk_already(tmp_path: Path, mode: str) -> None:
    """By call: how many entries of the round the ledger of clients and that of single examples hold when it comes."""
    spent = {call: counts for call, *counts in noted(tmp_path / "run", mode).spent}

    uploads = int(mode == "plain")
    assert spent["before_round"] == [0, 0]
    assert spent["before_training"] == [uploads, 1]
    assert spent["adapter sent"] == [uploads, 1]
    assert spent["before_reveal of sums"] == [uploads + 1, 1]
    if uploads:
        assert spent["before_reveal of uploads"] == [1, 0]
    else:
        assert spent["asked to reveal"] == [1, 1]
    assert spent["round_saved"] == [uploads + 1, 1]


def test_the_next_session_is_fixed_before_anything_is_revealed(tmp_path: Path) -> None:
    """What a round shows cannot choose who takes part in the next one: its session is in the log by then."""
    assert noted(tmp_path / "run", "masking").opened == [2, 2]


def test_a_round_is_told_as_saved_once_it_is(tmp_path: Path) -> None:
    """The metrics have its line then, and not when the round has merely ended."""
    saved = noted(tmp_path / "run", "masking").saved

    assert [lines for call, _, lines in saved if call == "round_ended"] == [0, 1]
    assert [lines for call, _, lines in saved if call == "direction_to_keep"] == [0, 1]
    assert [lines for call, _, lines in saved if call == "round_saved"] == [1, 2]


class Refusing(SilentObserver):
    """Stops the run before anybody trains."""

    def before_training(self, session: Session, clients: Collection[ClientId]) -> None:
        raise BudgetError("no more")


def test_what_an_observer_raises_stops_the_run_where_it_is(tmp_path: Path) -> None:
    """Those after it are not told, nobody is sent the adapter, and what was written before stays."""
    with pytest.raises(BudgetError, match="no more"):
        noted(tmp_path / "run", "masking", Refusing())

    entries = json.loads((tmp_path / "run" / SAMPLES_FILE).read_text())["entries"]
    assert [entry["round"] for entry in entries] == [1]
    assert (
        not (tmp_path / "run" / FILE).exists()
        or not json.loads((tmp_path / "run" / FILE).read_text())["entries"]
    )


class Keeping(SilentObserver):
    """Has a direction to keep."""

    def direction_to_keep(self) -> bytes:
        return b"direction"


def test_several_observers_keep_what_one_of_them_has() -> None:
    """And nobody keeps nothing."""
    assert Observers((SilentObserver(), Keeping(), SilentObserver())).direction_to_keep() == b"direction"
    assert Observers(()).direction_to_keep() == b""
