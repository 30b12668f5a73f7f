"""An evaluation as it is kept, told and gone on with; what single runs come to is told in test_arena.py."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rbla_secure.config import load_config
from rbla_secure.config.choices import FilterName, SecureSumMode
from rbla_secure.errors import EvaluationError, RunFolderError
from rbla_secure.evaluation import suite
from rbla_secure.evaluation.attacked_run import Outcome
from rbla_secure.evaluation.defences import CONFIGURED, attackers_in, defences
from rbla_secure.evaluation.poisoning.registry import BACKDOORS, AttackName, TriggerName
from rbla_secure.evaluation.suite import FILE, Cell, EvaluationTerms, evaluate, read, summed, worst
from rbla_secure.report.evaluation import in_plain_words, markdown, page

LARGE = [f"tiers.{tier}.clients=10" for tier in ("phone", "laptop", "workstation", "datacenter")]
CONFIG = load_config(None, LARGE)
TERMS = EvaluationTerms.of(CONFIG, share=0.2, seeds=2, quick=True)


def outcome(**changes: object) -> Outcome:
    return replace(Outcome(accuracy=0.8, success=0.03, attacks_seen=8, seconds=1.0), **changes)  # type: ignore[arg-type]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[tuple[FilterName, AttackName, int]]:
    """Runs that take no time; what was asked for is written down."""
    asked: list[tuple[FilterName, AttackName, int]] = []

    def play(config: object, attack: AttackName, **_: object) -> Outcome:
        asked.append((config.robustness.filter, attack, config.seed))  # type: ignore[attr-defined]
        return outcome(success=0.99 if attack is AttackName.RANK_INFLATION else 0.03)

    monkeypatch.setattr(suite, "attacked_run", play)
    return asked


def test_every_cell_is_run_once_and_written_down(
    tmp_path: Path, played: list[tuple[FilterName, AttackName, int]]
) -> None:
    told: list[tuple[str, int]] = []
    cells = evaluate(tmp_path, TERMS, lambda cell, total: told.append((cell.attack, total)))

    assert len(cells) == len({cell.key for cell in cells}) == 3 * 6 * 2 == len(played) == len(told)
    assert {total for _, total in told} == {36}
    assert read(tmp_path, TERMS) == cells


def test_an_interrupted_evaluation_goes_on_where_it_stopped(
    tmp_path: Path, played: list[tuple[FilterName, AttackName, int]]
) -> None:
    class Stop(Exception):  # noqa: N818
        pass

    def stop(_: Cell, __: int) -> None:
        if len(played) == 7:
            raise Stop

    with pytest.raises(Stop):
        evaluate(tmp_path, TERMS, stop)
    assert len(read(tmp_path, TERMS)) == 7

    evaluate(tmp_path, TERMS, lambda *_: None)

    assert len(played) == 36


@pytest.mark.usefixtures("played")
def test_evaluations_are_not_mixed(tmp_path: Path) -> None:
    """Another configuration, another share, a damaged file: named, and nothing is changed."""
    evaluate(tmp_path, TERMS, lambda *_: None)
    before = (tmp_path / FILE).read_bytes()
    other = load_config(None, [*LARGE, "clip-norm=0.5"])

    scattered = replace(TERMS, trigger=TriggerName.SCATTERED)
    for terms in (replace(TERMS, config=other), replace(TERMS, share=0.1), scattered):
        with pytest.raises(RunFolderError, match="choose another --out folder"):
            evaluate(tmp_path, terms, lambda *_: None)
    assert (tmp_path / FILE).read_bytes() == before

    (tmp_path / FILE).write_bytes(before.replace(b'"format": 2', b'"format": 1'))
    with pytest.raises(RunFolderError, match="is of format 1 and must be of 2"):
        evaluate(tmp_path, TERMS, lambda *_: None)

    (tmp_path / FILE).write_bytes(before[:-9])
    with pytest.raises(RunFolderError, match="is damaged"):
        evaluate(tmp_path, TERMS, lambda *_: None)


def test_the_full_grid_has_every_filter_and_every_attack() -> None:
    terms = EvaluationTerms.of(CONFIG, share=0.1, seeds=1, quick=False)
    rows = terms.rows()

    assert set(terms.attacks) == set(AttackName)
    assert {row.config.robustness.filter for row in rows} == set(FilterName)
    assert {row.config.robustness.group_size for row in rows} == {0, 3, 5}
    assert len({row.name for row in rows}) == len(rows)
    assert rows[0].name == CONFIGURED
    assert rows[0].config == CONFIG


def test_defences_stand_against_as_many_as_attack() -> None:
    """F is the configuration's own, or the number of attackers; what cannot be met is told with its reason."""
    assert attackers_in(CONFIG, 0.2) == 8
    rows = {row.name: row for row in defences(CONFIG, share=0.2)}

    assert rows["mean"].config.robustness.f == 0
    assert rows["mean, quorum"].config.robustness.f == 8
    assert rows["trimmed-mean, quorum"].config.secure_sum is SecureSumMode.PLAIN
    assert "groups do not stand against f=8" in rows["median over groups of 3"].refused
    assert not rows["mean"].refused


