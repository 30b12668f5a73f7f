"""How many trials an audit takes: what so many can show at best, and that it says so where that is less than the claim."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
from scipy import stats

from rbla_secure.cli import main
from rbla_secure.evaluation.privacy_audit import suite
from rbla_secure.evaluation.privacy_audit.case import Case, Trial
from rbla_secure.privacy.auditing import LEAST_SCORES, lower_bounds, most_shown, scores_needed

DELTA, CONFIDENCE = 1e-3, 0.999


def by_hand(count: int, *, gaussian: bool) -> float:
    """Three quarters of the scores judge, none is wrong, and a sixth of the error is left to each of six rates."""
    judging = count - count // 4
    limit = 1 - ((1 - CONFIDENCE) / 6) ** (1 / judging)
    if not gaussian:
        return math.log((1 - DELTA - limit) / limit)
    # Balle and Wang 2018: the epsilon at which delta is what a Gaussian of this distance leaves.
    mu, low, high = -2 * stats.norm.ppf(limit), 0.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        there, absent = stats.norm.cdf([mu / 2 - middle / mu, -mu / 2 - middle / mu])
        low, high = (middle, high) if there - math.exp(middle) * absent > DELTA else (low, middle)
    return high


@pytest.mark.parametrize("count", [40, 100, 2000, 10**6])
def test_the_most_that_trials_can_show(count: int) -> None:
    """By hand, and as the bound of scores that are all told apart; one that is not shows less."""
    most = most_shown(count, count, delta=DELTA, confidence=CONFIDENCE)
    assert most.clopper_pearson == pytest.approx(by_hand(count, gaussian=False))
    assert most.gaussian == pytest.approx(by_hand(count, gaussian=True), rel=1e-6)

    there, absent = np.ones(count), np.zeros(count)
    found = lower_bounds(there, absent, delta=DELTA, confidence=CONFIDENCE)
    assert found == most
    there[-1], absent[-1] = 0.0, 1.0
    assert (
        lower_bounds(there, absent, delta=DELTA, confidence=CONFIDENCE).clopper_pearson < most.clopper_pearson
    )


@pytest.mark.parametrize("gaussian", [False, True])
@pytest.mark.parametrize("claim", [1.5, 4.0, 12.0])
def test_so_many_trials_would_do(claim: float, gaussian: bool) -> None:  # noqa: FBT001
    """With the number that is told the best case exceeds the claim, and with one less it does not."""
    needed = scores_needed(claim, delta=DELTA, confidence=CONFIDENCE, gaussian=gaussian)
    assert needed is not None
    assert by_hand(needed, gaussian=gaussian) > claim
    assert needed == LEAST_SCORES or by_hand(needed - 1, gaussian=gaussian) <= claim


def test_a_claim_that_no_trials_refute_is_none() -> None:
    assert scores_needed(40.0, delta=DELTA, confidence=CONFIDENCE, gaussian=False) is None
    assert scores_needed(1e9, delta=DELTA, confidence=CONFIDENCE, gaussian=True) is None


@final
class Told(Case):
    """No privacy at all, and a claim: every trial tells whether the canary was there."""

    def __init__(self, claim: float, *, gaussian: bool) -> None:
        self._claim = claim
        self._gaussian = gaussian

    @property
    def gaussian(self) -> bool:
        return self._gaussian

    @property
    def name(self) -> str:
        return "told"

    @property
    def relation(self) -> str:
        return "there or not"

    @property
    def delta(self) -> float:
        return DELTA

    @property
    def claims(self) -> Mapping[str, float]:
        return {"reader": self._claim}

    def play(self) -> Sequence[Trial]:
        return [Trial(there=there, scores={"reader": float(there)}) for there in (True, False)]


def audited(
    folder: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], claim: float, **given: Any
) -> tuple[int, dict[str, Any], str]:
    """Exit code, row of the result, and what is told."""
    path = folder / "config.toml"
    path.write_text("")
    case = Told(claim, gaussian=given.get("gaussian", False))
    patch.setattr(suite, "prepared", lambda _config: ([case], [], []))
    out = folder / f"out-{given['trials']}"
    code = main(["audit", str(path), "--out", str(out), "--trials", str(given["trials"])])
    (row,) = json.loads((out / suite.FILE).read_text())["report"]["rows"]
    text = (out / "audit.md").read_text()
    assert text.splitlines()[0] in capsys.readouterr().out
    return code, row, text


def test_too_few_trials_are_named_and_so_many_refute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The control has no privacy at all: one trial below the number that is told passes, and that is said; with it, it is refuted."""
    code, row, text = audited(tmp_path, monkeypatch, capsys, 3.0, trials=100)
    assert code == 0
    assert row["too_few"]
    assert row["clopper_pearson"] == row["most_clopper_pearson"] < 3.0
    assert row["most_gaussian"] is None
    needed = row["trials_needed"]
    assert (
        f"told: 100 trials cannot show more than {row['most_clopper_pearson']:.3f}: a claim of 3.000 cannot be refuted; {needed} "
        "trials would do"
    ) in text
    assert "| TOO FEW TRIALS |" in text
    assert "| holds |" not in text

    code, row, text = audited(tmp_path, monkeypatch, capsys, 3.0, trials=needed - 1)
    assert (code, row["too_few"]) == (0, True)
    assert "cannot be refuted" in text

    code, row, text = audited(tmp_path, monkeypatch, capsys, 3.0, trials=needed)
    assert (code, row["too_few"]) == (1, False)
    assert "cannot be refuted" not in text
    assert "| EXCEEDED |" in text


def test_where_the_gaussian_bound_alone_could_refute_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A hundred trials show a Gaussian mechanism of more than 3 and no other: the claim is refuted, and by which bound is said."""
    code, row, text = audited(tmp_path, monkeypatch, capsys, 3.0, trials=100, gaussian=True)

    assert (code, row["too_few"]) == (1, False)
    assert row["most_clopper_pearson"] < 3.0 < row["most_gaussian"]
    assert "1 of 1 claims the Gaussian bound alone could refute" in text
