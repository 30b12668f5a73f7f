"""Lifetime budgets through the command line: two runs on one label, what is refused before anything is trained, and going on."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from rbla_secure.cli import main
from rbla_secure.federation.client.budget_folder import look_at_budgets
from rbla_secure.privacy.figures import exact, rounded_down, rounded_up
from rbla_secure.privacy.lifetime_ledger import LifetimeLedger
from rbla_secure.report.lifetime import OF_DRAWS
from tests.rbla_secure.privacy.test_lifetime_ledger import of_gaussians
from tests.support.own_epsilon import composed
from tests.support.run_folders import die_before_the_end_of
from tests.support.tiny_job import files, finish, job, metrics, write_images

# The server's noise is the same whoever drops out, so that figures can be computed by hand.
NOISY = ("--set", "noise-multiplier=3", "--set", "privacy.mechanism=central")
TWO, THREE, FOUR = (of_gaussians([3.0] * rounds, 1e-5) for rounds in (2, 3, 4))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set."""
    return write_images(tmp_path_factory.mktemp("data"))


def run(images: Path, folder: Path, name: str, *options: str, **changes: Any) -> list[str]:
    """A run of two rounds whose clients keep their budgets in one place."""
    keys = job(images, **{"rounds": 2, **changes})
    return ["run", "--out", str(folder / name), *keys, *NOISY, *options]


def counting(folder: Path, label: str = "ward", **limits: float) -> list[str]:
    options = [
        part
        for name, value in limits.items()
        for part in (f"--lifetime-{name.replace('_', '-')}", str(value))
    ]
    return ["--budgets", str(folder / "budgets"), "--data-label", label, *options]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def look_at_all(folder: Path) -> list[LifetimeLedger]:
    """The ledgers of all clients."""
    return [ledger for each in sorted(folder.iterdir()) for ledger in look_at_budgets(each).ledgers]


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


