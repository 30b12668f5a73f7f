"""Enforcement of a client's lifetime budget: it joins no run and trains for no round that would exceed it.

Run by the client. Folder, label and limits are the client's own. They are no part of the plan, and the server learns
only that a client refuses. Joining looks at the whole run first: what earlier runs on the same data have spent, and
every round of this one that the client is drawn for. A client that would have to leave midway does not begin: the
others' noise relies on its share. Every round is then checked and recorded before the client trains for it, whatever
becomes of the round; a second attempt counts again.
"""

import logging
import math
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final, final

from protocols.session import ClientId, Session
from rbla_secure.config import MOST_NOISE, MOST_SAMPLE_NOISE
from rbla_secure.errors import BudgetError, PrivacyError, RefusalError
from rbla_secure.federation.client.budget_folder import BudgetFolder
from rbla_secure.federation.client.lifetime_cost import RoundCost, cost_of_round, fewest
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.figures import exact, rounded_up
from rbla_secure.privacy.ledger import Spent
from rbla_secure.privacy.lifetime_ledger import (
    Level,
    LifetimeLedger,
    LifetimeTerms,
    Participation,
    Stepped,
)
from rbla_secure.privacy.noise import GaussianMechanism
from rbla_secure.privacy.renyi_filter import ORDERS, order_for
from rbla_secure.run_folder.budget_settings import BudgetSettings

_LOG = logging.getLogger(__name__)

DEFAULT_DELTA: Final = 1e-5
# A forecast belongs to no run yet.
_NO_RUN: Final = "0" * 32
# More noise than so many times the planned leaves nothing to learn from: it is not offered.
_MOST_FACTOR, _TOLERANCE = 1000.0, 1e-3


@final
class Lifetime:
    """The budget of one client in one run.

    Args:
        plan: The client's own plan.
        folder: The client's budget folder; closed with this object.
        wanted: The label of the data and the limits.
        run: Identity of the run, hex; empty before it has one.
        done: Rounds of the run that are over.
        given: The rounds among them that are known to have had this client's input.

    Raises:
        BudgetError: The run would exceed a limit: names label, spent, would-be, limit, and what would do.
        PrivacyError: The ledger is damaged, of other limits, or lacks a round that had this client's input.
    """

    def __init__(
        self,
        plan: Plan,
        folder: BudgetFolder,
        wanted: BudgetSettings,
        *,
        run: str = "",
        done: int = 0,
        given: Collection[int] = (),
    ) -> None:
        self._plan = plan
        self._folder = folder
        self.client = folder.client
        cost = cost_of_round(plan, self.client, _least_clipped(plan))
        self._ledger = _ledger(folder, wanted, cost)
        if missing := set(given) - self._ledger.rounds_of(run):
            raise PrivacyError(
                f"{self._ledger.path} lacks round {min(missing)} of this run, which had the input of {self.client}: spent "
                "privacy would be forgotten; restore it from a copy"
            )
        left = range(done + 1, plan.config.rounds + 1)
        self._check_run(cost, [number for number in left if self.client in plan.cohort(number)])

    def spend(self, session: Session) -> None:
        """Record what an attempt at a round spends; called before anything is trained for it.

        Raises:
            RefusalError: It would exceed a limit, or cannot be written. The reason goes to the server without figures,
                which would reveal other runs. The log of this client has them.
        """
        cost = cost_of_round(self._plan, self.client, self._plan.mechanism_of(session))
        try:
            self._record(_entry(cost, session.run.hex(), session.round, session.attempt))
        except (BudgetError, PrivacyError):
            _LOG.exception("%s: refuses round %d", self.client, session.round)
            raise RefusalError(
                "this client's lifetime budget does not allow it to train for the round, or cannot be written"
            ) from None

    def close(self) -> None:
        """Release the folder."""
        self._folder.close()

    def _record(self, entry: Participation) -> None:
        exceeded = self._ledger.exceeded([entry])
        if exceeded:
            raise BudgetError(
                f"{self._whose()}: attempt {entry.attempt} at round {entry.round} would take {exceeded[min(exceeded)]}"
            )
        self._folder.record(self._ledger, entry)

    def _check_run(self, cost: RoundCost, numbers: Sequence[int]) -> None:
        """Refuse a run if not all its remaining rounds fit."""
        exceeded = self._ledger.exceeded(_entries(cost, numbers))
        if not exceeded:
            return
        level = min(exceeded)
        raise BudgetError(
            f"{self._whose()}: the {len(numbers)} rounds of this run would take {exceeded[level]}; nothing was trained; "
            f"{self._remedy(level, cost, numbers)}{self._of_draws()}"
        )

    def _of_draws(self) -> str:
        """Say why rounds count for which a client may not be drawn."""
        rate = self._plan.config.privacy.sample_rate
        if rate == 1:
            return ""
        return f"; with privacy.sample-rate={rate:g} all rounds must fit in full: who joins must not depend on secret draws"

    def _whose(self) -> str:
        return f"data {self._ledger.terms.label!r} of {self.client}"

    def _remedy(self, level: Level, cost: RoundCost, numbers: Sequence[int]) -> str:
        """Say which change would make the run fit."""

        def fits(factor: float, count: int) -> bool:
            entries = _entries(_with_noise(cost, factor), numbers[:count])
            return level not in self._ledger.exceeded(entries)

        if not fits(_MOST_FACTOR, 1):
            return self._why_nothing_fits(level, cost)
        count = bisect_left(range(1, len(numbers) + 1), 1, key=lambda count: not fits(1.0, count))
        low, high = 1.0, _MOST_FACTOR
        while fits(_MOST_FACTOR, len(numbers)) and high - low > _TOLERANCE * high:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if fits(middle, len(numbers)) else (middle, high)
        key = "noise-multiplier" if level is Level.CLIENT else "sample-level.noise-multiplier"
        return f"{count or 'none'} of its rounds would fit, or all of them with {rounded_up(high)} times the {key}"

    def _why_nothing_fits(self, level: Level, cost: RoundCost) -> str:
        bare = not (cost.counted if level is Level.CLIENT else cost.samples).noise_multiplier
        if not bare:
            return f"earlier runs have used it up: not even {_MOST_FACTOR:g} times the noise would let these data take part again"
        if self._plan.config.privacy.simulation:
            return "privacy.simulation=true: noise that follows from the seed protects nothing"
        if level is Level.SAMPLES or self._plan.mechanism is None:
            key = "noise-multiplier" if level is Level.CLIENT else "sample-level.noise-multiplier"
            return (
                f"the run has no noise at {level}: {key} must be above 0, or the label without such a limit"
            )
        least = min(fewest(self._plan, self.client).values())
        return (
            f"a sum of this run may open over {least} clients, and {max(1, self._plan.promises.colluders)} who pool what they know leave too "
            "little noise in it: raise min-holders above that, or masking.threshold with masking.profile=consistency"
        )


