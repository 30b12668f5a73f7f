"""The summary of a run adds its rounds up."""

import json

import pytest

from rbla_secure.report.summary import Summary
from rbla_secure.run_folder.folder import Progress
from rbla_secure.run_folder.records import RoundRecord, RoundSeconds
from tests.support.records import make_record, make_seconds


def summarize(records: list[RoundRecord], timings: list[RoundSeconds]) -> Summary:
    progress = Progress(round=len(records), adapter=None, records=records, timings=timings)
    return Summary.of(
        progress, run="runs/x", base_accuracy=0.1, other_seconds=100.0, adapter_sha256="ab" * 32
    )


def test_counts_cover_all_rounds() -> None:
    """Drop-outs, refused bands and aborted rounds are counted over the whole run, bytes are a mean."""
    records = [
        make_record(round=1, dropped={"a": "upload", "b": "upload"}, bytes_up_per_client=100.0),
        make_record(round=2, refused_bands={"rows 1-1": "x", "rows 2-3": "y"}, bytes_up_per_client=200.0),
        make_record(round=3, dropped={"a": "upload"}, aborted="too few", bytes_up_per_client=0.0),
    ]

    summary = summarize(records, [make_seconds(round=number) for number in (1, 2, 3)])

    assert (summary.rounds, summary.dropouts, summary.refused_bands, summary.aborted_rounds) == (3, 3, 2, 1)
    assert summary.bytes_up_per_client == 100.0
    assert summary.epsilon is None
    assert (summary.run, summary.adapter_sha256) == ("runs/x", "ab" * 32)


@pytest.mark.parametrize(
    ("accuracies", "last5"),
    [
        ([0.5], 0.5),
        ([0.2, 0.4], 0.3),
        ([0.9, 0.9, 0.1, 0.2, 0.3, 0.4, 0.5], 0.3),
    ],
)
def test_the_settled_accuracy_is_a_mean_of_the_last_five(accuracies: list[float], last5: float) -> None:
    """The last accuracy stands beside the mean of the last five rounds, or of all if there are fewer."""
    records = [make_record(round=number, accuracy=value) for number, value in enumerate(accuracies, start=1)]

    summary = summarize(records, [])

    assert summary.accuracy.base == 0.1
    assert summary.accuracy.final == accuracies[-1]
    assert summary.accuracy.last5 == pytest.approx(last5)


def test_seconds_add_up() -> None:
    """Each activity is summed, what clients take is inside the protocol, and the total includes everything else."""
    timings = [
        make_seconds(round=n, training=1.0, clients=50.0, protocol=2.0, evaluation=3.0) for n in (1, 2)
    ]

    summary = summarize([make_record(round=1), make_record(round=2)], timings)

    assert summary.seconds.model_dump() == {
        "training": 2.0,
        "protocol": 4.0,
        "evaluation": 6.0,
        "total": 112.0,
    }


def test_the_summary_is_one_json_object() -> None:
    """Machines read exactly these keys."""
    summary = summarize([make_record()], [make_seconds()])

    fields = json.loads(json.dumps(summary.model_dump()))

    assert set(fields) == {
        "run",
        "accuracy",
        "rounds",
        "seconds",
        "bytes_up_per_client",
        "refused_bands",
        "dropouts",
        "aborted_rounds",
        "epsilon",
        "privacy",
        "sample_privacy",
        "suspicion",
        "adapter_sha256",
        "services",
    }
    assert set(fields["accuracy"]) == {"base", "final", "last5"}
    assert set(fields["seconds"]) == {"training", "protocol", "evaluation", "total"}
    assert Summary.model_validate(fields) == summary
