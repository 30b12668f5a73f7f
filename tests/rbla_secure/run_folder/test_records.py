"""What is written down of a round reads back as it was, and says what happened."""

import json
import math

import pytest
from pydantic import ValidationError

from rbla_secure.run_folder.records import RoundRecord, RoundSeconds, aborted_in_a_row, total_seconds
from tests.support.records import make_record, make_seconds


def test_lines_round_trip() -> None:
    """A line of JSON without line feed gives back an equal record, to the last digit."""
    record = make_record(
        accuracy=1 / 3,
        refusals={"a": "E: a\nb\u2028c"},
        cut_off=5e-324,
        dropped={"ż": "upload"},
    )
    seconds = make_seconds(training=0.1 + 0.2)

    lines = record.model_dump_json(), seconds.model_dump_json()

    assert all("\n" not in line for line in lines)
    assert RoundRecord.model_validate_json(lines[0]) == record
    assert RoundSeconds.model_validate_json(lines[1]) == seconds


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_round_trips(loss: float) -> None:
    """The line of a round whose model diverged can be read again, or else its run could not be resumed."""
    line = make_record(loss=loss).model_dump_json()

    record = RoundRecord.model_validate_json(line)

    assert record.loss == pytest.approx(loss, nan_ok=True)


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"round": "1"},
        {"round": 1.5},
        {"round": None},
        {"accuracy": "0.5"},
        {"cohort": "small-01"},
        {"survivors": [1]},
        {"dropped": {"small-01": 3}},
        {"holders": {"rows 1-1": "3"}},
        {"aborted": None},
    ],
)
def test_a_line_of_another_form_is_refused(change: dict[str, object]) -> None:
    """Unknown and mistyped fields are no record."""
    fields = json.loads(make_record().model_dump_json())

    with pytest.raises(ValidationError):
        RoundRecord.model_validate_json(json.dumps(fields | change))


@pytest.mark.parametrize("name", sorted(RoundRecord.model_fields))
def test_a_line_without_one_of_its_fields_is_refused(name: str) -> None:
    """No field is made up."""
    fields = json.loads(make_record().model_dump_json())
    del fields[name]

    with pytest.raises(ValidationError):
        RoundRecord.model_validate_json(json.dumps(fields))


@pytest.mark.parametrize(
    ("aborted", "expected"), [("", 0), (".", 0), ("x", 1), (".xx", 2), ("xx.", 0), ("xx.x", 1), ("xxx", 3)]
)
def test_aborted_rounds_are_counted_from_the_end(aborted: str, expected: int) -> None:
    """Only those after the last round with a result count."""
    records = [
        make_record(round=number, aborted="" if letter == "." else "too few")
        for number, letter in enumerate(aborted, start=1)
    ]

    count = aborted_in_a_row(records)

    assert count == expected


def test_seconds_that_a_round_keeps_back_have_no_sum() -> None:
    """Under noise: a total over some of the rounds would be told as that of all."""
    lines = [make_seconds(round=1, training=1.0), make_seconds(round=2, training=None)]

    totals = total_seconds(lines)

    assert (totals["training"], totals["protocol"]) == (None, 1.0)


def test_seconds_add_up_by_activity() -> None:
    """Each activity is summed over the rounds."""
    lines = [make_seconds(round=n, training=1.0, clients=2.0, protocol=4.0, evaluation=8.0) for n in (1, 2)]

    totals = total_seconds(lines)

    assert totals == {"training": 2.0, "clients": 4.0, "protocol": 8.0, "evaluation": 16.0}
