"""Lines for people: complete, one per round, and never interpreted as mark-up."""

import io
from typing import Any

import pytest
from rich.console import Console

from rbla_secure.config import Config
from rbla_secure.planning.checks import check_config
from rbla_secure.planning.disclosure import Learned
from rbla_secure.planning.promises import Promises
from rbla_secure.report.console import ConsoleReport, band_rows, kilobytes, milliseconds, round_line
from rbla_secure.report.summary import ServiceCost, Summary
from rbla_secure.run_folder.folder import Progress
from tests.support.federations import make_config
from tests.support.records import make_record, make_seconds


def written(config: Config, tell: Any, *, width: int = 80, terminal: bool = False) -> str:
    """What a report writes while `tell` uses it."""
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, force_terminal=terminal)
    with ConsoleReport(console, config) as report:
        tell(report)
    return out.getvalue()


def summary(**changes: Any) -> Summary:
    records = [make_record(round=1, accuracy=0.25, **changes), make_record(round=2, accuracy=0.75)]
    progress = Progress(
        round=2, adapter=None, records=records, timings=[make_seconds(round=1), make_seconds(round=2)]
    )
    return Summary.of(progress, run="runs/x", base_accuracy=0.1, other_seconds=0.5, adapter_sha256="ab" * 32)


@pytest.mark.parametrize(("size", "text"), [(0, "0.0 kB"), (999, "1.0 kB"), (46222.6, "46.2 kB")])
def test_sizes_are_decimal_kilobytes(size: float, text: str) -> None:
    """A kilobyte is a thousand bytes."""
    found = kilobytes(size)

    assert found == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0.0 ms"), (0.0123, "12.3 ms"), (2, "2000.0 ms")])
def test_short_times_are_milliseconds(seconds: float, text: str) -> None:
    """A second is a thousand of them."""
    found = milliseconds(seconds)

    assert found == text


def test_a_round_is_one_line() -> None:
    """Accuracy, loss, survivors, refused bands, bytes, seconds and drop-outs stand in one line."""
    record = make_record(
        round=3,
        survivors=["large-01"],
        dropped={"small-01": "upload"},
        refused_bands={"rows 2-3": "2 surviving members, quorum 3"},
    )

    line = round_line(record, make_seconds(round=3), rounds=20)

    assert line == (
        "round  3/20  accuracy 0.500  loss 1.250  survivors 1/2  refused bands rows 2-3  up 1.5 kB/client  "
        "train 1.00 s (500.0 ms/client)  protocol 500.0 ms (125.0 ms/client)  eval 125.0 ms  "
        "small-01 out at upload"
    )


def test_an_aborted_round_says_so() -> None:
    """The reason stands in front, and that the adapter is unchanged."""
    record = make_record(aborted="upload: 1 of 6 clients answered, threshold=4 are needed")

    line = round_line(record, make_seconds(), rounds=3)

    assert line.startswith("round 1/3  ABORTED, adapter unchanged: upload: 1 of 6 clients answered")


def test_a_finished_round_names_every_refusal() -> None:
    """Each refusal and each band that stayed closed has a line of its own, with its reason."""
    record = make_record(
        refusals={"small-01": "UpdateError: not finite"},
        refused_bands={"rows 2-3": "2 surviving members, quorum 3"},
    )

    text = written(make_config(), lambda report: report.round_saved(record, make_seconds()))

    lines = text.splitlines()
    assert len(lines) == 3
    assert lines[1].strip() == "small-01 refused or was turned away: UpdateError: not finite"
    assert lines[2].strip() == "rows 2-3 stayed closed, unchanged: 2 surviving members, quorum 3"


@pytest.mark.parametrize("width", [20, 80, 200])
def test_a_line_stays_whole_however_wide(width: int) -> None:
    """Lines are not wrapped, so that a log can be searched."""
    text = written(make_config(), lambda report: report.line("word " * 60), width=width)

    assert text == "word " * 60 + "\n"


def test_text_of_others_is_not_mark_up() -> None:
    """What a client says in a refusal cannot colour or hide lines."""
    record = make_record(refusals={"small-01": "E: [bold red]look[/] [link=x]here[/link] [/nothing]"})

    text = written(make_config(), lambda report: report.round_saved(record, make_seconds()))

    assert "E: [bold red]look[/] [link=x]here[/link] [/nothing]" in text
    assert "\x1b" not in text