def _ledger(folder: BudgetFolder, wanted: BudgetSettings, first: RoundCost) -> LifetimeLedger:
    """Return the ledger of the label under the requested limits.

    Raises:
        PrivacyError: It was begun under other limits, or is new and no limit was named.
    """
    limit = wanted.max_sample_epsilon or 0.0
    delta = wanted.delta or DEFAULT_DELTA
    bounded = limit and first.samples.noise_multiplier
    new = LifetimeTerms(
        client=folder.client,
        label=wanted.label,
        delta=delta,
        max_epsilon=wanted.max_epsilon or 0.0,
        max_sample_epsilon=limit,
        # Without noise nothing fits the limit, whatever the order.
        sample_order=order_for(limit, delta, first.samples) if bounded else ORDERS[0] * bool(limit),
    )
    ledger = folder.ledger(wanted.label, new)
    if not ledger.entries and wanted.max_epsilon is None and wanted.max_sample_epsilon is None:
        raise PrivacyError(
            f"data {wanted.label!r} of {folder.client}: no run has been counted yet, so its limit must be said: lifetime-epsilon or "
            "lifetime-sample-epsilon, where 0 is none"
        )
    asked = {
        "lifetime-epsilon": (wanted.max_epsilon, ledger.terms.max_epsilon),
        "lifetime-sample-epsilon": (wanted.max_sample_epsilon, ledger.terms.max_sample_epsilon),
        "lifetime-delta": (wanted.delta, ledger.terms.delta),
    }
    for name, (value, fixed) in asked.items():
        if value is not None and value != fixed:
            raise PrivacyError(
                f"{name}={exact(value)}: the first run on data {wanted.label!r} of {folder.client} fixed it at {exact(fixed)}, and a limit "
                "that moves limits nothing; leave the option away"
            )
    return ledger


def _entries(cost: RoundCost, numbers: Iterable[int]) -> list[Participation]:
    return [_entry(cost, _NO_RUN, number, 1) for number in numbers]


def _entry(cost: RoundCost, run: str, number: int, attempt: int) -> Participation:
    return Participation(
        run=run,
        round=number,
        attempt=attempt,
        counted=Spent.of(cost.counted),
        expected=Spent.of(cost.expected),
        samples=Stepped(**asdict(cost.samples)),
    )


def _with_noise(cost: RoundCost, factor: float) -> RoundCost:
    """Return the cost with `factor` times the noise, as far as a ledger can hold it."""
    counted = min(cost.counted.noise_multiplier * factor, MOST_NOISE)
    steps = min(cost.samples.noise_multiplier * factor, MOST_SAMPLE_NOISE)
    return RoundCost(
        counted=replace(cost.counted, noise_multiplier=counted),
        expected=cost.expected,
        samples=replace(cost.samples, noise_multiplier=steps),
    )


def _least_clipped(plan: Plan) -> GaussianMechanism | None:
    """Return the noise of a round of the smallest clip norm, where the grid is coarsest beside it: none spends more."""
    return replace(plan.mechanism, clip_norm=plan.clip_norms[-1]) if plan.mechanism is not None else None


def join_all(
    plan: Plan,
    wanted: BudgetSettings,
    *,
    run: str = "",
    done: int = 0,
    survivors: Sequence[Collection[ClientId]] = (),
) -> dict[ClientId, Lifetime]:
    """Open the budgets of all clients of a simulated run, each in its own folder, if every one of them may join.

    A client that may not join is an error and no drop-out: it is known before the run begins, and cohorts, quorums and
    the noise of the others were planned with it.

    Args:
        plan: The terms.
        wanted: The budget settings of each client.
        run: Identity of the run, hex; empty before it has one.
        done: Rounds that are over.
        survivors: For each of these rounds, the clients whose inputs were summed.

    Raises:
        BudgetError: The run would exceed a limit of a client.
        PrivacyError: A folder or ledger cannot be used.
    """
    with ExitStack() as held:
        joined = {}
        for client in plan.ranks:
            folder = BudgetFolder(Path(wanted.folder) / client, client=client)
            held.callback(folder.close)
            given = [number for number, each in enumerate(survivors, start=1) if client in each]
            joined[client] = Lifetime(plan, folder, wanted, run=run, done=done, given=given)
        held.pop_all()
    return joined
