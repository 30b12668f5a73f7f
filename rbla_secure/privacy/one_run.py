"""A lower bound on epsilon from one run of the mechanism, by many canaries at once.

Of m canaries each is let in by the toss of a fair coin of its own. The mechanism runs once, an attacker scores every canary from
what is published, and guesses "in" for those that score highest, "out" for those that score lowest, nothing for the rest. Under
differential privacy few guesses can be right: Steinke, Nasr, Jagielski 2023, "Privacy auditing with one (1) training run", arXiv
2305.08846, Theorem 5.2, whose bound :func:`p_value` is. It needs no independence of the canaries in the mechanism and holds for
every attacker whose number of guesses was fixed before the scores were seen.

The theorem is about (epsilon, delta) alone, and a Gaussian mechanism is far from the worst one of its epsilon: it reads a third
to a half of what is there. Of a mechanism that is claimed to be Gaussian, Mahloujifar, Melis, Chaudhuri 2024, "Auditing
f-differential privacy in one run", arXiv 2410.22235, reads more from the same guesses: :func:`refutes_gaussian`.

Both refute claims and prove none. Neither bound is near the truth where few canaries are used: with all of r guesses right
epsilon comes to about ln(r / 3) and no more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from rbla_secure.errors import PrivacyError
from rbla_secure.privacy.figures import exact, rounded_down, rounded_up
from rbla_secure.privacy.noise import Release

Scores = npt.NDArray[np.float64]
Coins = npt.NDArray[np.bool_]

CONFIDENCE = 0.95
# Of the canaries, how many are guessed where nothing else is said. Of 2, 5, 10 and 20 %, five and ten refuted half the noise
# most often (Gaussians of mu 0.2 to 0.5 doubled, delta 3e-5 and 1e-4, 1,000 to 5,000 canaries).
_GUESSED = 0.1
# Bounds are found from below to so much.
_STEP = 1e-4
# Epsilon is at most about ln(m), so the search ends before.
_LARGEST = 64.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Guesses:
    """The result of an attacker's guesses about canaries.

    Args:
        canaries: m, each let in with probability one half.
        made: r of them were guessed.
        correct: v of these rightly.

    Raises:
        PrivacyError: Not 0 <= correct <= made <= canaries, or nothing was guessed.
    """

    canaries: int
    made: int
    correct: int

    def __post_init__(self) -> None:
        if not (0 <= self.correct <= self.made <= self.canaries and self.made):
            raise PrivacyError(
                f"correct={self.correct} of made={self.made} guesses about canaries={self.canaries} must be "
                "0 <= correct <= made <= canaries, with one guess at least"
            )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OneRunAudit:
    """The result of an audit by one run.

    Args:
        guesses: How well canaries were guessed.
        epsilon: With the audit's confidence the mechanism is not (epsilon', delta)-private for any epsilon' below this; 0
            shows nothing.
        delta: The delta of `epsilon`.
        mu: A mechanism that is Gaussian is not mu'-GDP for any mu' below this, with the same confidence; of another one
            it says nothing.
        confidence: Probability with which each bound holds, in (0, 1).
    """

    guesses: Guesses
    epsilon: float
    delta: float
    mu: float
    confidence: float

    def check(self, claimed: float) -> None:
        """Refuse an epsilon at the audit's delta that is refuted.

        Raises:
            PrivacyError: The run showed more than is claimed.
        """
        if self.epsilon > claimed:
            raise PrivacyError(
                f"one run shows epsilon >= {rounded_down(self.epsilon)} at delta {exact(self.delta)}, above the claimed {rounded_up(claimed)}: "
                f"{self.guesses.correct} of {self.guesses.made} guesses about {self.guesses.canaries} canaries are right"
            )

    def check_gaussian(self, claimed: Release) -> None:
        """Refuse a Gaussian claim that is refuted.

        Raises:
            PrivacyError: The run showed more than the release is said to.
        """
        if self.mu * claimed.noise_multiplier > 1:
            raise PrivacyError(
                f"one run shows mu >= {rounded_down(self.mu)}, above the claimed {rounded_up(1 / claimed.noise_multiplier)}: "
                f"{self.guesses.correct} of {self.guesses.made} guesses about {self.guesses.canaries} canaries are right"
            )


def one_run(
    scores: Scores,
    included: Coins,
    *,
    delta: float,
    guesses: int | None = None,
    confidence: float = CONFIDENCE,
) -> OneRunAudit:
    """Both lower bounds from one run.

    Args:
        scores: One per canary, shape (m,), made without looking at the coins; larger means "it was in".
        included: The coins, shape (m,): fair, independent, tossed before the run.
        delta: The delta of the audited claim, above 0.
        guesses: How many canaries to guess, half of them "in" and half "out". To be fixed before the scores are seen: the
            best of several has not this confidence. None: a tenth of them.
        confidence: Probability with which each bound holds, in (0, 1).

    Raises:
        PrivacyError: Shapes, values or numbers are not as said.
    """
    if not (0 < delta < 1 and 0 < confidence < 1):
        raise PrivacyError(f"delta={delta} and confidence={confidence} must lie in (0, 1)")
    made = max(2, int(len(scores) * _GUESSED)) if guesses is None else guesses
    found = guess(scores, included, guesses=made)
    error = 1 - confidence
    return OneRunAudit(
        guesses=found,
        epsilon=_largest(lambda epsilon: p_value(found, epsilon=epsilon, delta=delta) <= error),
        delta=delta,
        mu=_largest(lambda mu: refutes_gaussian(found, mu=mu, error=error)),
        confidence=confidence,
    )


def guess(scores: Scores, included: Coins, *, guesses: int) -> Guesses:
    """Guess "in" for the highest scores, "out" for the lowest, and nothing for those between.

    Args:
        scores: Shape (m,); canaries that score alike are taken in their order, which has nothing to do with their coins.
        included: Shape (m,).
        guesses: Half of them each way; of an odd number one more "in".

    Raises:
        PrivacyError: Shapes do not fit, a score is not finite, or there are more guesses than canaries.
    """
    if scores.shape != included.shape or scores.ndim != 1:
        raise PrivacyError(f"scores {scores.shape} and coins {included.shape} must be one of each per canary")
    if not np.isfinite(scores).all():
        raise PrivacyError("scores must be finite")
    if not 1 <= guesses <= len(scores):
        raise PrivacyError(f"guesses={guesses} must lie in 1..{len(scores)}, the number of canaries")
    order = np.argsort(scores, kind="stable")
    lowest, highest = order[: guesses // 2], order[len(order) - (guesses - guesses // 2) :]
    correct = int(included[highest].sum()) + int((~included[lowest]).sum())
    return Guesses(canaries=len(scores), made=guesses, correct=correct)


def p_value(guesses: Guesses, *, epsilon: float, delta: float) -> float:
    """Return a bound on the probability of so many right guesses if the mechanism is (epsilon, delta)-private.

    Theorem 5.2: with W the sum of r coins of probability q = e^epsilon / (e^epsilon + 1),

        P[correct >= v]  <=  P[W >= v] + 2 m delta max_i P[v - i <= W < v] / i,      i = 1..v.

    Args:
        guesses: m, r and v.
        epsilon: The epsilon of the claim, 0 or more.
        delta: The delta of the claim, 0 to 1.

    Returns:
        At most 1.
    """
    rate, v = float(special.expit(epsilon)), guesses.correct
    reached = float(stats.binom.sf(v - 1, guesses.made, rate))
    if not delta or not v:
        return min(1.0, reached)
    back = np.arange(1, v + 1)
    short = stats.binom.sf(v - back - 1, guesses.made, rate) - reached
    return min(1.0, reached + 2 * guesses.canaries * delta * max(0.0, float((short / back).max())))


def refutes_gaussian(guesses: Guesses, *, mu: float, error: float) -> bool:
    """Whether so many right guesses have a probability below `error` if the mechanism is mu-GDP.

    Let a canary be picked at random, and p_j be the probability that exactly j guesses are right. Then

        right_i = sum over j >= i of p_j j / m,          wrong_i = sum over j >= i of p_j (r - j) / m

    are the probabilities that it is guessed rightly, or wrongly, and that i or more guesses are right. Turning its coin turns the
    first event of i + 1 into the second of i, so the trade-off curve of mu-GDP gives wrong_i >= Phi(Phi^-1(right_(i+1)) - mu).
    If v or more guesses were right with probability `error`, this bounds right_i and wrong_i from below for i = v - 1, ..., 0 in
    turn; but right_0 + wrong_0 = r / m, so a larger bound is a contradiction (arXiv 2410.22235, for coins and with abstention).

    Args:
        guesses: m, r and v.
        mu: The mu of the claim, 0 or more.
        error: Probability with which the audit may be wrong.
    """
    m, made, v = guesses.canaries, guesses.made, guesses.correct
    right, wrong = error * v / m, error * (made - v) / m
    for number in range(v - 1, -1, -1):
        least = max(wrong, float(special.ndtr(special.ndtri(right) - mu)))
        right = min(1.0, right + number / (made - number) * (least - wrong))
        wrong = least
    return right + wrong > made / m


def _largest(refuted: Callable[[float], bool]) -> float:
    """The largest claim that is refuted, from below; 0 if none is."""
    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high < _LARGEST and refuted(high):
        low, high = high, 2 * high
    while high - low > _STEP * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
