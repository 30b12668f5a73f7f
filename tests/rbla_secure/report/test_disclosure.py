"""What each party learnt, from what was opened and not from what was planned."""

import pytest

from rbla_secure.planning.disclosure import Learned
from rbla_secure.report.disclosure import what_each_party_learned
from tests.support.federations import make_plan
from tests.support.records import make_record


def table(mode: str, *holders: dict[str, int], **changes: object) -> dict[str, Learned]:
    records = [make_record(round=number, holders=each) for number, each in enumerate(holders, start=1)]
    return {row.party: row for row in what_each_party_learned(make_plan(secure_sum=mode, **changes), records)}


def test_in_the_clear_the_server_saw_every_update() -> None:
    """Plain mode does not pretend."""
    rows = table("plain", {"rows 1-1": 6})

    assert "every update of every client" in rows["server"].saw
    assert rows["server"].hidden == "the clients' examples"
    assert list(rows) == ["server", "each client", "reader of the run folder"]


def test_behind_masks_the_server_saw_sums() -> None:
    """The server saw as many sums as bands opened over all rounds, none over fewer clients than the thinnest."""
    rows = table("masking", {"rows 1-1": 6, "rows 2-3": 4}, {"rows 1-1": 5}, {})

    assert rows["server"].saw.startswith("3 band sums, each over 4 clients or more")
    assert "single update" in rows["server"].hidden


def test_noise_that_was_taken_off_is_known_to_the_server() -> None:
    """Where drop-outs are made good and sums were opened; and only there."""
    noisy = {
        "masking": {"profile": "semi-honest"},
        "noise_multiplier": 1.0,
        "privacy": {"recovered_dropout": 0.34, "colluders": 0},
    }

    assert "noise that it took off" in table("masking", {"rows 1-1": 6}, **noisy)["server"].saw
    assert "noise" not in table("masking", {}, **noisy)["server"].saw
    assert "noise" not in table("masking", {"rows 1-1": 6})["server"].saw


def test_where_nothing_opened_nothing_was_seen() -> None:
    """A run of refused and aborted rounds shows no sum."""
    rows = table("masking", {}, {})

    assert rows["server"].saw.startswith("no sum: every band stayed closed")


@pytest.mark.parametrize("profile", ["semi-honest", "one-answer", "consistency"])
def test_colluders_learn_nothing_where_nothing_opened(profile: str) -> None:
    """Without a sum there is nothing to subtract from."""
    rows = table("masking", {}, masking={"profile": profile})

    colluding = [row for party, row in rows.items() if "with up to" in party]
    assert [row.saw for row in colluding] == ["no sum: every band stayed closed"]


@pytest.mark.parametrize(
    ("smallest", "clients", "expected"),
    [
        # Six members, threshold 4: up to three clients may collude with the server.
        (6, 6, "the sum of 3 other clients"),
        (5, 6, "the sum of 2 other clients"),
        (4, 6, "the update of a client that is alone beside them"),
        (3, 6, "the update of a client that is alone beside them"),
    ],
)
def test_colluders_subtract_their_own_parts(smallest: int, clients: int, expected: str) -> None:
    """With t - 1 colluders, the thinnest band that opened shows the sum of the rest, or a single update."""
    rows = table("masking", {"rows 1-1": clients, "rows 2-3": smallest}, masking={"profile": "semi-honest"})

    assert expected in rows["server with up to 3 clients"].saw


def test_the_number_of_colluders_follows_from_the_threshold() -> None:
    """A higher threshold withstands more of them."""
    rows = table("masking", {"rows 1-1": 6}, masking={"threshold": 6, "profile": "semi-honest"})

    assert "server with up to 5 clients" in rows


@pytest.mark.parametrize("profile", ["one-answer", "consistency"])
@pytest.mark.parametrize(
    ("members", "min_holders", "corrupt", "expected"),
    [
        (6, 3, 0, "of the thinnest band the sum of 3 other clients"),
        (10, 3, 1, "of the thinnest band the sum of 2 other clients"),
        (10, 5, 1, "of the thinnest band the sum of 4 other clients"),
        (20, 3, 2, "the update of a client that is alone beside them"),
        (20, 4, 2, "of the thinnest band the sum of 2 other clients"),
    ],
)
def test_a_server_that_lies_has_a_tenth_of_the_clients(
    profile: str, members: int, min_holders: int, corrupt: int, expected: str
) -> None:
    """Against a malicious server the profile counts colluders, and a sum is over as few as the quorum allows."""
    rows = table(
        "masking",
        {"rows 1-2": members},
        tiers={"lab": {"rank": 2, "clients": members}},
        min_holders=min_holders,
        masking={"profile": profile},
    )

    assert expected in rows[f"malicious server with up to {corrupt} clients"].saw


def test_without_a_verifier_a_lying_server_reads_updates() -> None:
    """The encrypted mode says what its decryptor cannot notice, and what two parties know together."""
    rows = table("homomorphic", {"rows 1-1": 6, "rows 2-3": 3})

    assert "single update" in rows["server"].hidden
    assert rows["decryptor"].saw.startswith("2 band sums, each over 3 clients or more")
    assert "no ciphertext of a client" in rows["decryptor"].saw
    assert "the update of a client of its choice" in rows["server that lies"].saw
    assert rows["server that lies"].saw.endswith("up to 2 different clients by one request")
    assert rows["server and decryptor together"].saw == "every update of every client"
    assert "verifier" not in rows


def test_with_a_verifier_a_lying_server_reads_sums() -> None:
    """A verifier is a party of its own, which sees ciphertexts; the lying server is left with sums over the quorum."""
    rows = table("homomorphic", {"rows 1-1": 6}, homomorphic={"verifier": True}, min_holders=3)

    assert rows["verifier"].saw == "ciphertexts; who took part"
    assert rows["server that lies"].saw == "the same sums, each over 3 holders or more"
    assert "single update" in rows["server that lies"].hidden
    shown = rows["server that lies, with clients that it shows all ciphertexts"]
    assert shown.saw.startswith("the same sums less their own parts: of 3 holders")
    assert "committed to" in shown.hidden


@pytest.mark.parametrize("screening", ["off", "verdicts", "values"])
def test_with_values_of_screening_one_client_can_point_them(screening: str) -> None:
    """What a client's part in a sum does to the next round's cosines is a row of its own, where there are cosines."""
    party = "server, with one client that sends values beyond its bound"

    rows = table("homomorphic", {"rows 1-1": 6}, homomorphic={"verifier": True, "screening": screening})
    alone = table("homomorphic", {"rows 1-1": 6}, homomorphic={"screening": screening})

    assert (party in rows) == (screening == "values")
    assert party not in alone  # there a server that lies reads whole updates


def test_clients_and_readers_stand_in_every_table() -> None:
    """What a client sees, and that no noise protects the published adapter, is said in all modes."""
    rows = [table(mode, {"rows 1-1": 6}) for mode in ("plain", "masking", "homomorphic")]

    for each in rows:
        assert "the whole global adapter (rank 3)" in each["each client"].saw
        assert "no noise was added" in each["reader of the run folder"].hidden
