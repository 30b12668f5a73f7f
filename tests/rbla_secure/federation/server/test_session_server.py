"""A session server keeps whoever answers in order, and several of them share an exchange without touching each other."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from protocols.masking.messages import RevealedShares, SealedShares
from protocols.primitives.secret import Secret
from protocols.session import ClientId
from rbla_secure.federation.exchange import Answer, Parcel
from rbla_secure.federation.messages import StageReply, StageRequest, decode_answer
from rbla_secure.federation.round import prepare_round, run_round
from rbla_secure.federation.server.session_server import SessionServer, StageOfSession, exchange_stages
from rbla_secure.planning.plan import Plan
from tests.support.federations import (
    LARGE,
    MEMBERS,
    Deaf,
    InMemory,
    answer_with,
    keep_answer,
    make_adapter,
    make_participants,
    make_plan,
    open_round,
    play_round,
)

KEYS = ("advertise_keys", "share_keys")


def masked_plan(profile: str = "one-answer") -> Plan:
    return make_plan(secure_sum="masking", masking={"profile": profile})


def turn(session_server: SessionServer, stage: str) -> StageOfSession:
    return StageOfSession(session_server=session_server, stage=stage)


def test_the_stages_of_two_rounds_travel_in_one_exchange() -> None:
    """Every participant is sent one message, with its parcels in the order of the turns."""
    plan = masked_plan()
    exchange = InMemory(make_participants(plan))
    this, following = open_round(plan), open_round(plan, round_number=2)
    exchange_stages(exchange, [turn(this, KEYS[0])])

    exchange_stages(exchange, [turn(this, KEYS[1]), turn(following, KEYS[0])])

    _, merged = exchange.sent
    assert sorted(merged) == list(MEMBERS)
    for parcels in merged.values():
        assert [(parcel.round, parcel.stage) for parcel in parcels] == [(1, KEYS[1]), (2, KEYS[0])]
        assert [StageRequest.from_bytes(parcel.data).session for parcel in parcels] == [
            this.session.to_bytes(),
            following.session.to_bytes(),
        ]
    assert (this.dropped, following.dropped, this.refusals, following.refusals) == ({}, {}, {}, {})


def test_each_round_has_its_own_transcript() -> None:
    """Bytes count for the round whose parcel they were, whatever travelled beside them."""
    plan = masked_plan()
    alone, beside = InMemory(make_participants(plan)), InMemory(make_participants(plan))
    single, first, second = open_round(plan), open_round(plan), open_round(plan, round_number=2)

    prepare_round(single, alone)
    for stage in KEYS:
        exchange_stages(beside, [turn(first, stage), turn(second, stage)])

    for session_server in (first, second):
        assert session_server.transcript.bytes_up() == single.transcript.bytes_up()
        assert session_server.transcript.bytes_down() == single.transcript.bytes_down()


def test_who_is_silent_in_one_round_is_missed_there_alone() -> None:
    """An answer to one parcel of a message does not stand for the other."""
    plan = masked_plan()
    exchange = InMemory(make_participants(plan), silent_in={(2, "small-02"): KEYS[0]})
    this, following = open_round(plan), open_round(plan, round_number=2)

    exchange_stages(exchange, [turn(this, KEYS[0]), turn(following, KEYS[0])])

    assert this.dropped == {}
    assert following.dropped == {"small-02": KEYS[0]}
    assert "small-02" in this.requests(KEYS[1], None)
    assert "small-02" not in following.requests(KEYS[1], None)


def test_answers_may_come_in_any_order() -> None:
    """What counts is the round of an answer's parcel."""
    plan = masked_plan()
    this, following = open_round(plan), open_round(plan, round_number=2)
    held: list[Answer] = []

    def collect(client: ClientId, parcel: Parcel) -> list[Answer]:
        held.extend(keep_answer(client, parcel))
        return list(reversed(held)) if len(held) == 2 * len(MEMBERS) else []

    exchange_stages(
        InMemory(make_participants(plan), answers=collect), [turn(this, KEYS[0]), turn(following, KEYS[0])]
    )

    for session_server in (this, following):
        assert (session_server.dropped, session_server.refusals) == ({}, {})
        assert sorted(session_server.requests(KEYS[1], None)) == list(MEMBERS)