def cells(table: dict[str, dict[AttackName, tuple[float, float]]], seeds: Sequence[int] = (0,)) -> list[Cell]:
    return [
        Cell(
            defence=name,
            attack=attack.value,
            seed=seed,
            accuracy=accuracy,
            success=success,
            attackers_rejected=None,
            honest_rejected=None,
            rejected_by_rank={},
            bands_closed=0.0,
            attacks_seen=8,
            strength=None,
            refused="",
            seconds=1.0,
        )
        for name, row in table.items()
        for attack, (accuracy, success) in row.items()
        for seed in seeds
    ]


FOUND = cells(
    {
        CONFIGURED: {
            AttackName.NONE: (0.80, 0.03),
            AttackName.SIGN_FLIP: (0.79, 0.02),
            AttackName.ALIE: (0.70, 0.03),
            AttackName.BACKDOOR: (0.80, 0.55),
        },
        "mean": {AttackName.NONE: (0.80, 0.03), AttackName.BACKDOOR: (0.80, 0.60)},
        "trimmed-mean, quorum": {
            AttackName.NONE: (0.79, 0.03),
            AttackName.SIGN_FLIP: (0.78, 0.02),
            AttackName.ALIE: (0.78, 0.03),
            AttackName.BACKDOOR: (0.79, 0.05),
        },
    }
)


def test_what_is_withstood_is_measured_against_no_attack() -> None:
    """Five points of accuracy, and ten per cent of triggers where a trigger is the aim."""
    found = summed(FOUND)

    withstood = {
        attack: found[CONFIGURED, attack].withstood(attack) for name, attack in found if name == CONFIGURED
    }

    assert withstood == {
        AttackName.NONE: True,
        AttackName.SIGN_FLIP: True,
        AttackName.ALIE: False,
        AttackName.BACKDOOR: False,
    }
    assert found[CONFIGURED, AttackName.ALIE].loss == pytest.approx(0.10)


def test_what_was_not_attacked_is_neither_withstood_nor_failed() -> None:
    """A federation that the plan refuses, and one of whose attackers nothing was seen, in every place that tells of it."""
    untried = [
        cell.model_copy(update={"refused": "the plan refuses it", "success": 0.0})
        if cell.attack == AttackName.BACKDOOR
        else cell.model_copy(update={"attacks_seen": 0})
        if cell.attack == AttackName.SIGN_FLIP
        else cell
        for cell in FOUND
    ]
    found = summed(untried)
    rows = defences(CONFIG, share=0.2)
    text = "\n".join(in_plain_words(rows, untried, share=0.2))

    for attack in (AttackName.BACKDOOR, AttackName.SIGN_FLIP):
        each = found[CONFIGURED, attack]
        assert not each.withstood(attack)
        assert not each.failed(attack)
        assert f"Not tested, so neither withstood nor not: {attack}" in text
    assert "Withstood: nothing." in text
    assert "Would withstand all of these" not in text
    assert "None of the defences tried here withstands all of these." in text
    (row,) = [line for line in markdown(rows, untried).splitlines() if line.startswith("| as configured")]
    assert row.count("not tested") == 2
    assert page(rows, untried, share=0.2).count(">not tested</td>") >= 4
    assert worst({attack: each for (name, attack), each in found.items() if name == CONFIGURED}) == (
        "alie: +10.0 points lost"
    )


def test_one_seed_that_was_not_attacked_leaves_the_cell_untested() -> None:
    """A mean over the others would be one over fewer seeds than it says, or over zeros."""
    row = {AttackName.NONE: (0.8, 0.02), AttackName.BACKDOOR: (0.8, 0.02)}
    twice = cells({"mean": row}, [0, 1])
    twice[-1] = twice[-1].model_copy(update={"attacks_seen": 0})

    assert not summed(cells({"mean": row}, [0, 1]))["mean", AttackName.BACKDOOR].not_tested
    assert "no update" in summed(twice)["mean", AttackName.BACKDOOR].not_tested