@pytest.mark.slow
def test_the_second_run_on_the_same_data_is_refused(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In processes of their own: one clear line, no run folder, and nothing that was saved is changed."""
    limit = 0.99 * FOUR
    first = finish(*run(images, tmp_path, "first", *counting(tmp_path, epsilon=limit)))
    assert first.returncode == 0, first.stderr
    before = bytes_of(tmp_path)

    second = finish(*run(images, tmp_path, "second", *counting(tmp_path), seed=1))

    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert (
        "rbla-secure: data 'ward' of datacenter-01: the 2 rounds of this run would take the epsilon of all runs"
        in second.stderr
    )
    assert (
        f"from {rounded_up(TWO)} to {rounded_up(FOUR)}, above the lifetime limit of {exact(limit)}"
        in second.stderr
    )
    assert "1 of its rounds would fit" in second.stderr
    assert bytes_of(tmp_path) == before
    found = told(capsys, "account", str(tmp_path / "budgets"))["budgets"]
    assert len(found) == 10
    for each in found:
        assert (each["runs"], each["rounds"], each["attempts"]) == (1, 2, 2)
        level = each["client_level"]
        assert level["epsilon"] == pytest.approx(TWO, rel=1e-4)
        assert (level["limit"], level["left"]) == (limit, pytest.approx(limit - TWO, rel=1e-3))


def test_without_budgets_and_under_another_label_it_goes_through(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The control; and what would do, does: fewer rounds."""
    assert main(run(images, tmp_path, "first", *counting(tmp_path, epsilon=0.99 * FOUR))) == 0
    assert main(run(images, tmp_path, "refused", *counting(tmp_path))) == 1

    assert main(run(images, tmp_path, "second")) == 0
    assert main(run(images, tmp_path, "third", *counting(tmp_path, "clinic", epsilon=4.0))) == 0
    keys = [*job(images, rounds=1, seed=2), *NOISY]
    assert main(["run", "--out", str(tmp_path / "fourth"), *keys, *counting(tmp_path)]) == 0

    found = told(capsys, "account", str(tmp_path / "budgets" / "phone-01"))["budgets"]
    assert [(each["label"], each["runs"], each["rounds"]) for each in found] == [
        ("clinic", 1, 2),
        ("ward", 2, 3),
    ]
    assert found[1]["client_level"]["epsilon"] == pytest.approx(THREE, rel=1e-4)


def test_budgets_change_nothing_of_a_run(tmp_path: Path, images: Path) -> None:
    """They are no part of the configuration: with simulated noise a run has the same bytes with and without."""
    simulated = ("--set", "privacy.simulation=true")
    assert main(run(images, tmp_path, "with", *simulated, *counting(tmp_path, epsilon=0))) == 0
    assert main(run(images, tmp_path, "without", *simulated)) == 0

    counted, alone = (dict(files(tmp_path / name)) for name in ("with", "without"))
    assert counted.pop("budgets.json")
    for each in (counted, alone):
        # Its ledger names the run.
        each.pop("privacy.json")
        each.pop("adapter/README.md")
    assert counted == alone


def test_account_for_people(tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Per label: runs, rounds, epsilon per level, limit and what is left; two figures where drop-outs matter."""
    distributed = (
        "--set",
        "noise-multiplier=3",
        "--set",
        "privacy.colluders=0",
        "--set",
        "privacy.mechanism=distributed",
    )
    assert main(run(images, tmp_path, "run", *distributed, *counting(tmp_path, epsilon=20))) == 0
    capsys.readouterr()

    assert main(["account", str(tmp_path / "budgets")]) == 0
    text = capsys.readouterr().out
    assert main(["account", str(tmp_path / "run")]) == 0
    spent = capsys.readouterr().out

    assert "data 'ward': 10 clients; those that have spent most:" in text
    assert "1 runs, 2 rounds, 2 attempts, delta 1e-05" in text
    # Two of the three clients of the quorum of ten hide one; as planned all nine others do.
    least, planned = (of_gaussians([3.0 * math.sqrt(share)] * 2, 1e-5) for share in (2 / 10, 3 / 4))
    assert f"client level: epsilon {rounded_up(least)} of 20, {rounded_down(20 - least)} left" in text
    assert f"{rounded_up(planned)} if no more dropped out than planned" in text
    assert "single examples: epsilon is not bounded" in text
    assert rounded_up(planned) in spent


def test_a_resumed_run_goes_on_counting(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed before the end of round 2 was in the log: that round is trained again, and counted again."""
    assert main(run(images, tmp_path, "run", *counting(tmp_path, epsilon=5))) == 0
    die_before_the_end_of(tmp_path / "run", 2)

    assert main(["resume", str(tmp_path / "run")]) == 0

    for each in told(capsys, "account", str(tmp_path / "budgets"))["budgets"]:
        assert (each["runs"], each["rounds"], each["attempts"]) == (1, 2, 3)
        assert each["client_level"]["epsilon"] == pytest.approx(THREE, rel=1e-4)


def test_a_resumed_run_needs_room_for_what_is_left(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a limit of two rounds the second one cannot be trained again: the run stops before it, and keeps what it has."""
    assert main(run(images, tmp_path, "run", *counting(tmp_path, epsilon=1.01 * TWO))) == 0
    die_before_the_end_of(tmp_path / "run", 2)
    before = bytes_of(tmp_path)
    capsys.readouterr()

    assert main(["resume", str(tmp_path / "run")]) == 1

    assert "the 1 rounds of this run would take" in capsys.readouterr().err
    assert bytes_of(tmp_path) == before


def test_a_resumed_run_finds_its_budgets_or_stops(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without them it would count anew, or not at all."""
    assert main(run(images, tmp_path, "run", *counting(tmp_path, epsilon=5))) == 0
    die_before_the_end_of(tmp_path / "run", 2)
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / "run", kept)

    (tmp_path / "run" / "budgets.json").unlink()
    capsys.readouterr()
    assert main(["resume", str(tmp_path / "run")]) == 1
    assert "its clients would count nothing" in capsys.readouterr().err
    (tmp_path / "budgets").rename(tmp_path / "moved")
    assert main(["resume", str(kept)]) == 1
    assert "lacks round 1 of this run, which had the input of" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "budgets")
    (tmp_path / "moved").rename(tmp_path / "budgets")
    assert main(["resume", str(kept)]) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data-label", "ward"], "--data-label and --lifetime-... need --budgets DIR"),
        (["--lifetime-epsilon", "4"], "need --budgets DIR"),
        (["--budgets", "b"], "--budgets needs --data-label LABEL"),
        (["--budgets", "b", "--data-label", "Ward 1"], "label='Ward 1'"),
        (["--budgets", "b", "--data-label", "ward", "--lifetime-epsilon", "-1"], "max_epsilon=-1.0"),
        (["--budgets", "b", "--data-label", "ward", "--lifetime-epsilon", "nan"], "max_epsilon=nan"),
        (["--budgets", "b", "--data-label", "ward", "--lifetime-delta", "1"], "delta=1.0"),
    ],
)
def test_options_that_nothing_reads_or_nothing_can_keep_are_refused(
    tmp_path: Path,
    images: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    words: str,
) -> None:
    """Before anything is made."""
    here = [str(tmp_path / "b") if option == "b" else option for option in options]

    assert main(run(images, tmp_path, "run", *here)) == 1

    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_was_tampered_with_stops_run_and_account(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By file name, before a run folder is made; the folders of the other clients are let go of."""
    assert main(run(images, tmp_path, "first", *counting(tmp_path, epsilon=50))) == 0
    (tmp_path / "budgets" / "phone-02" / "data-ward.json").unlink()
    capsys.readouterr()

    assert main(run(images, tmp_path, "second", *counting(tmp_path))) == 1
    assert "phone-02/data-ward.json is missing with the 2 entries" in capsys.readouterr().err
    assert main(["account", str(tmp_path / "budgets")]) == 1
    assert "phone-02/data-ward.json is missing with the 2 entries" in capsys.readouterr().err
    assert not (tmp_path / "second").exists()
    assert len(look_at_budgets(tmp_path / "budgets" / "phone-01").ledgers[0].entries) == 2
    assert main(["account", str(tmp_path / "budgets"), "--set", "privacy.delta=0.1"]) == 1
    assert "changes nothing that was spent" in capsys.readouterr().err


SECRET = {
    "secure_sum": "plain",
    "privacy__adjacency": "add-or-remove",
    "privacy__sample_rate": 0.5,
    "training__steps": 1,
}


def test_rounds_by_secret_draws_count_in_full_for_whom_they_draw(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of every client those that it took part in, by the tests' own accountant, and no other; people are told so."""
    options = counting(tmp_path, epsilon=1.001 * FOUR)
    assert main(run(images, tmp_path, "run", *options, **{**SECRET, "rounds": 4})) == 0

    budgets = told(capsys, "account", str(tmp_path / "budgets"))["budgets"]

    spent = {each["client"]: each["client_level"]["epsilon"] for each in budgets}
    for each in look_at_all(tmp_path / "budgets"):
        assert all(entry.counted is not None and entry.counted.sample_rate == 1 for entry in each.entries)
    lines = metrics(tmp_path / "run")
    drawn = {client: [line for line in lines if client in line["survivors"]] for client in lines[0]["cohort"]}  # type: ignore[operator,attr-defined]
    assert any(drawn.values())
    for client, rounds in drawn.items():
        ours = composed([((client,), 3.0)] * len(rounds))
        assert spent.get(client, 0.0) == pytest.approx(ours, rel=1e-3)
    assert main(["account", str(tmp_path / "budgets")]) == 0
    assert OF_DRAWS in " ".join(capsys.readouterr().out.split())


def test_whether_a_client_joins_does_not_depend_on_its_secret_draws(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of four rounds is refused where only three fit, whatever is drawn."""
    options = counting(tmp_path, epsilon=1.001 * THREE)

    assert main(run(images, tmp_path, "run", *options, **{**SECRET, "rounds": 4})) == 1

    assert "all rounds must fit in full: who joins must not depend on secret draws" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