def test_an_answer_in_the_place_of_the_other_rounds_is_turned_away() -> None:
    """A client that swaps its two answers is out of both rounds, and nobody else is."""
    plan = masked_plan()
    this, following = open_round(plan), open_round(plan, round_number=2)

    def swap(client: ClientId, parcel: Parcel) -> list[Answer]:
        other = replace(parcel, round=3 - parcel.round) if client == "large-01" else parcel
        return keep_answer(client, other)

    exchange_stages(
        InMemory(make_participants(plan), answers=swap), [turn(this, KEYS[0]), turn(following, KEYS[0])]
    )

    for session_server in (this, following):
        assert session_server.dropped == {"large-01": KEYS[0]}
        assert session_server.refusals["large-01"].startswith("ContextError: ")
        assert session_server.aborted == ""


def later_round(parcel: Parcel) -> Parcel:
    return replace(parcel, round=parcel.round + 7)


def earlier_round(parcel: Parcel) -> Parcel:
    return replace(parcel, round=0)


@pytest.mark.parametrize("change", [later_round, earlier_round])
def test_an_answer_to_a_round_that_is_not_open_changes_nothing(change: Callable[[Parcel], Parcel]) -> None:
    """Whatever round an answer is said to be of, it costs its sender the round at most, never the run."""
    plan = masked_plan()
    session_server = open_round(plan)

    def misplace(client: ClientId, parcel: Parcel) -> list[Answer]:
        return keep_answer(client, change(parcel) if client == "small-01" else parcel)

    exchange_stages(InMemory(make_participants(plan), answers=misplace), [turn(session_server, KEYS[0])])

    assert session_server.dropped == {"small-01": KEYS[0]}
    assert session_server.aborted == ""


def test_a_conversation_that_is_over_asks_nothing_more() -> None:
    """Below the threshold it says why; every later stage has no parcels and the result is none."""
    plan = masked_plan()
    session_server = open_round(plan)
    exchange_stages(Deaf(), [turn(session_server, KEYS[0])])

    asked = session_server.requests(KEYS[1], None)
    session_server.close(KEYS[1])

    assert asked == {}
    assert session_server.aborted == "advertise_keys: 0 of 6 clients answered, threshold=4 are needed"
    assert session_server.dropped == dict.fromkeys(MEMBERS, KEYS[0])
    assert session_server.result(make_adapter(plan)) is None


def test_a_round_that_is_over_still_carries_the_next() -> None:
    """Where this round was lost at its keys, the next one's keys are exchanged all the same."""
    plan = masked_plan()
    participants = make_participants(plan)
    lost = dict.fromkeys([(1, name) for name in LARGE], KEYS[0])
    exchange = InMemory(participants, silent_in=lost)
    this, following = open_round(plan), open_round(plan, round_number=2)
    adapter = make_adapter(plan)
    prepare_round(this, exchange)

    first = run_round(plan, this, adapter, exchange, upcoming=following)
    second = run_round(plan, following, first.adapter, exchange)

    assert first.aborted == "advertise_keys: 3 of 6 clients answered, threshold=4 are needed"
    assert first.adapter is adapter
    assert second.survivors == MEMBERS
    assert second.adapter.to_bytes() != adapter.to_bytes()


def test_a_share_that_does_not_fit_costs_nobody_the_round() -> None:
    """When what one client reveals for a dropped one is no share of its key, the round goes on and says who it was."""
    plan = make_plan(secure_sum="masking", tiers={"lab": {"rank": 1, "clients": 6}})

    def spoil(client: ClientId, parcel: Parcel) -> list[Answer]:
        if (client, parcel.stage) != ("lab-02", "reveal_shares"):
            return keep_answer(client, parcel)
        reply = decode_answer(parcel.data)
        assert isinstance(reply, StageReply)
        message = RevealedShares.from_bytes(reply.payload)
        wrong = dict.fromkeys(message.mask_key_shares, message.self_mask_shares[2, 0])
        payload = replace(message, mask_key_shares=wrong).to_bytes()
        return [answer_with(client, parcel, StageReply(payload=payload).to_bytes())]

    adapter = make_adapter(plan)
    exchange = InMemory(make_participants(plan), silent_from={"lab-01": "mask_input"}, answers=spoil)

    outcome = play_round(plan, adapter, exchange)

    assert outcome.aborted == ""
    assert outcome.refused_bands == {}
    assert outcome.survivors == tuple(f"lab-0{number}" for number in range(2, 7))
    assert outcome.refusals == {
        "lab-02": "ShareError: revealed a wrong share of the mask key of lab-01 in segment 0"
    }