def test_a_path_is_not_mark_up() -> None:
    """A run folder may have brackets in its name."""
    text = written(make_config(), lambda report: report.begin("runs/[red]x"))

    assert "run runs/[red]x\n" in text


def test_the_beginning_says_what_will_happen() -> None:
    """Mode, average, tiers, threshold, quorum and every warning are there before the first round."""
    config = make_config(min_holders=2, gamma=0.5)

    text = written(config, lambda report: report.begin("runs/x"))

    assert "plain sum, rbla average with gamma 0.5" in text
    assert "3 x rank 1 (small), 3 x rank 3 (large)" in text
    assert "threshold 4, at least 2 holders per band" in text
    assert "warning: INSECURE: secure-sum=plain" in text
    assert "warning: INSECURE: min-holders=2" in text


@pytest.mark.parametrize(
    ("mode", "profile", "expected"),
    [
        ("plain", "one-answer", "in this process (threat_model.md)"),
        (
            "masking",
            "semi-honest",
            "profile semi-honest, against a server that follows the protocol and keeps",
        ),
        ("masking", "one-answer", "profile one-answer, against a server that sends whatever it likes"),
        ("masking", "consistency", "profile consistency, against a server that sends whatever it likes"),
    ],
)
def test_the_beginning_names_the_server_it_protects_against(mode: str, profile: str, expected: str) -> None:
    """What the masking profile claims is said before the first round, and nothing is claimed in the clear."""
    config = make_config(secure_sum=mode, masking={"profile": profile})

    text = written(config, lambda report: report.begin("runs/x"))

    assert "all parties run in this process" in text
    assert expected in text


def test_a_resumed_run_says_where_it_was() -> None:
    """The last finished round is named."""
    text = written(make_config(), lambda report: report.resumed(2))

    assert text == "resumed after round 2\n"


def test_the_base_is_introduced() -> None:
    """What the frozen base can do stands first."""
    text = written(make_config(), lambda report: report.base(0.4021, 3.5761, examples=1000))

    assert text == "base  accuracy 0.402  loss 3.576  on 1000 held-out examples\n"


def test_the_end_has_result_cost_and_table() -> None:
    """Accuracy, counts, seconds, what each party learned, digest and folder close a run."""
    learned = [Learned("server", "three sums", "the rest"), Learned("client", "its own", "others")]
    result = summary(dropped={"a": "upload"}, refused_bands={"rows 2-3": "x"}, aborted="y")

    text = written(make_config(), lambda report: report.end(result, learned))

    assert "accuracy 0.750 (base 0.100, mean of the last rounds 0.500)" in text
    assert "1 drop-outs, 1 refused bands, 1 aborted rounds" in text
    assert "training 2.0, protocol 1.00 (500.0 ms a round), evaluation 0.25, total 3.8" in text
    assert "what each party learned" in text
    assert all(cell in text for row in learned for cell in row)
    assert f"adapter sha256 {'ab' * 32}\n" in text
    assert text.endswith("run folder runs/x\n")


def test_services_are_told_with_their_price() -> None:
    """Milliseconds and kilobytes of every service are means over the rounds of this process."""
    cost = ServiceCost(service="verifier", rounds=2, seconds=0.5, bytes_to=3_000_000, bytes_from=500)
    result = summary().model_copy(update={"services": [cost]})

    text = written(make_config(), lambda report: report.end(result, []), width=200)

    assert "verifier, a process of its own: 250.0 ms a round, 1500.0 kB to it, 0.2 kB from it" in text


@pytest.mark.parametrize(
    ("verifier", "expected"),
    [
        (
            False,
            "bfv-2x20, against an aggregator that follows the protocol and colludes with neither the decryptor nor a client",
        ),
        (
            True,
            "bfv-2x20, against an aggregator that may lie and colludes with neither the decryptor nor a client",
        ),
    ],
)
def test_an_encrypted_run_says_what_it_claims(verifier: bool, expected: str) -> None:  # noqa: FBT001
    """Before the first round: which parties have processes of their own, and against whom the sums protect."""
    config = make_config(secure_sum="homomorphic", homomorphic={"verifier": verifier})

    text = written(config, lambda report: report.begin("runs/x"), width=300)

    assert "all parties run in this process but decryptor, verifier and worker" in text
    assert expected in text


