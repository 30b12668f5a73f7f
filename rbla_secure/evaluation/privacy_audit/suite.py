"""An audit from its terms to its verdicts, saved after every batch of trials.

audit.json holds the terms and, once all trials are made, the results; scores-NN.json the scores of one case, written
after every batch. An interrupted audit continues where it stopped. The number of trials is fixed and written before the
first one that counts, so looking at the scores in between and continuing changes nothing. A folder of other terms or of
other code is refused, and score files carry the identity of their audit: results are never mixed.
"""

import hashlib
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import numpy as np
from pydantic import ValidationError

import protocols
import rbla_secure
from rbla_secure.atomic_files import write_atomic
from rbla_secure.config import Config
from rbla_secure.errors import PrivacyError, RunFolderError
from rbla_secure.evaluation.privacy_audit.case import Case
from rbla_secure.evaluation.privacy_audit.examples import step_cases
from rbla_secure.evaluation.privacy_audit.neighbours import Skipped
from rbla_secure.evaluation.privacy_audit.over_rounds import course_cases, more_than_a_round
from rbla_secure.evaluation.privacy_audit.results import NotTried, Record, Report, Row
from rbla_secure.evaluation.privacy_audit.rounds import round_cases
from rbla_secure.evaluation.privacy_audit.small_federation import SmallFederation
from rbla_secure.planning.parameters import sample_level
from rbla_secure.privacy.auditing import lower_bounds, most_shown, scores_needed

FILE = "audit.json"
# With fewer trials of each kind the bounds are close to zero.
LEAST_TRIALS = 100
# Approximate duration of one batch of trials.
_BATCH_SECONDS = 5.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AuditTerms:
    """Terms of an audit.

    Args:
        config: The configuration as its user would run it.
        trials: Largest number of trials per case with the canary, and of those without.
        seconds: Approximate limit on the duration of all trials, in seconds; fewer are made where they would take
            longer.
        confidence: Confidence that all lower bounds of the audit hold together, in (1/2, 1 - 1e-9].
    """

    config: Config
    trials: int
    seconds: float
    confidence: float


class _File(Record):
    format: Literal[3]
    audit: str
    sources: str
    config: str
    wanted: int
    seconds: float
    confidence: float
    trials: dict[str, int]
    report: Report | None


class _Scores(Record):
    audit: str
    case: str
    with_canary: dict[str, list[float]]
    without_canary: dict[str, list[float]]
    seconds: float


# Called with a case, the number of its trials so far and of those wanted.
Observe = Callable[[str, int, int], None]


def audit(folder: Path, terms: AuditTerms, observe: Observe) -> Report:
    """Make the trials that the folder lacks, and return the results of all.

    Raises:
        RunFolderError: The folder holds an audit of other terms, or a damaged one.
        PrivacyError: Nothing is claimed, or the noise is not secret.
        RblaSecureError: The configuration itself is refused.
    """
    file = _read(folder, terms)
    if file is not None and file.report is not None:
        return file.report
    cases, skipped, remarks = prepared(terms.config)
    if file is None:
        trials = _affordable(cases, terms)
        folder.mkdir(parents=True, exist_ok=True)
        file = _File(
            format=3,
            audit=secrets.token_hex(16),
            sources=_sources(),
            config=terms.config.digest().hex(),
            wanted=terms.trials,
            seconds=terms.seconds,
            confidence=terms.confidence,
            trials=trials,
            report=None,
        )
        _write(folder, file)
    rows_in_all = sum(len(case.claims) for case in cases)
    # Each row has an equal part of the error probability that all may have together.
    confidence = 1 - (1 - terms.confidence) / rows_in_all
    rows: list[Row] = []
    for number, case in enumerate(cases):
        wanted = file.trials.get(case.name)
        if wanted is None:
            raise RunFolderError(f"{folder / FILE} lacks the case {case.name!r}: choose another --out folder")
        scores = _filled(folder / f"scores-{number:02d}.json", case, wanted, observe, audit=file.audit)
        rows += _judged(case, scores, confidence)
    report = Report(
        confidence=terms.confidence,
        rows=tuple(rows),
        not_tried=tuple(NotTried(case=each.name, reason=each.reason) for each in skipped),
        remarks=tuple(remarks),
    )
    _write(folder, file.model_copy(update={"report": report}))
    return report


def prepared(config: Config) -> tuple[list[Case], list[Skipped], list[str]]:
    """Return the cases that apply to a configuration, why others do not, and the differences from a run.

    Raises:
        PrivacyError: Nothing is claimed, or the noise is not secret.
        PlanError: The configuration is refused.
    """
    cases, skipped, remarks = list[Case](), list[Skipped](), list[str]()
    if config.noise_multiplier > 0:
        federation = SmallFederation(config)
        rounds, others = course_cases(federation) if more_than_a_round(config) else round_cases(federation)
        cases += rounds
        skipped += others
        remarks += federation.remarks
    else:
        skipped.append(Skipped(name="clients", reason="noise-multiplier=0: nothing is claimed of them"))
    if sample_level(config) is not None:
        steps, others = step_cases(config)
        cases += steps
        skipped += others
        remarks.append(
            "single examples: one step of a small model by plain descent, instead of a round of the task's model"
        )
    else:
        reason = "sample-level.noise-multiplier=0: nothing is claimed of them"
        skipped.append(Skipped(name="single examples", reason=reason))
    if not cases:
        raise PrivacyError(
            "nothing is claimed that could be audited: noise-multiplier or sample-level.noise-multiplier must be above 0, and "
            "some round must be able to open with its noise"
        )
    return cases, skipped, remarks


