"""`rbla-secure audit`: it ends well on what we ship, and finds every fault that a claim has had, planted again."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rbla_secure.cli import main
from rbla_secure.config import load_config
from rbla_secure.errors import PrivacyError, RunFolderError
from rbla_secure.evaluation.privacy_audit import suite
from rbla_secure.evaluation.privacy_audit.results import Report
from rbla_secure.evaluation.privacy_audit.suite import FILE, AuditTerms, audit, prepared
from rbla_secure.privacy.auditing import LEAST_SCORES
from tests.support import planted_privacy as planted

THIN = "largest change, in the rarest rows"
FEWEST = "with as many drop-outs as the rarest rows open over"
DRAWN = "largest gradient, every example drawn"
DIVISOR = "the divisor of a step"
SWITCH = "others' gradients that the example could switch on"

CLIENTS = {
    "noise-multiplier": 1.0,
    "secure-sum": "plain",
    "clip-norm": 1.0,
    "quantization.bound": 1.0,
    "privacy.colluders": 1,
}
CENTRAL = {**CLIENTS, "privacy.mechanism": "central", "privacy.colluders": 0}
ABSENT = {**CENTRAL, "noise-multiplier": 3.0, "privacy.adjacency": "add-or-remove"}
MATRIX = {
    **CENTRAL,
    "privacy.mechanism": "banded-matrix",
    "privacy.separation": 3,
    "tiers.large.cohort": 6,
    "noise-multiplier": 2.0,
}
DRAWN_CLIENTS = {
    **ABSENT,
    "noise-multiplier": 0.7,
    "privacy.sample-rate": 0.02,
    "privacy.delta": 1e-3,
    "min-holders": 1,
    "rounds": 3,
}
SECRETLY = "nobody else changes anything, drawn with probability 0.02, 3 rounds"
EXAMPLES = {"sample-level.noise-multiplier": 1.0, "training.steps": 3}


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Leaves an audit some of its cases: tests have no time for all."""

    def choose(*names: str) -> None:
        def some(config: Any) -> Any:
            cases, skipped, remarks = prepared(config)
            chosen = [case for case in cases if case.name in names]
            assert len(chosen) == len(names), [case.name for case in cases]
            return chosen, skipped, remarks

        monkeypatch.setattr(suite, "prepared", some)

    return choose


def written(folder: Path, settings: dict[str, object], *, large: int, small: int) -> Path:
    """A configuration file: `large` clients of rank 2, `small` ones of rank 1."""
    tiers = {"large": (2, large), "small": (1, small)}
    lines = [
        f"[tiers.{name}]\nrank = {rank}\nclients = {count}" for name, (rank, count) in tiers.items() if count
    ]
    path = folder / "config.toml"
    path.write_text("\n".join(lines))
    load_config(path, as_sets(settings))
    return path


def as_sets(settings: dict[str, object]) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items()]


def command(
    folder: Path,
    settings: dict[str, object],
    *,
    trials: int = 100,
    large: int = 3,
    small: int = 3,
    more: tuple[str, ...] = (),
) -> int:
    """The exit code of the command; its results lie in the folder out/."""
    path = written(folder, settings, large=large, small=small)
    sets = [argument for text in as_sets(settings) for argument in ("--set", text)]
    return main(["audit", str(path), *sets, "--out", str(folder / "out"), "--trials", str(trials), *more])


def report_in(folder: Path) -> Report:
    found = json.loads((folder / "out" / FILE).read_text())["report"]
    return Report.model_validate_json(json.dumps(found))


@dataclass
class Found:
    """A planted fault, and an audit that must find it; the case of its control, where that has another name."""

    plant: planted.Plant
    settings: dict[str, object]
    case: str
    observers: frozenset[str]
    trials: int = 100
    large: int = 10
    small: int = 4
    control: str = ""


