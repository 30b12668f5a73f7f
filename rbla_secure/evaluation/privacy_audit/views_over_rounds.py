"""What an observer makes of several rounds' adapters: one number, the logarithm of the likelihood ratio of a canary.

Of two known laws it is the best test there is (Neyman and Pearson 1933). The observer knows everything but the server's noise and, where
clients are drawn, the canary's draws.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np

from protocols.session import ClientId
from rbla_secure.evaluation.privacy_audit.neighbours import Neighbours
from rbla_secure.evaluation.privacy_audit.small_federation import Played
from rbla_secure.evaluation.privacy_audit.views import Values, less, pattern, sums_again
from rbla_secure.federation.plan import Plan
from rbla_secure.privacy.noise import CentralGaussian


def released_score(plan: Plan, pair: Neighbours, rounds: Sequence[Played], *, canary: ClientId) -> float:
    """Of noise that cancels over rounds: what a canary adds to the combined sums of each band, times what was released of them.

    What is published of a band in round t is x'_t, and a_0 x'_t + a_1 x'_{t-1} + ... has noise that is independent in every round and
    of one size (`privacy/banded_matrix.py`): combining takes the correlation off, and the product with the canary's own combination
    is the likelihood ratio but for a factor. A round without a band's sum begins its matrix anew.
    """
    mechanism = _server_noise(plan)
    column = mechanism.column
    own = pattern(plan, mechanism, pair, canary)
    found = 0.0
    # By band, newest first: what was published of it, and whether the canary was in it.
    kept: dict[int, deque[tuple[Values, bool]]] = {}
    for played in rounds:
        published = sums_again(plan, mechanism, played)
        opened = {index: published[index] for index in published if index in played.outcome.holders}
        kept = {index: kept.get(index, deque(maxlen=len(column))) for index in opened}
        for index, values in opened.items():
            rows = kept[index]
            rows.appendleft((values, canary in played.session.members))
            entries = list(zip(column, rows, strict=False))
            there = sum(entry for entry, (_, in_it) in entries if in_it)
            if there and index in own:
                combined = sum(entry * values for entry, (values, _) in entries)
                found += float(np.dot(combined, there * own[index]))
    return found


def drawn_score(plan: Plan, pair: Neighbours, rounds: Sequence[Played], *, canary: ClientId) -> float:
    """Of secret draws: over all rounds, the logarithm of the ratio of a mixture to noise alone.

    A round in which the canary may be drawn with probability q has, with d what it adds to the sums, y what they are without everybody
    else's uploads and V the variance of the noise, log(1 - q + q exp((<y, d> - |d|^2 / 2) / V)).
    """
    mechanism = _server_noise(plan)
    own, rate = pattern(plan, mechanism, pair, canary), plan.config.privacy.sample_rate
    squared = sum(float(np.dot(values, values)) for values in own.values())
    found = 0.0
    for played in rounds:
        others = [client for client in played.uploads if client != canary]
        left = less(sums_again(plan, mechanism, played), played, others)
        product = sum(float(np.dot(left[index], values)) for index, values in own.items() if index in left)
        there = (product - squared / 2) / mechanism.variance()
        found += float(np.logaddexp(np.log1p(-rate), np.log(rate) + there))
    return found


def _server_noise(plan: Plan) -> CentralGaussian:
    if isinstance(plan.mechanism, CentralGaussian):
        return plan.mechanism
    raise AssertionError("rounds belong together only where the server adds the noise")