def test_a_trigger_that_works_on_one_seed_is_not_withstood() -> None:
    """At nine and at eleven per cent: the mean is within the limit, the attack is not withstood."""
    row = {AttackName.NONE: (0.8, 0.02)}
    seeds = cells({"mean": row | {AttackName.BACKDOOR: (0.8, 0.05)}}) + cells(
        {"mean": row | {AttackName.BACKDOOR: (0.8, 0.11)}}, [1]
    )

    each = summed(seeds)["mean", AttackName.BACKDOOR]
    assert each.success <= 0.1 < each.highest
    assert not each.withstood(AttackName.BACKDOOR)


def test_an_attack_that_did_not_happen_ends_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name; its cell is not written, and those before it are kept."""

    def play(_: object, attack: AttackName, **__: object) -> Outcome:
        if attack is AttackName.BACKDOOR:
            raise EvaluationError("round 1: attacker a was refused")
        return outcome()

    monkeypatch.setattr(suite, "attacked_run", play)

    with pytest.raises(EvaluationError, match="was refused"):
        evaluate(tmp_path, TERMS, lambda *_: None)

    written = read(tmp_path, TERMS)
    assert [cell.attack for cell in written] == ["none", "sign-flip", "alie"]


def test_seeds_are_averaged() -> None:
    twice = cells({"mean": {AttackName.NONE: (0.8, 0.02)}}) + cells(
        {"mean": {AttackName.NONE: (0.6, 0.04)}}, [1]
    )
    each = summed(twice)["mean", AttackName.NONE]
    assert (each.accuracy, each.success) == (pytest.approx(0.7), pytest.approx(0.03))


def test_the_worst_attack_is_the_trigger_that_works_or_the_largest_loss() -> None:
    found = summed(FOUND)

    def row(name: str) -> dict[AttackName, suite.Summed]:
        return {attack: each for (own, attack), each in found.items() if own == name}

    assert worst(row(CONFIGURED)) == "backdoor: trigger works 55%"
    assert worst(row("trimmed-mean, quorum")).startswith(("sign-flip: +1.0", "alie: +1.0"))
    assert worst({}) == "-"


def test_the_words_say_what_fails_and_what_would_do() -> None:
    text = " ".join(in_plain_words(defences(CONFIG, share=0.2), FOUND, share=0.2))

    assert "Withstood: sign-flip." in text
    assert "Not withstood: alie: 10.0 points of accuracy lost." in text
    assert "Not withstood: backdoor: 0.0 points of accuracy lost, and the trigger works for 55%." in text
    assert "Would withstand all of these: trimmed-mean, quorum." in text
    assert "What was not tried is not covered" in text


def test_the_table_ends_with_the_worst_attack() -> None:
    rows = defences(CONFIG, share=0.2)
    lines = markdown(rows, FOUND).splitlines()

    assert lines[0].endswith("| worst attack |")
    assert (
        "| as configured | one sum | 80.0 / 3 | 79.0 | 70.0 | 80.0 / 55 | backdoor: trigger works 55% |"
        in lines
    )
    assert any("groups do not stand against f=8" in line for line in lines)
    assert {line.count("|") for line in lines[:2]} == {8}


def test_the_page_stands_alone_and_shows_the_numbers() -> None:
    """No script, nothing from elsewhere; both heat maps; names are escaped."""
    rows = [replace(row, name=row.name.replace("mean", "<mean>")) for row in defences(CONFIG, share=0.2)]
    renamed = [cell.model_copy(update={"defence": cell.defence.replace("mean", "<mean>")}) for cell in FOUND]

    text = page(rows, renamed, share=0.2)

    assert "<script" not in text
    assert "http" not in text
    assert "&lt;mean&gt;" in text
    assert "<mean>" not in text
    assert ">55</td>" in text
    assert text.count("<table>") == 2


def test_the_quick_grid_has_the_attacks_that_tell_most() -> None:
    assert AttackName.NONE in TERMS.attacks
    assert set(TERMS.attacks) & BACKDOORS
    assert json.dumps([row.name for row in TERMS.rows()]) == json.dumps(
        [CONFIGURED, "mean", "trimmed-mean, quorum"]
    )
