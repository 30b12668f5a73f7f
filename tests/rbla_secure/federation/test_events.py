"""What happens in a run stands in its audit log: every session, refusal, drop-out, closed band and round."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import pytest

from protocols.masking.messages import RevealedShares
from protocols.primitives.secret import Secret
from protocols.session import ClientId, Session
from rbla_secure.federation.coordinator import Coordinator
from rbla_secure.federation.exchange import Answer, Exchange, Parcel
from rbla_secure.federation.messages import StageReply, StageRequest, decode_answer
from rbla_secure.federation.server.session_server import SessionServer, StageOfSession, exchange_stages
from rbla_secure.planning.plan import Plan
from rbla_secure.run_folder.audit_log import AuditLog, Event, EventKind, read_events
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.stopwatch import Stopwatch
from tests.support.federations import (
    LARGE,
    MEMBERS,
    SMALL,
    InMemory,
    answer_with,
    diverge,
    keep_answer,
    make_participants,
    make_plan,
    make_session,
)
from tests.support.identities import server_sum

ROUNDS = 4
PLAN = make_plan(secure_sum="masking", masking={"profile": "one-answer"}, rounds=ROUNDS)


def spoil_in_round_2(client: ClientId, parcel: Parcel) -> list[Answer]:
    """The upload of one client arrives as noise."""
    if (client, parcel.round, parcel.stage) == ("small-03", 2, "mask_input"):
        return [answer_with(client, parcel, b"noise")]
    return keep_answer(client, parcel)


@final
class Faulty(Exchange):
    """One client diverges, one upload is spoilt in round 2, nobody hears of round 3, a large one is gone in round 4."""

    def __init__(self, plan: Plan) -> None:
        self._inner = InMemory(
            make_participants(plan, train={"small-02": diverge}),
            silent_in={(4, "large-01"): "mask_input"},
            answers=spoil_in_round_2,
        )
        self.sent: list[Parcel] = []

    def send(self, messages: Mapping[ClientId, Sequence[Parcel]]) -> Iterator[Answer]:
        self.sent += [parcel for parcels in messages.values() for parcel in parcels]
        heard = {c: [parcel for parcel in parcels if parcel.round != 3] for c, parcels in messages.items()}
        yield from self._inner.send(heard)


def run(folder: RunFolder, exchange: Exchange, *, plan: Plan = PLAN) -> Any:
    coordinator = Coordinator(
        plan=plan,
        secure_sum=server_sum(plan),
        folder=folder,
        exchange=exchange,
        evaluate=lambda _adapter: (0.5, 1.5),
        stopwatch=Stopwatch(),
    )
    return coordinator.run(folder.load(plan))


def events_of(folder: RunFolder) -> list[Event]:
    return read_events(folder.path / "events.jsonl")


def of_round(events: list[Event], number: int) -> list[tuple[str, dict[str, Any]]]:
    """What happened in a round, in its order."""
    return [(str(event.kind), event.details) for event in events if event.round == number]


def test_a_run_with_faults_tells_them_all(tmp_path: Path) -> None:
    """Round by round: the session, who refused and who was turned away, who was out, what stayed closed, what came of it."""
    folder = RunFolder.create(tmp_path / "run", PLAN.config)

    progress = run(folder, Faulty(PLAN))

    events = events_of(folder)
    adapters = [record.adapter for record in progress.records]
    lines = (folder.path / "metrics.jsonl").read_bytes().splitlines()
    digests = [hashlib.sha256(line).hexdigest() for line in lines]
    diverged = ("dropped", {"client": "small-02", "stage": "mask_input"})
    refusal = {"client": "small-02", "by": "client", "error": "UpdateError"}
    first, second, third, fourth = (of_round(events, number) for number in (1, 2, 3, 4))
    assert [kind for kind, _ in first] == ["session-opened", "refusal", "dropped", "round-finished"]
    assert first[0][1] == {
        "cohort": list(MEMBERS),
        "threshold": 4,
        "context": make_session(PLAN, run=folder.run_id).context.hex(),
    }
    assert {key: first[1][1][key] for key in refusal} == refusal
    assert "not finite" in str(first[1][1]["reason"])
    assert first[2] == diverged
    assert first[3][1] == {
        "survivors": [client for client in MEMBERS if client != "small-02"],
        "adapter": adapters[0],
        "metrics": digests[0],
    }

    # The spoilt upload is turned away by the server.
    assert [kind for kind, _ in second[1:]] == ["refusal", "refusal", "dropped", "dropped", "round-finished"]
    assert {key: second[2][1][key] for key in ("client", "by", "error")} == {
        "client": "small-03",
        "by": "server",
        "error": "WireError",
    }

    # Nobody answers: all are out at the first stage, and the adapter stays.
    out = [("dropped", {"client": client, "stage": "advertise_keys"}) for client in MEMBERS]
    assert third[1:-1] == out
    assert third[-1][0] == "round-aborted"
    assert "0 of 6 clients answered" in str(third[-1][1]["reason"])
    assert third[-1][1]["adapter"] == adapters[2] == adapters[1]
    assert [told[-1][1]["metrics"] for told in (first, second, third, fourth)] == digests

    # One holder too few: the thin band stays closed.
    assert [kind for kind, _ in fourth] == [
        "session-opened",
        "refusal",
        "dropped",
        "dropped",
        "band-refused",
        "round-finished",
    ]
    assert fourth[4][1]["band"] == "rows 2-3"
    assert "2 surviving holders" in str(fourth[4][1]["reason"])
    assert events[0].kind is EventKind.RUN_CREATED
    assert {event.attempt for event in events[1:]} == {1}


def lie_in_round_2(client: ClientId, parcel: Parcel) -> list[Answer]:
    """One client reveals wrong shares."""
    if (client, parcel.round, parcel.stage) != ("small-03", 2, "reveal_shares"):
        return keep_answer(client, parcel)
    answer = decode_answer(parcel.data)
    assert isinstance(answer, StageReply)
    message = RevealedShares.from_bytes(answer.payload)
    wrong = {key: Secret(bytes(33)) for key in message.self_mask_shares}
    payload = replace(message, self_mask_shares=wrong).to_bytes()
    return [answer_with(client, parcel, StageReply(payload=payload).to_bytes())]


@pytest.mark.parametrize("lying", [False, True])
def test_a_refusal_in_the_metrics_is_one_in_the_log(tmp_path: Path, lying: bool) -> None:  # noqa: FBT001
    """Both tell the same of every client and round, also of what came out when the sums were opened."""
    folder = RunFolder.create(tmp_path / "run", PLAN.config)
    liars = InMemory(make_participants(PLAN), answers=lie_in_round_2)

    progress = run(folder, liars if lying else Faulty(PLAN))

    told: dict[int, dict[str, str]] = {number: {} for number in range(1, ROUNDS + 1)}
    out: dict[int, dict[str, str]] = {number: {} for number in range(1, ROUNDS + 1)}
    for event in events_of(folder):
        if event.kind is EventKind.REFUSAL:
            told[event.round or 0][str(event.details["client"])] = (
                f"{event.details['error']}: {event.details['reason']}"
            )
        if event.kind is EventKind.DROPPED:
            out[event.round or 0][str(event.details["client"])] = str(event.details["stage"])
    assert told == {record.round: record.refusals for record in progress.records}
    assert out == {record.round: record.dropped for record in progress.records}
    assert any(told.values())


def test_metrics_do_not_know_the_time(tmp_path: Path) -> None:
    """Two repetitions have the same metrics to the byte, and logs of their own."""
    folders = [RunFolder.create(tmp_path / name, PLAN.config) for name in ("one", "two")]

    for folder in folders:
        run(folder, Faulty(PLAN))

    metrics, logs = (
        [(folder.path / name).read_bytes() for folder in folders]
        for name in ("metrics.jsonl", "events.jsonl")
    )
    assert metrics[0] == metrics[1]
    assert logs[0] != logs[1]


def test_a_session_is_written_down_before_its_first_message(tmp_path: Path) -> None:
    """Whatever a client was ever asked stands in the log already, the keys that ride along included."""
    folder = RunFolder.create(tmp_path / "run", PLAN.config)
    contexts: list[set[str]] = []

    @final
    class Watching(Exchange):
        def __init__(self) -> None:
            self._inner = InMemory(make_participants(PLAN))

        def send(self, messages: Mapping[ClientId, Sequence[Parcel]]) -> Iterator[Answer]:
            opened = {
                str(event.details["context"])
                for event in events_of(folder)
                if event.kind is EventKind.SESSION_OPENED
            }
            asked = {
                Session.from_bytes(StageRequest.from_bytes(parcel.data).session).context.hex()
                for parcels in messages.values()
                for parcel in parcels
            }
            assert asked <= opened
            contexts.append(asked)
            yield from self._inner.send(messages)

    run(folder, Watching())

    assert max(map(len, contexts)) == 2
    assert len(set().union(*contexts)) == ROUNDS


def test_whoever_goes_on_says_from_where(tmp_path: Path) -> None:
    """A folder that is opened again begins with how much was durable; the chain is one."""
    plain = make_plan(rounds=ROUNDS)
    folder = RunFolder.create(tmp_path / "run", plain.config)

    class KilledError(Exception):
        pass

    def kill(client: ClientId, parcel: Parcel) -> list[Answer]:
        if parcel.round == 3:
            raise KilledError
        return keep_answer(client, parcel)

    with pytest.raises(KilledError):
        run(folder, InMemory(make_participants(plain), answers=kill), plan=plain)
    head = folder.log.head
    folder.close()
    again = RunFolder.open(folder.path)
    assert again.log.head == head
    progress = run(again, InMemory(make_participants(plain)), plan=plain)

    events = events_of(again)
    (resumed,) = (event for event in events if event.kind is EventKind.RUN_RESUMED)
    assert resumed.details == {"rounds": 2, "adapter": progress.records[1].adapter, "unopened": []}
    opened = [(event.round, event.attempt) for event in events if event.kind is EventKind.SESSION_OPENED]
    assert opened == [(1, 1), (2, 1), (3, 1), (4, 1), (3, 2), (4, 2)]


def test_a_client_that_answers_again_and_again_does_not_fill_the_log(tmp_path: Path) -> None:
    """In a stage the first refusal of a client is written down, the first in each."""
    folder = RunFolder.create(tmp_path / "run", PLAN.config)
    noise = iter(range(10**6))

    def babble(client: ClientId, parcel: Parcel) -> list[Answer]:
        if client != "small-01":
            return keep_answer(client, parcel)
        return [answer_with(client, parcel, b"noise %d" % next(noise)) for _ in range(20)]

    session = make_session(PLAN)
    session_server = SessionServer(PLAN, session, server_sum(PLAN), log=folder.log)
    network = InMemory(make_participants(PLAN), answers=babble)
    for stage in ("advertise_keys", "share_keys"):
        exchange_stages(network, [StageOfSession(session_server=session_server, stage=stage)])

    told = [(str(event.kind), event.details["client"]) for event in events_of(folder)[1:]]
    assert told == [("refusal", "small-01"), ("dropped", "small-01")]
    assert session_server.refusals.keys() == {"small-01"}


@pytest.mark.parametrize("silent", [(), SMALL[:1], LARGE])
def test_a_conversation_without_a_log_is_the_same(tmp_path: Path, silent: tuple[str, ...]) -> None:
    """Writing down changes nothing of what happens."""
    folder = RunFolder.create(tmp_path / "run", PLAN.config)
    outcomes = []

    for log in (None, folder.log):
        session_server = SessionServer(PLAN, make_session(PLAN), server_sum(PLAN), log=log)
        network = InMemory(make_participants(PLAN), silent_from=dict.fromkeys(silent, "share_keys"))
        for stage in ("advertise_keys", "share_keys"):
            exchange_stages(network, [StageOfSession(session_server=session_server, stage=stage)])
        outcomes.append((session_server.dropped, session_server.refusals, session_server.aborted))

    assert outcomes[0] == outcomes[1]
    assert isinstance(folder.log, AuditLog)
    assert len(folder.log) == 1 + len(silent)
