"""Scores of a canary by an observer of a round who knows everything but the noise of others.

For Gaussian noise of one size the best test of a known difference is the inner product with it (Neyman and Pearson
1933). So a score is the product of what is seen, minus all that the observer knows, with what the canary adds before
noise.

    public-reader         the adapter that the round returned, before and after, and the published share of unclipped
                          clients
    participant           the same, minus the whole uploads of max(1, colluders) clients
    server                the sums that it opened, minus the noise that was disclosed for removal; in the clear, the
                          canary's upload
    server-with-clients   the same, minus the whole uploads of `colluders` clients
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from protocols.ring import IntegerVector
from protocols.session import ClientId, Session
from rbla_secure.evaluation.privacy_audit.neighbours import Neighbours
from rbla_secure.evaluation.privacy_audit.small_federation import Played
from rbla_secure.federation.noise_components import remove_components
from rbla_secure.federation.round import average
from rbla_secure.lora.bands import held_bands, spread
from rbla_secure.lora.update import BandTotal
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.ledger import Observer
from rbla_secure.privacy.noise import GaussianMechanism, NoisePlace

Values = npt.NDArray[np.float64]


def scores(
    plan: Plan, session: Session, case: Neighbours, played: Played, *, canary: ClientId
) -> dict[Observer, float]:
    """Return, by observer, the score of a round for this canary; larger means that it was more likely present."""
    mechanism = plan.mechanism_of(session)
    if mechanism is None:
        raise AssertionError("only plans with noise are audited")
    seen = _Seen(plan=plan, session=session, case=case, played=played, mechanism=mechanism, canary=canary)
    several = max(1, plan.promises.colluders)
    return {
        Observer.PUBLIC: seen.in_adapter(known=()),
        Observer.PARTICIPANT: seen.in_adapter(known=case.colluders[:several]),
        Observer.SERVER: seen.in_sums(known=()),
        Observer.COALITION: seen.in_sums(known=case.colluders[: plan.promises.colluders]),
    }


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Seen:
    """A round, and the one of its canaries that is scored."""

    plan: Plan
    session: Session
    case: Neighbours
    played: Played
    mechanism: GaussianMechanism
    canary: ClientId

    def in_adapter(self, *, known: Collection[ClientId]) -> float:
        """Score the adapter's step: the divisor of every row is public, so the sums can be recomputed."""
        plan, direction = self.plan, self.case.canaries[self.canary]
        if plan.segmentation.rule_across is not None:
            # Noise cannot be subtracted from a median of groups.
            return float((step_of(self.played)[: len(direction)] * direction).sum())
        sums = sums_again(plan, self.mechanism, self.played)
        if self.mechanism.place is NoisePlace.CLIENTS:
            sums = less(sums, self.played, known)
        return _product(sums, self._pattern())

    def in_sums(self, *, known: Collection[ClientId]) -> float:
        """Score the sums opened to the server, or the canary's upload where the server reads single uploads."""
        opened = self.played.sums
        if self.plan.mode.reads_uploads:
            return _product(self.played.uploads.get(self.canary, {}), self._by_segment())
        if opened is None:
            return 0.0
        # A colluder's upload is subtracted whole, so none of its noise components is left to remove.
        seeds = {key: seed for key, seed in opened.extra_secrets.items() if key[0] not in known}
        there = [client for client in known if client in opened.survivors]
        left = less(remove_components(opened.sums, self.mechanism, seeds), self.played, there)
        return _product(left, self._by_segment())

    def _pattern(self) -> dict[int, Values]:
        return pattern(self.plan, self.mechanism, self.case, self.canary)

    def _by_segment(self) -> Mapping[int, Values]:
        """The same by segment: one per band, or the one of the canary's group where clients are summed in groups."""
        return self.plan.segmentation.by_segment(self.session, self.canary, self._pattern())


def pattern(
    plan: Plan, mechanism: GaussianMechanism, case: Neighbours, canary: ClientId
) -> dict[int, Values]:
    """Return, by band, what a canary adds before noise, in integer units; the lowest ends with its vote's change."""
    length, direction = plan.quantizer.scale * mechanism.clip_norm, case.canaries[canary]
    found = {
        band.index: length * direction[band.start : band.stop, plan.columns].ravel()
        for band in held_bands(plan.bands, len(direction))
    }
    if mechanism.count_unit:
        found[0] = np.append(found[0], (case.vote - 1) * mechanism.count_unit)
    return found


def step_of(played: Played) -> Values:
    """Return how far a round moved the adapter, shape (max_rank, row_length)."""
    step: Values = played.outcome.adapter.rows.astype(np.float64) - played.before.rows
    return step


def sums_again(plan: Plan, mechanism: GaussianMechanism, played: Played) -> dict[int, Values]:
    """Return, by band, the sums behind a step, in integer units; the lowest band ends with the published count."""
    outcome, session, step = played.outcome, played.session, step_of(played)
    ones = {
        segment.index: BandTotal(
            weighted_sum=np.ones(plan.bands[segment.index].height * int(plan.columns.sum())),
            weight=plan.denominator(session, segment.index, outcome.survivors),
            cut_off=None,
        )
        for segment in session.segments
    }
    # How far one summed unit moves a row, by the plan's own average and step.
    moves = average(plan, spread(ones, plan.bands, plan.columns)).rows * plan.config.server_learning_rate
    found = {}
    for index in ones:
        rows = slice(plan.bands[index].start, plan.bands[index].stop)
        moved, unit = step[rows, plan.columns].ravel(), moves[rows, plan.columns].ravel()
        found[index] = plan.quantizer.scale * np.divide(moved, unit, out=np.zeros_like(moved), where=unit > 0)
    if mechanism.count_unit and 0 in found:
        share = 0.5 if outcome.unclipped is None else outcome.unclipped
        count = 2 * mechanism.count_unit * (share - 0.5) * len(outcome.survivors)
        found[0] = np.append(found[0], count)
    return found


def less(
    sums: Mapping[int, Values | IntegerVector], played: Played, known: Collection[ClientId]
) -> dict[int, Values]:
    """Subtract the whole uploads of some clients from sums."""
    left = {index: values.astype(np.float64) for index, values in sums.items()}
    for client in known:
        for index, values in played.uploads.get(client, {}).items():
            if index in left:
                left[index] -= values
    return left


def _product(seen: Mapping[int, Values | IntegerVector], pattern: Mapping[int, Values]) -> float:
    return float(sum(np.dot(seen[index], values) for index, values in pattern.items() if index in seen))
