"""Whether a configuration can end within max-epsilon: asked before anything is built or trained."""

import math
from collections import Counter
from collections.abc import Sequence

from rbla_secure.choices import Mechanism, SecureSumMode
from rbla_secure.config import Config
from rbla_secure.errors import PlanError
from rbla_secure.federation.cohort import cohort_size, sample_cohort
from rbla_secure.federation.derived import band_groups
from rbla_secure.federation.protection import claimed, known_noise
from rbla_secure.privacy.ledger import Observer
from rbla_secure.privacy.noise import Release


def participations(config: Config) -> int:
    """Rounds of the client that takes part most, by the cohorts that the seed gives."""
    if all(cohort_size(tier) == tier.clients for tier in config.tiers.values()):
        return config.rounds
    counts: Counter[str] = Counter()
    for number in range(1, config.rounds + 1):
        counts.update(sample_cohort(config.tiers, seed=config.seed, round_number=number))
    return max(counts.values())


def multiplier_against(observer: Observer, config: Config, counted: Sequence[int], colluding: int) -> float:
    """The noise multiplier of one round against an observer, if drop-outs are as expected.

    Args:
        observer: Against whom something is claimed.
        config: With noise.
        counted: For each band, the shares that make up the target.
        colluding: Clients whose noise the coalition knows.
    """
    wanted = config.noise_multiplier
    if config.privacy.mechanism is Mechanism.CENTRAL:
        return wanted
    if config.secure_sum is SecureSumMode.PLAIN and observer in {Observer.SERVER, Observer.COALITION}:
        # In the clear a single share hides an update: the smallest is that of the band with the most.
        return wanted / math.sqrt(max(counted))
    # Where clients are grouped, a sum has the shares of its own members alone, and the smallest group decides.
    present = [
        min(sizes, default=m + colluding) for (_, sizes), m in zip(band_groups(config), counted, strict=True)
    ]
    unknown = [max(0, each - known_noise(observer, colluding)) for each in present]
    return min(wanted * math.sqrt(g / m) for g, m in zip(unknown, counted, strict=True))


def check_budget(config: Config, counted: Sequence[int], colluding: int) -> None:
    """Refuse a run that would exceed its budget against anybody, even if everything goes as expected.

    Args:
        config: With noise.
        counted: For each band, the shares that make up the target.
        colluding: Clients whose noise the coalition knows.

    Raises:
        PlanError: It would; names the observer, and the noise multiplier that it would take.
    """
    limit, delta = config.privacy.max_epsilon, config.privacy.delta
    if not limit:
        return
    # The library takes a second to import: only where there is a budget.
    from rbla_secure.privacy.accounting import epsilon, noise_multiplier_for  # noqa: PLC0415

    rounds = participations(config)
    faced = {each: multiplier_against(each, config, counted, colluding) for each in claimed(config)}
    observer = min(faced, key=faced.__getitem__)
    multiplier = faced[observer]
    if not multiplier:
        groups = (
            f" with robustness.group-size={config.robustness.group_size}"
            if config.robustness.group_size
            else ""
        )
        raise PlanError(
            f"privacy.max-epsilon={limit:g} cannot be kept{groups}: the {observer} may know the noise of "
            f"{known_noise(observer, colluding)} clients (privacy.colluders={colluding}), and a sum over so few has none that "
            "it does not know"
        )
    spent = epsilon([Release(noise_multiplier=multiplier, slack=0.0, rho=0.0)] * rounds, delta)
    if spent > limit:
        needed = noise_multiplier_for(limit, delta=delta, releases=rounds)
        needed *= config.noise_multiplier / multiplier
        raise PlanError(
            f"privacy.max-epsilon={limit:g} must be >= {spent:.3f}, which {rounds} rounds of one client spend against the "
            f"{observer} at noise-multiplier={config.noise_multiplier:g} and delta={delta:g}; "
            f"noise-multiplier={math.ceil(needed * 1000) / 1000:g} would do"
        )


def check_sample_budget(config: Config) -> None:
    """Refuse a run whose clients' training would exceed the budget of single examples.

    Raises:
        PlanError: It would; names the noise multiplier that it would take.
    """
    wanted = config.sample_level
    if not wanted.max_epsilon:
        return
    # The library takes a second to import: only where there is a budget.
    from rbla_secure.privacy.accounting import (  # noqa: PLC0415
        SampledSteps,
        epsilon_of_steps,
        noise_multiplier_of_steps,
    )

    rounds = participations(config)
    steps, rate, delta = config.training.steps * rounds, wanted.sample_rate, wanted.delta
    history = SampledSteps(noise_multiplier=wanted.noise_multiplier, sample_rate=rate, steps=steps)
    try:
        spent = epsilon_of_steps([history], delta)
    except MemoryError:
        raise PlanError(
            f"sample-level.noise-multiplier={wanted.noise_multiplier:g} and {steps} steps of a client take more memory to "
            "account for than there is: more noise or fewer steps and rounds are needed"
        ) from None
    if spent > wanted.max_epsilon:
        needed = noise_multiplier_of_steps(wanted.max_epsilon, delta=delta, sample_rate=rate, steps=steps)
        raise PlanError(
            f"sample-level.max-epsilon={wanted.max_epsilon:g} must be >= {spent:.3f}, which {steps} steps in {rounds} rounds "
            f"spend at sample-level.noise-multiplier={wanted.noise_multiplier:g}, sample-rate={rate:g} and delta={delta:g}; "
            f"noise-multiplier={math.ceil(needed * 1000) / 1000:g} would do"
        )
