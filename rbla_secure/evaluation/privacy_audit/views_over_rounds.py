"""Scores of a canary from several rounds' adapters: the logarithm of its likelihood ratio.

It is the best test between two known distributions (Neyman and Pearson 1933). The observer knows everything but the
server's noise and, where clients are drawn, the canary's draws.
"""

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from protocols.session import ClientId
from rbla_secure.evaluation.privacy_audit.neighbours import Neighbours
from rbla_secure.evaluation.privacy_audit.small_federation import Played
from rbla_secure.evaluation.privacy_audit.views import Values, less, pattern, sums_again
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.noise import GaussianMechanism, NoisePlace

# By band, in integer units, what was published of a round.
Sums = Mapping[int, Values]


def published(plan: Plan, rounds: Sequence[Played]) -> list[Sums]:
    """Return, by round, the sums behind its step."""
    mechanism = server_noise(plan)
    return [sums_again(plan, mechanism, played) for played in rounds]


def released_score(
    plan: Plan, pair: Neighbours, rounds: Sequence[Played], sums: Sequence[Sums], *, canary: ClientId
) -> float:
    """Score noise that cancels over rounds: the product of a canary's part of the combined sums with those released.

    What is published of a band in round t is x'_t, and a_0 x'_t + a_1 x'_{t-1} + ... has noise that is independent in
    every round and of one size (`privacy/noise/banded_matrix.py`): combining removes the correlation, and the product
    with the canary's own combination is the log-likelihood ratio up to a factor and a constant. A round without a
    band's sum begins its matrix anew.
    """
    mechanism = server_noise(plan)
    column = mechanism.column
    own = pattern(plan, mechanism, pair, canary)
    found = 0.0
    # By band, newest first: what was published of it, and whether the canary was in it.
    kept: dict[int, deque[tuple[Values, bool]]] = {}
    for played, each in zip(rounds, sums, strict=True):
        kept = {
            index: kept.get(index, deque(maxlen=len(column)))
            for index in each
            if index in played.outcome.holders
        }
        for index, rows in kept.items():
            rows.appendleft((each[index], canary in played.session.members))
            entries = list(zip(column, rows, strict=False))
            there = sum(entry for entry, (_, in_it) in entries if in_it)
            if there and index in own:
                product = sum(entry * float(np.dot(values, own[index])) for entry, (values, _) in entries)
                found += there * product
    return found


def measured_precisions(plan: Plan, pilots: Sequence[Sequence[Played]]) -> dict[int, Values]:
    """Return, by band, the inverse covariance of its noise between rounds in some plays, shape (rounds, rounds).

    It includes every correlation of the noise between rounds, known to the mechanism or not. A whole unit is added to
    keep it finite where noise is the same in several rounds or a round has none.
    """
    noise: dict[int, list[Values]] = {}
    for rounds in pilots:
        left = [
            less(sums, played, played.uploads)
            for sums, played in zip(published(plan, rounds), rounds, strict=True)
        ]
        lengths = {index: len(values) for sums in left for index, values in sums.items()}
        for index, length in lengths.items():
            rows = np.stack([sums.get(index, np.zeros(length)) for sums in left])
            noise.setdefault(index, []).append(rows)
    found = {}
    for index, parts in noise.items():
        samples = np.concatenate(parts, axis=1)
        covariance = samples @ samples.T / samples.shape[1]
        found[index] = np.linalg.inv(covariance + np.eye(len(samples)))
    return found


def measured_score(
    plan: Plan,
    pair: Neighbours,
    rounds: Sequence[Played],
    sums: Sequence[Sums],
    *,
    canary: ClientId,
    precisions: Mapping[int, Values],
) -> float:
    """Score Gaussian noise with these precisions, in standard deviations of it."""
    own = pattern(plan, server_noise(plan), pair, canary)
    there = np.array([float(canary in played.session.members and bool(played.reveals)) for played in rounds])
    found, squared = 0.0, 0.0
    for index, values in own.items():
        if index in precisions:
            weights = precisions[index] @ there
            products = [float(np.dot(each[index], values)) if index in each else 0.0 for each in sums]
            found += float(np.dot(weights, products))
            squared += float(np.dot(weights, there)) * float(np.dot(values, values))
    return found / float(np.sqrt(squared))


def drawn_score(
    plan: Plan, pair: Neighbours, rounds: Sequence[Played], sums: Sequence[Sums], *, canary: ClientId
) -> float:
    """Score secret draws: over all rounds, the logarithm of the ratio of a mixture to noise alone.

    A round in which the canary may be drawn with probability q has, with d what it adds to the sums, y what they are without everybody
    else's uploads and V the variance of the noise, log(1 - q + q exp((<y, d> - |d|^2 / 2) / V)).
    """
    mechanism = server_noise(plan)
    own, rate = pattern(plan, mechanism, pair, canary), plan.config.privacy.sample_rate
    squared = sum(float(np.dot(values, values)) for values in own.values())
    found = 0.0
    for played, each in zip(rounds, sums, strict=True):
        left = less(each, played, [client for client in played.uploads if client != canary])
        product = sum(float(np.dot(left[index], values)) for index, values in own.items() if index in left)
        there = (product - squared / 2) / mechanism.variance()
        found += float(np.logaddexp(np.log1p(-rate), np.log(rate) + there))
    return found


def server_noise(plan: Plan) -> GaussianMechanism:
    """Return the mechanism of a plan with dependent rounds."""
    if plan.mechanism is not None and plan.mechanism.place is NoisePlace.SERVER:
        return plan.mechanism
    raise AssertionError("rounds belong together only where the server adds the noise")