def _affordable(cases: Sequence[Case], terms: AuditTerms) -> dict[str, int]:
    """Return, by case, how many trials of each kind fit an equal part of the time, measured on discarded trials."""
    each = terms.seconds / len(cases)
    found = {}
    for case in cases:
        # Values that a case computes once are no part of a trial's time.
        case.play()
        began = time.perf_counter()
        made = len(case.play()) + len(case.play())
        for_one = 2 * (time.perf_counter() - began) / made
        found[case.name] = max(LEAST_TRIALS, min(terms.trials, math.floor(each / for_one)))
    return found


def _filled(path: Path, case: Case, trials: int, observe: Observe, *, audit: str) -> _Scores:
    """Return a case's scores: those of its file and the missing ones, written batch by batch."""
    scores = _read_scores(path, case, audit)
    while (done := _done(scores)) < trials:
        observe(case.name, done, trials)
        scores = _with_batch(scores, case, wanted=trials)
        write_atomic(path, scores.model_dump_json().encode() + b"\n")
    observe(case.name, trials, trials)
    return scores


def _with_batch(scores: _Scores, case: Case, *, wanted: int) -> _Scores:
    """Add trials for some seconds, or until there are enough."""
    began = time.perf_counter()
    there, absent = _copied(scores.with_canary, case), _copied(scores.without_canary, case)
    while _least(there, absent) < wanted and time.perf_counter() - began < _BATCH_SECONDS:
        for trial in case.play():
            for observer, values in (there if trial.there else absent).items():
                values.append(trial.scores[observer])
    seconds = scores.seconds + time.perf_counter() - began
    return scores.model_copy(update={"with_canary": there, "without_canary": absent, "seconds": seconds})


def _copied(scores: Mapping[str, list[float]], case: Case) -> dict[str, list[float]]:
    return {observer: list(scores.get(observer, ())) for observer in case.claims}


def _done(scores: _Scores) -> int:
    return _least(scores.with_canary, scores.without_canary)


def _least(*kinds: Mapping[str, list[float]]) -> int:
    """Return the smaller of the numbers of trials with and without the canary."""
    return min((len(values) for kind in kinds for values in kind.values()), default=0)


def _judged(case: Case, scores: _Scores, confidence: float) -> list[Row]:
    rows = []
    for observer, claimed in case.claims.items():
        there, absent = np.array(scores.with_canary[observer]), np.array(scores.without_canary[observer])
        bounds = lower_bounds(there, absent, delta=case.delta, confidence=confidence)
        most = most_shown(len(there), len(absent), delta=case.delta, confidence=confidence)
        needed = scores_needed(claimed, delta=case.delta, confidence=confidence, gaussian=case.gaussian)
        rows.append(
            Row(
                case=case.name,
                relation=case.relation,
                observer=observer,
                claimed=claimed,
                delta=case.delta,
                clopper_pearson=bounds.clopper_pearson,
                gaussian=bounds.gaussian if case.gaussian else None,
                most_clopper_pearson=most.clopper_pearson,
                most_gaussian=most.gaussian if case.gaussian else None,
                trials=_done(scores),
                trials_needed=needed,
                too_few=(most.gaussian if case.gaussian else most.clopper_pearson) <= claimed,
                seconds=scores.seconds,
            )
        )
    return rows


def _read(folder: Path, terms: AuditTerms) -> _File | None:
    path = folder / FILE
    if not path.exists():
        if left := sorted(folder.glob("scores-*.json")):
            raise RunFolderError(
                f"{left[0]} is of an audit whose {FILE} is gone: choose another --out folder"
            )
        return None
    try:
        file = _File.model_validate_json(path.read_bytes())
    except ValidationError:
        raise RunFolderError(f"{path} is damaged: choose another --out folder") from None
    if file.sources != _sources():
        raise RunFolderError(
            f"{path} is of another version of rbla-secure, and scores of one say nothing of another: choose another --out folder"
        )
    ours = (terms.config.digest().hex(), terms.trials, terms.seconds, terms.confidence)
    if (file.config, file.wanted, file.seconds, file.confidence) != ours:
        raise RunFolderError(
            f"{path} is of another configuration, number of trials, time or confidence: choose another --out folder"
        )
    return file


def _sources() -> str:
    """Return the SHA-256 of the audited code: every module of both packages."""
    found = hashlib.sha256()
    for package in (Path(protocols.__file__).parent, Path(rbla_secure.__file__).parent):
        for path in sorted(package.rglob("*.py")):
            found.update(str(path.relative_to(package)).encode() + b"\x00" + path.read_bytes() + b"\x00")
    return found.hexdigest()


def _read_scores(path: Path, case: Case, audit: str) -> _Scores:
    if not path.exists():
        return _Scores(audit=audit, case=case.name, with_canary={}, without_canary={}, seconds=0.0)
    try:
        scores = _Scores.model_validate_json(path.read_bytes())
    except ValidationError:
        raise RunFolderError(f"{path} is damaged: delete it to have its trials made again") from None
    kinds = (scores.with_canary, scores.without_canary)
    uneven = any(len({len(values) for values in kind.values()}) > 1 for kind in kinds)
    if scores.audit != audit:
        raise RunFolderError(f"{path} is of another audit: delete it to have its trials made again")
    if scores.case != case.name or uneven or any(kind.keys() != case.claims.keys() for kind in kinds):
        raise RunFolderError(
            f"{path} is not of the case {case.name!r}: delete it to have its trials made again"
        )
    return scores


def _write(folder: Path, file: _File) -> None:
    write_atomic(folder / FILE, file.model_dump_json(indent=1).encode() + b"\n")
