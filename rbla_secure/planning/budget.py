"""Checks, before anything is trained, that a configuration can end within max-epsilon.

There are two checks. The first needs the configuration alone and computes what ideal noise of the configured multiplier
would spend: no mechanism spends less, so what exceeds the budget there exceeds it. The second needs the built mechanism
and computes what that spends on its own grid, whose rounding takes a part of the noise (`privacy/noise/`): the figure
that `account` prints and ledgers count.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from rbla_secure.config import Config
from rbla_secure.errors import PlanError
from rbla_secure.planning.cohort import cohort_size, planned_cohort
from rbla_secure.planning.noise import Views, known_noise, views
from rbla_secure.planning.parameters import sample_level
from rbla_secure.planning.promises import Promises
from rbla_secure.privacy.figures import exact, rounded_down, rounded_up
from rbla_secure.privacy.ledger import Observer
from rbla_secure.privacy.noise import GaussianMechanism, Release

if TYPE_CHECKING:
    from rbla_secure.privacy.accounting import SampledSteps

# By noise multiplier, the mechanism of a plan; a PlanError where its grid has no room for that noise, or rounds too coarsely for it.
Build = Callable[[float], GaussianMechanism]
# The search for a noise multiplier stops when it is so close, on the side of more noise.
_TOLERANCE: Final = 1e-6
# A grid may become coarser with more noise, so that a little more than in proportion is needed; not more often than this.
_STEP, _TRIES = 1.01, 50


def participations(config: Config) -> int:
    """Return the rounds of the client that takes part most, by the cohorts that the seed gives."""
    if all(cohort_size(tier) == tier.clients for tier in config.tiers.values()):
        return config.rounds
    counts: Counter[str] = Counter()
    for number in range(1, config.rounds + 1):
        counts.update(planned_cohort(config, number))
    return max(counts.values())


def multiplier_against(observer: Observer, promises: Promises) -> float:
    """Return the noise multiplier of one round against an observer, if drop-outs are as expected.

    Args:
        observer: An observer against whom privacy is claimed.
        promises: The promises of a configuration with noise.
    """
    wanted, colluding = promises.config.noise_multiplier, promises.colluders
    if promises.noise_by_server:
        return wanted
    if promises.mode.reads_uploads and observer in {Observer.SERVER, Observer.COALITION}:
        # In the clear a single share hides an update: the smallest is that of the band with the most.
        return wanted / math.sqrt(max(each.counted for each in promises.bands))
    # Where clients are grouped, a sum has the shares of its own members alone, and the smallest group decides.
    known = known_noise(observer, colluding)
    return min(
        wanted * math.sqrt(max(0, min(each.groups, default=each.counted + colluding) - known) / each.counted)
        for each in promises.bands
    )


def coarsest(promises: Promises, mechanism: GaussianMechanism) -> GaussianMechanism:
    """Return the noise of a round of the smallest clip norm, where the grid is coarsest beside it: none spends more."""
    return replace(mechanism, clip_norm=promises.clip_norms[-1])


def expected_present(promises: Promises) -> dict[int, int]:
    """Return, by band index, the uploaders of a round with the expected drop-outs; in groups, of the smallest group."""
    return {
        each.band.index: min(each.groups, default=each.counted + promises.colluders)
        for each in promises.bands
    }


def expected_views(promises: Promises, mechanism: GaussianMechanism) -> Views:
    """Return what a round spends against each observer, at the smallest clip norm and with the expected drop-outs."""
    noise = coarsest(promises, mechanism)
    return views(promises, noise, present=expected_present(promises), colluding=promises.colluders)


def least_faced(promises: Promises, mechanism: GaussianMechanism) -> float:
    """Return the smallest noise multiplier of :func:`expected_views` among the observers that are claimed against."""
    seen = expected_views(promises, mechanism)
    return min(seen[observer].noise_multiplier for observer in promises.claimed)


def noise_for(wanted: float, promises: Promises, build: Build) -> float | None:
    """Return a configured noise multiplier with which every observer claimed against faces at least `wanted`.

    Args:
        wanted: The noise multiplier that observers must face, above 0.
        promises: The promises of a configuration with noise, whose mechanism can be built.
        build: Builds the plan's mechanism with another noise multiplier.

    Returns:
        The smallest one, found to a millionth from above, but none above the configured one where that is enough; None where
        an observer knows all noise, or the grid has no room for enough.
    """

    def faced(multiplier: float) -> float:
        try:
            return least_faced(promises, build(multiplier))
        except PlanError:
            return 0.0

    low, high = 0.0, promises.config.noise_multiplier
    if not (found := faced(high)):
        return None
    if found < wanted:
        low, high = high, high * wanted / found
        for _ in range(_TRIES):
            if faced(high) >= wanted:
                break
            high *= _STEP
        else:
            return None
    while high - low > _TOLERANCE * high:
        middle = (low + high) / 2
        low, high = (low, middle) if faced(middle) >= wanted else (middle, high)
    return high


def check_budget(promises: Promises) -> None:
    """Refuse a run that would exceed its budget against any observer with ideal noise and the expected drop-outs.

    Args:
        promises: The promises of a configuration with noise.

    Raises:
        PlanError: It would; names the observer and the noise multiplier that would do.
    """
    config, colluding = promises.config, promises.colluders
    limit, delta = config.privacy.max_epsilon, config.privacy.delta
    if not limit:
        return
    # The library takes a second to import: only where there is a budget.
    from rbla_secure.privacy.accounting import epsilon, noise_multiplier_for  # noqa: PLC0415

    rounds = participations(config)
    faced = {each: multiplier_against(each, promises) for each in promises.claimed}
    observer = min(faced, key=faced.__getitem__)
    multiplier = faced[observer]
    if not multiplier:
        groups = (
            f" with robustness.group-size={config.robustness.group_size}"
            if config.robustness.group_size
            else ""
        )
        raise PlanError(
            f"privacy.max-epsilon={exact(limit)} cannot be kept{groups}: the {observer} may know the noise of "
            f"{known_noise(observer, colluding)} clients (privacy.colluders={colluding}), and a sum over so few has none that "
            "it does not know"
        )
    rate = config.privacy.sample_rate
    release = Release(noise_multiplier=multiplier, slack=0.0, rho=0.0, sample_rate=rate)
    spent = epsilon([release] * rounds, delta)
    if spent > limit:
        needed = noise_multiplier_for(limit, delta=delta, releases=rounds, sample_rate=rate)
        needed *= config.noise_multiplier / multiplier
        # Rounded down: of what a mechanism spends it is a lower bound.
        raise PlanError(
            f"{_too_small(config, rounded_down(spent), rounds)} at least against the {observer} {_noise_and_delta(config)}; "
            f"noise-multiplier={rounded_up(needed)} or more would do"
        )


def check_planned_budget(promises: Promises, mechanism: GaussianMechanism, build: Build) -> None:
    """Refuse a plan whose own mechanism would exceed its budget against any observer, with the expected drop-outs.

    Args:
        promises: The promises of a configuration with noise.
        mechanism: The noise mechanism of the plan.
        build: Builds the mechanism with another noise multiplier.

    Raises:
        PlanError: It would; names the observer, the epsilon that `account` prints without a budget, and the noise multiplier
            that would do.
    """
    config = promises.config
    limit, delta = config.privacy.max_epsilon, config.privacy.delta
    if not limit:
        return
    # The library takes a second to import: only where there is a budget.
    from rbla_secure.privacy.accounting import epsilon, noise_multiplier_for  # noqa: PLC0415

    rounds, seen = participations(config), expected_views(promises, mechanism)
    spent = {each: epsilon([seen[each]] * rounds, delta) for each in promises.claimed}
    observer = max(spent, key=spent.__getitem__)
    # Not `> limit`, which no figure is that is not a number.
    if spent[observer] <= limit:
        return
    rate = config.privacy.sample_rate
    wanted = noise_multiplier_for(limit, delta=delta, releases=rounds, sample_rate=rate)
    needed = noise_for(wanted, promises, build)
    finer = "quantization.ring-bits" if promises.grid_is_chosen else "quantization.bits"
    remedy = (
        "there is no room for the noise that would do: a larger budget or fewer rounds are needed"
        if needed is None
        else f"noise-multiplier={rounded_up(needed)} would do, or a finer grid (a larger {finer})"
    )
    raise PlanError(
        f"{_too_small(config, rounded_up(spent[observer]), rounds)} against the {observer} {_noise_and_delta(config)} on the "
        f"plan's grid, whose rounding takes a part of the noise; {remedy}"
    )


def _too_small(config: Config, spent: str, rounds: int) -> str:
    limit = exact(config.privacy.max_epsilon)
    return f"privacy.max-epsilon={limit} must be >= {spent}, which {rounds} rounds of one client spend"


def _noise_and_delta(config: Config) -> str:
    return f"at noise-multiplier={exact(config.noise_multiplier)} and delta={exact(config.privacy.delta)}"


def planned_steps(config: Config) -> "tuple[SampledSteps, ...]":
    """Return all sampled steps of the client that takes part most; none without noise inside clients."""
    # The library takes a second to import: only where there is something to account for.
    from rbla_secure.privacy.accounting import SampledSteps  # noqa: PLC0415

    if (mechanism := sample_level(config)) is None:
        return ()
    rounds = participations(config)
    part = SampledSteps(
        noise_multiplier=mechanism.noise_multiplier,
        sample_rate=mechanism.sample_rate,
        steps=rounds * mechanism.steps,
        slack=rounds * mechanism.slack,
        total_variation=rounds * mechanism.total_variation,
    )
    return (part,)


def check_sample_budget(config: Config) -> None:
    """Refuse a run whose clients' training would exceed the budget of single examples.

    Raises:
        PlanError: It would; names the noise multiplier that would do.
    """
    wanted = config.sample_level
    if not wanted.max_epsilon:
        return
    # The library takes a second to import: only where there is a budget.
    from rbla_secure.privacy.accounting import epsilon_of_steps, noise_multiplier_of_steps  # noqa: PLC0415

    rounds = participations(config)
    steps, rate, delta = config.training.steps * rounds, wanted.sample_rate, wanted.delta
    try:
        spent = epsilon_of_steps(planned_steps(config), delta)
    except MemoryError:
        raise PlanError(
            f"sample-level.noise-multiplier={exact(wanted.noise_multiplier)} and {steps} steps of a client take more memory to "
            "account for than there is: more noise or fewer steps and rounds are needed"
        ) from None
    if spent > wanted.max_epsilon:
        needed = noise_multiplier_of_steps(wanted.max_epsilon, delta=delta, sample_rate=rate, steps=steps)
        raise PlanError(
            f"sample-level.max-epsilon={exact(wanted.max_epsilon)} must be >= {rounded_up(spent)}, which {steps} steps in "
            f"{rounds} rounds spend at sample-level.noise-multiplier={exact(wanted.noise_multiplier)}, "
            f"sample-rate={exact(rate)} and delta={exact(delta)}; noise-multiplier={rounded_up(needed)} would do"
        )