COMMON = "largest change, in the rows of all clients"
READERS = frozenset({"public-reader", "participant"})
EVERYONE = frozenset({"everyone outside"})
PLANTED = {
    "a band closes below min-holders": Found(
        planted.bands_close_by_count,
        {**ABSENT, "min-holders": 8},
        "exactly min-holders clients hold the rarest rows",
        READERS,
        large=8,
        small=2,
    ),
    "a round ends below a threshold": Found(
        planted.bands_close_by_count,
        ABSENT,
        "exactly so many clients as a threshold would ask for",
        READERS,
        trials=200,
        large=8,
        small=2,
    ),
    "plain mode counts all members": Found(
        planted.everybody_is_counted,
        {**CLIENTS, "min-holders": 2},
        FEWEST,
        frozenset({"participant"}),
        trials=150,
        large=8,
        small=12,
    ),
    "examples in one batch": Found(
        planted.examples_in_one_batch,
        {**EXAMPLES, "sample-level.noise-multiplier": 0.5},
        SWITCH,
        EVERYONE,
        trials=220,
    ),
    "a step divided by the number of examples": Found(
        planted.own_number_of_examples, EXAMPLES, DIVISOR, EVERYONE
    ),
    "own noise is counted": Found(
        planted.own_noise_is_counted,
        {**CLIENTS, "noise-multiplier": 0.3, "privacy.colluders": 7},
        THIN,
        frozenset({"participant"}),
        trials=240,
        small=0,
    ),
    "most noise is missing": Found(planted.noise_is_missing, CLIENTS, THIN, READERS, trials=300),
    "the clip is too long": Found(planted.clip_is_too_long, CLIENTS, THIN, READERS, trials=300),
    "only holders add noise": Found(
        planted.only_holders_add_noise, CLIENTS, THIN, READERS, trials=150, large=4, small=24
    ),
    "rows are divided first": Found(
        planted.rows_are_divided_first, CLIENTS, THIN, READERS, trials=150, large=4, small=16
    ),
    "rounds are not apart": Found(
        planted.rounds_are_not_apart,
        {**MATRIX, "rounds": 3, "noise-multiplier": 0.6},
        f"{THIN}, 3 of 3 rounds",
        READERS,
        control=f"{THIN}, 1 of 3 rounds",
        trials=300,
        large=18,
        small=0,
    ),
    "the norm of the column is forgotten": Found(
        planted.norm_of_the_column_is_forgotten,
        {**MATRIX, "rounds": 3},
        f"{THIN}, 1 of 3 rounds",
        READERS,
        large=18,
        small=0,
    ),
    "one turn is counted": Found(
        planted.one_turn_is_counted,
        {**MATRIX, "rounds": 5, "privacy.separation": 2, "noise-multiplier": 0.5},
        f"{THIN}, 3 of 5 rounds",
        READERS,
        trials=400,
        large=12,
        small=0,
    ),
    "noise is used again": Found(
        planted.noise_is_used_again,
        {**MATRIX, "rounds": 3},
        f"{THIN}, 1 of 3 rounds, by the correlation measured",
        READERS,
        large=18,
        small=0,
    ),
    "the lowest band has no noise": Found(
        planted.lowest_band_has_no_noise,
        {**CENTRAL, "secure-sum": "masking", "min-holders": 2},
        COMMON,
        READERS,
        large=3,
        small=3,
    ),
    "everybody is drawn": Found(
        planted.everybody_is_drawn,
        DRAWN_CLIENTS,
        SECRETLY,
        READERS,
        trials=150,
        large=2,
        small=1,
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    only: Callable[..., None],
) -> None:
    """Exit code 1, one line that names the claim, and in the table the observers who see too much."""
    fault = PLANTED[name]
    only(fault.case)
    fault.plant(monkeypatch)

    code = command(tmp_path, fault.settings, trials=fault.trials, large=fault.large, small=fault.small)

    error = capsys.readouterr().err
    assert code == 1
    assert error.count("\n") == 1
    assert error.startswith("rbla-secure: the claim of epsilon=")
    assert f"{fault.case!r}" in error or fault.case in error
    assert {row.observer for row in report_in(tmp_path).refuted} >= fault.observers


# Others of the classical faults have the control of this one.
CONTROLS = [
    name
    for name in PLANTED
    if name != "one turn is counted" and ("missing" in name or PLANTED[name].case != THIN or "own" in name)
]


@pytest.mark.parametrize("name", CONTROLS)
def test_the_same_audit_without_the_fault_refutes_nothing(
    name: str, tmp_path: Path, only: Callable[..., None]
) -> None:
    """The control."""
    fault = PLANTED[name]
    only(fault.control or fault.case)

    assert command(tmp_path, fault.settings, trials=fault.trials, large=fault.large, small=fault.small) == 0


MASKED = {**CLIENTS, "secure-sum": "masking", "min-holders": 2}
RECOVERED = {
    **MASKED,
    "masking.profile": "semi-honest",
    "privacy.colluders": 0,
    "privacy.recovered-dropout": 0.34,
}
GOOD, WORSE = "with as many drop-outs as are made good", "with one drop-out more than is provided for"
OTHERS, ALL_ROWS = "the same beside the same change of everybody else", "largest change, in all rows"
UNCLIPPED = "a change that is just not clipped"
ABSENCE = [
    "nobody else changes anything",
    "everybody else sends the same change",
    COMMON,
    "exactly min-holders clients hold the rarest rows",
    "exactly so many clients as a threshold would ask for",
    "nobody else is there",
]
IN_TURNS = [
    f"{THIN}, 2 of 5 rounds",
    f"{OTHERS}, 2 of 5 rounds",
    f"{ALL_ROWS}, 2 of 5 rounds",
    f"{COMMON}, 2 of 5 rounds",
    f"{THIN}, 2 of 5 rounds, by the correlation measured",
    f"{THIN}, 2 of 5 rounds, of which round 2 ends",
]
DRAWN_SO = "drawn with probability 0.02"
SECRET_DRAWS = [
    f"nobody else changes anything, {DRAWN_SO}, 1 round",
    f"nobody else changes anything, {DRAWN_SO}, 3 rounds",
    f"everybody else sends the same change, {DRAWN_SO}, 3 rounds",
    f"{COMMON}, {DRAWN_SO}, 3 rounds",
    f"nobody else is there, {DRAWN_SO}, 3 rounds",
]
# What is configured, the cases that apply to it, and those of them that there is time to play.
SHIPPED: dict[str, tuple[dict[str, object], list[str], list[str]]] = {
    "plain": (
        {**CLIENTS, "min-holders": 2},
        [THIN, OTHERS, ALL_ROWS, COMMON, WORSE],
        [OTHERS, ALL_ROWS, COMMON],
    ),
    "masking": (MASKED, [THIN, OTHERS, ALL_ROWS, COMMON, WORSE], [COMMON, WORSE]),
    "recovered": (RECOVERED, [THIN, OTHERS, ALL_ROWS, COMMON, GOOD], [GOOD]),
    "adaptive": (
        {**CLIENTS, "privacy.clipping": "adaptive", "privacy.count-noise": 3.0},
        [THIN, OTHERS, ALL_ROWS, COMMON, UNCLIPPED],
        [ALL_ROWS, UNCLIPPED],
    ),
    "central": (CENTRAL, [THIN, OTHERS, ALL_ROWS, COMMON], [ALL_ROWS]),
    "client absent": (ABSENT, ABSENCE, ABSENCE),
    "noise over rounds": (
        {
            **CENTRAL,
            "privacy.mechanism": "banded-matrix",
            "privacy.separation": 3,
            "tiers.large.cohort": 1,
            "tiers.small.cohort": 1,
            "min-holders": 1,
            "rounds": 5,
        },
        IN_TURNS,
        IN_TURNS[-2:],
    ),
    "secret draws": ({**DRAWN_CLIENTS, "privacy.delta": 1e-5}, SECRET_DRAWS, SECRET_DRAWS[-2:]),
    "per layer, lora-B, in turns, padded": (
        {
            **CLIENTS,
            "privacy.clipping": "per-layer",
            "lora.factors": "lora-b",
            "training.rows": "in-turns",
            "upload": "padded",
        },
        [THIN, OTHERS, ALL_ROWS, COMMON, WORSE, FEWEST],
        [ALL_ROWS, FEWEST],
    ),
    "encrypted": ({**CLIENTS, "secure-sum": "homomorphic"}, [THIN, OTHERS, ALL_ROWS, COMMON], [ALL_ROWS]),
    "examples": (
        EXAMPLES,
        ["largest gradient, drawn with probability 0.05", DRAWN, DIVISOR, SWITCH],
        [DRAWN],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_what_we_ship_is_not_refuted(
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    only: Callable[..., None],
) -> None:
    """Every case that applies can be played; of some of them few trials: exit code 0, and one JSON object that says all."""
    settings, applying, played = SHIPPED[name]
    cases, skipped, _ = prepared(
        load_config(written(tmp_path, settings, large=3, small=3), as_sets(settings))
    )
    assert [case.name for case in cases] == applying
    assert skipped
    assert all(each.reason for each in skipped)
    only(*played)
    monkeypatch.setattr(suite, "LEAST_TRIALS", LEAST_SCORES)

    code = command(tmp_path, settings, more=("--json", "--seconds", "1"))

    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 0
    assert {row["case"] for row in told["rows"]} == set(played)
    assert all(row["trials"] >= LEAST_SCORES for row in told["rows"])
    assert len(told["not_tried"]) == len(skipped)
    verdicts = [
        line.split("|")[-2].strip()
        for line in (tmp_path / "out" / "audit.md").read_text().splitlines()
        if line.startswith(tuple(f"| {case} |" for case in played))
    ]
    assert verdicts == ["TOO FEW TRIALS" if row["too_few"] else "holds" for row in told["rows"]]


def test_it_is_not_blind(tmp_path: Path, only: Callable[..., None]) -> None:
    """Where nothing is wrong, single uploads show the server a good part of what is claimed of them."""
    only(THIN)

    assert command(tmp_path, CLIENTS, trials=300, large=12, small=1) == 0

    (row,) = (row for row in report_in(tmp_path).rows if row.observer == "server")
    assert row.gaussian is not None
    assert 0.3 * row.claimed < row.gaussian <= row.claimed
    assert 0 < row.clopper_pearson < row.gaussian


@pytest.mark.parametrize(
    ("settings", "large", "case", "share"),
    [
        (
            {**MATRIX, "rounds": 3, "noise-multiplier": 0.5},
            18,
            f"{THIN}, 1 of 3 rounds",
            0.3,
        ),
        (
            {**DRAWN_CLIENTS, "privacy.sample-rate": 0.5, "noise-multiplier": 0.4, "rounds": 1},
            2,
            "nobody else changes anything, drawn with probability 0.5, 1 round",
            0.05,
        ),
    ],
    ids=["noise over rounds", "secret draws"],
)
def test_it_is_not_blind_over_rounds(  # noqa: PLR0917  # the cases of a table
    settings: dict[str, Any], large: int, case: str, share: float, tmp_path: Path, only: Callable[..., None]
) -> None:
    """Where nothing is wrong, readers are shown a part of what is claimed, and no more than it."""
    only(case)

    assert command(tmp_path, settings, trials=400, large=large, small=0) == 0

    for row in report_in(tmp_path).rows:
        shown = row.clopper_pearson if row.gaussian is None else row.gaussian
        assert share * row.claimed < shown <= row.claimed


def terms(tmp_path: Path, **changes: object) -> AuditTerms:
    path = written(tmp_path, CLIENTS, large=6, small=1)
    fields = {"trials": 120, "seconds": 600.0, "confidence": 0.99, **changes}
    return AuditTerms(config=load_config(path, as_sets(CLIENTS)), **fields)  # type: ignore[arg-type]


def test_an_audit_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: Callable[..., None]
) -> None:
    """Interrupted after some batches, it keeps their scores, makes the others, and a finished one makes none."""
    only(THIN)
    monkeypatch.setattr(suite, "_BATCH_SECONDS", 0.05)
    folder, batches = tmp_path / "out", []

    class Interrupted(Exception):  # noqa: N818
        pass

    def stop(_case: str, done: int, _trials: int) -> None:
        batches.append(done)
        if done > 20:
            raise Interrupted

    with pytest.raises(Interrupted):
        audit(folder, terms(tmp_path), stop)
    before = json.loads((folder / "scores-00.json").read_text())
    assert json.loads((folder / FILE).read_text())["report"] is None

    report = audit(folder, terms(tmp_path), lambda *_: None)

    after = json.loads((folder / "scores-00.json").read_text())
    for observer, values in before["with_canary"].items():
        assert after["with_canary"][observer][: len(values)] == values
        assert len(after["with_canary"][observer]) > len(values)
    assert all(row.trials >= 120 for row in report.rows)
    monkeypatch.setattr(suite, "prepared", lambda _: pytest.fail("a finished audit plays nothing"))
    assert audit(folder, terms(tmp_path), lambda *_: None) == report


@pytest.mark.parametrize("change", [{"trials": 300}, {"seconds": 5.0}, {"confidence": 0.9}])
def test_a_folder_of_other_terms_is_refused(
    change: dict[str, object], tmp_path: Path, only: Callable[..., None]
) -> None:
    """More trials after a look at the first ones would be another test."""
    only(THIN)
    audit(tmp_path / "out", terms(tmp_path), lambda *_: None)
    before = (tmp_path / "out" / FILE).read_bytes()

    with pytest.raises(
        RunFolderError, match="is of another configuration, number of trials, time or confidence"
    ):
        audit(tmp_path / "out", terms(tmp_path, **change), lambda *_: None)

    assert (tmp_path / "out" / FILE).read_bytes() == before


@pytest.mark.parametrize("name", [FILE, "scores-00.json"])
def test_damaged_files_are_named(name: str, tmp_path: Path, only: Callable[..., None]) -> None:
    only(THIN)
    audit(tmp_path / "out", terms(tmp_path), lambda *_: None)
    if name != FILE:
        file = json.loads((tmp_path / "out" / FILE).read_text())
        (tmp_path / "out" / FILE).write_text(json.dumps({**file, "report": None}))
    (tmp_path / "out" / name).write_text("{}")

    with pytest.raises(RunFolderError, match=f"{name} is damaged"):
        audit(tmp_path / "out", terms(tmp_path), lambda *_: None)


def test_scores_are_of_one_audit_and_one_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: Callable[..., None]
) -> None:
    """Those of a sound configuration or version would pass a faulty one, and the other way round."""
    only(THIN)
    for name in ("first", "second"):
        audit(tmp_path / name, terms(tmp_path), lambda *_: None)
    file, scores = tmp_path / "second" / FILE, tmp_path / "second" / "scores-00.json"
    own = file.read_bytes()

    file.write_text(json.dumps({**json.loads(own), "report": None}))
    scores.write_bytes((tmp_path / "first" / "scores-00.json").read_bytes())
    with pytest.raises(RunFolderError, match=r"scores-00\.json is of another audit"):
        audit(tmp_path / "second", terms(tmp_path), lambda *_: None)
    file.unlink()
    with pytest.raises(RunFolderError, match=r"is of an audit whose audit\.json is gone"):
        audit(tmp_path / "second", terms(tmp_path), lambda *_: None)
    file.write_bytes(own)
    monkeypatch.setattr(suite, "_sources", lambda: "00" * 32)
    with pytest.raises(RunFolderError, match="is of another version of rbla-secure"):
        audit(tmp_path / "second", terms(tmp_path), lambda *_: None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "nothing is claimed that could be audited"),
        ({**CLIENTS, "privacy.simulation": "true"}, "privacy.simulation=true must be false"),
        ({**EXAMPLES, "privacy.simulation": "true"}, "privacy.simulation=true must be false"),
    ],
)
def test_what_cannot_be_audited_is_refused(settings: dict[str, object], message: str, tmp_path: Path) -> None:
    path = written(tmp_path, settings, large=3, small=3)
    with pytest.raises(PrivacyError, match=message):
        prepared(load_config(path, as_sets(settings)))


def test_all_bounds_share_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: Callable[..., None]
) -> None:
    """Of an audit with a confidence of 99 % and four views, each may err with a quarter of 1 %."""
    only(THIN)
    seen, honest = [], suite.lower_bounds

    def watched(*scores: Any, delta: float, confidence: float) -> Any:
        seen.append(confidence)
        return honest(*scores, delta=delta, confidence=confidence)

    monkeypatch.setattr(suite, "lower_bounds", watched)
    monkeypatch.setattr(suite, "LEAST_TRIALS", LEAST_SCORES)
    audit(tmp_path / "out", terms(tmp_path, seconds=1e-3), lambda *_: None)

    assert seen == pytest.approx([1 - 0.01 / 4] * 4)


def test_time_limits_trials(tmp_path: Path, only: Callable[..., None]) -> None:
    """As many trials as fit, but never so few that nothing could show."""
    only(THIN)
    report = audit(tmp_path / "out", terms(tmp_path, trials=10**6, seconds=1e-3), lambda *_: None)
    assert {row.trials for row in report.rows} <= set(range(100, 110))
