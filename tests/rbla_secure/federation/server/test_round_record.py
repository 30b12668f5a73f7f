"""The line of a round says what happened in it."""

from rbla_secure.federation.server.round_record import record_of
from tests.support.federations import (
    MEMBERS,
    Deaf,
    InMemory,
    diverge,
    make_adapter,
    make_participants,
    make_plan,
    play_round,
)


def test_a_record_tells_the_round() -> None:
    """Clients, bands by their rows, holders and bytes stand in the record as they were in the outcome."""
    plan = make_plan(secure_sum="masking")
    participants = make_participants(plan, train={"large-02": diverge})
    exchange = InMemory(participants, silent_from={"small-03": "reveal_shares"})
    outcome = play_round(plan, make_adapter(plan), exchange)

    record = record_of(plan, outcome, round_number=7, cohort=MEMBERS, accuracy=0.5, loss=2.0)

    up = outcome.transcript.bytes_up()
    assert (record.round, record.accuracy, record.loss, record.aborted) == (7, 0.5, 2.0, "")
    assert record.cohort == list(MEMBERS)
    assert record.survivors == [client for client in MEMBERS if client != "large-02"]
    assert record.dropped == {"large-02": "mask_input", "small-03": "reveal_shares"}
    assert list(record.refusals) == ["large-02"]
    assert record.refused_bands == {"rows 2-3": "2 surviving holders, quorum 3"}
    assert record.holders == {"rows 1-1": 5}
    assert record.bytes_up_per_client == sum(up.values()) / 6
    assert record.bytes_up_by_rank == {
        "1": sum(up[client] for client in MEMBERS[3:]) / 3,
        "3": sum(up[client] for client in MEMBERS[:3]) / 3,
    }
    assert record.adapter == outcome.adapter.digest().hex()


def test_a_record_of_an_aborted_round_says_why() -> None:
    """Nobody survived, nothing was sent, and the adapter is the one before."""
    plan = make_plan()
    adapter = make_adapter(plan)
    outcome = play_round(plan, adapter, Deaf())

    record = record_of(plan, outcome, round_number=1, cohort=MEMBERS, accuracy=0.5, loss=2.0)

    assert record.aborted == "upload: 0 of 6 clients answered, threshold=4 are needed"
    assert (record.survivors, record.holders, record.refused_bands) == ([], {}, {})
    assert record.cut_off is None
    assert record.bytes_up_per_client == 0
    assert record.bytes_up_by_rank == {"1": 0, "3": 0}
    assert record.adapter == adapter.digest().hex()