def test_without_a_terminal_there_is_no_bar() -> None:
    """Into a file go lines alone, without control characters."""
    text = written(make_config(), lambda report: report.round_saved(make_record(), make_seconds()))

    assert len(text.splitlines()) == 1
    assert "\x1b" not in text


def test_on_a_terminal_there_is_a_bar() -> None:
    """The bar shows how many rounds are done and the last accuracy."""
    text = written(
        make_config(),
        lambda report: report.round_saved(make_record(), make_seconds()),
        terminal=True,
        width=120,
    )

    assert f"1/{make_config().rounds}" in text
    assert "accuracy 0.500" in text


BANDS = [
    (
        {"large": {"rank": 3, "clients": 3}, "small": {"rank": 1, "clients": 3}},
        [("rows 1-1", "6", "3"), ("rows 2-3", "3", "3")],
        ["2", "0"],  # three of six drop out, and the threshold of four is missed
    ),
    (
        {"large": {"rank": 4, "clients": 9, "cohort": 5}, "other": {"rank": 4, "clients": 2}},
        [("rows 1-4", "7", "3")],
        ["3"],
    ),
]


@pytest.mark.parametrize(("tiers", "expected", "_margins"), BANDS)
def test_bands_are_listed_with_holders_and_quorum(
    tiers: dict[str, Any], expected: list[tuple[str, str, str]], _margins: list[str]
) -> None:
    """Per band: its rows, its holders per round and its quorum, and all of it in the table."""
    rows = band_rows(Promises.build(make_config(tiers=tiers)))

    text = written(make_config(), lambda report: report.checked(rows))

    assert [row[:3] for row in rows] == expected
    assert all(cell in text for row in rows for cell in row)


@pytest.mark.parametrize(("tiers", "_expected", "margins"), BANDS)
def test_bands_are_listed_with_the_drop_outs_they_survive(
    tiers: dict[str, Any], _expected: list[tuple[str, str, str]], margins: list[str]
) -> None:
    """So many holders may drop out and the band still opens: quorum and threshold both hold."""
    rows = band_rows(Promises.build(make_config(tiers=tiers)))

    assert [row[3] for row in rows] == margins


@pytest.mark.parametrize(
    ("profile", "threshold", "expected"),
    [
        # Ten clients: t = 6, 6 and 7.
        ("semi-honest", 0, [("rows 1-1", "10", "3", "4"), ("rows 2-3", "4", "3", "1")]),
        ("one-answer", 0, [("rows 1-1", "10", "6", "4"), ("rows 2-3", "4", "3", "1")]),
        ("one-answer", 8, [("rows 1-1", "10", "4", "2"), ("rows 2-3", "4", "3", "1")]),
        ("consistency", 0, [("rows 1-1", "10", "3", "3"), ("rows 2-3", "4", "3", "1")]),
    ],
)
def test_bands_are_listed_with_the_quorum_of_the_profile(
    profile: str, threshold: int, expected: list[tuple[str, str, str, str]]
) -> None:
    """Where clients want to see more survivors than min-holders before they reveal, that number is the quorum."""
    tiers = {"large": {"rank": 3, "clients": 4}, "small": {"rank": 1, "clients": 6}}
    masking = {"profile": profile, "threshold": threshold}

    rows = band_rows(Promises.build(make_config(tiers=tiers, secure_sum="masking", masking=masking)))

    assert rows == expected


def test_a_band_that_never_opens_is_listed_with_the_quorum_that_it_misses() -> None:
    """Also where clients ask for more survivors than the quorum: of a band without enough holders nobody asks for any."""
    tiers = {
        "phone": {"rank": 1, "clients": 3},
        "laptop": {"rank": 2, "clients": 3},
        "server": {"rank": 4, "clients": 3},
        "tablet": {"rank": 3, "clients": 6},
    }
    config = make_config(
        tiers=tiers,
        secure_sum="masking",
        masking={"profile": "one-answer"},
        min_holders=1,
        robustness={"f": 2},
        quantization={"bits": 12},
    )

    rows = band_rows(check_config(config))

    assert rows[-1] == ("rows 4-4", "3", "5", "-2")
    assert [row[2] for row in rows[:-1]] != ["5"] * 3