WRONG_SHARES = "ShareError: revealed a wrong share of the self-mask seed of large-01 in segment 0, and 8 more wrong shares"
NO_USE = "SealError: cannot use the share bundles of large-02: one of each pair does not follow the protocol"


def moved(share: bytes) -> Secret:
    """A share with its last bit turned."""
    plain = bytes(share)
    return Secret(plain[:-1] + bytes([plain[-1] ^ 1]))


@pytest.mark.parametrize("profile", ["semi-honest", "one-answer", "consistency"])
@pytest.mark.parametrize("stage", ["share_keys", "reveal_shares"])
def test_who_spoils_shares_is_told_with_the_round(profile: str, stage: str) -> None:
    """A wrong share, or a bundle of no use, changes no sum and stands in the round's refusals."""
    plan = masked_plan(profile)

    def lie(client: ClientId, parcel: Parcel) -> list[Answer]:
        answer = decode_answer(parcel.data)
        if not isinstance(answer, StageReply) or (client, parcel.stage) != ("large-02", stage):
            return keep_answer(client, parcel)
        payload = answer.payload
        if stage == "reveal_shares":
            message = RevealedShares.from_bytes(payload)
            shares = {key: moved(share) for key, share in message.self_mask_shares.items()}
            payload = replace(message, self_mask_shares=shares).to_bytes()
        else:
            dealt = SealedShares.from_bytes(payload)
            spoilt = {**dealt.commitments, 4: bytes(len(dealt.commitments[4]))}
            payload = replace(dealt, commitments=spoilt).to_bytes()
        return [answer_with(client, parcel, StageReply(payload=payload).to_bytes())]

    adapter = make_adapter(plan)
    honest = play_round(plan, adapter, InMemory(make_participants(plan)))
    outcome = play_round(plan, adapter, InMemory(make_participants(plan), answers=lie))

    assert outcome.adapter.digest() == honest.adapter.digest()
    assert outcome.survivors == MEMBERS
    assert outcome.refused_bands == {}
    assert outcome.refusals == (
        {"large-02": WRONG_SHARES} if stage == "reveal_shares" else {"small-01": NO_USE}
    )


@pytest.mark.parametrize("profile", ["semi-honest", "one-answer", "consistency"])
def test_who_spoils_shares_is_told_where_the_round_is_aborted(profile: str) -> None:
    """Too few reveal for anything to open: the wrong share that did come stands in the refusals, with its sender."""
    plan = masked_plan(profile)

    def lie(client: ClientId, parcel: Parcel) -> list[Answer]:
        answer = decode_answer(parcel.data)
        if not isinstance(answer, StageReply) or (client, parcel.stage) != ("large-02", "reveal_shares"):
            return keep_answer(client, parcel)
        message = RevealedShares.from_bytes(answer.payload)
        shares = {key: moved(share) for key, share in message.self_mask_shares.items()}
        payload = replace(message, self_mask_shares=shares).to_bytes()
        return [answer_with(client, parcel, StageReply(payload=payload).to_bytes())]

    silent = dict.fromkeys(MEMBERS[2:], "reveal_shares")
    adapter = make_adapter(plan)
    outcome = play_round(plan, adapter, InMemory(make_participants(plan), answers=lie, silent_from=silent))

    assert "reveal_shares: 2 of 6 clients answered" in outcome.aborted
    assert outcome.adapter == adapter
    assert outcome.refusals == {"large-02": WRONG_SHARES}
