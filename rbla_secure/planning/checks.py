"""Checks that refuse, before anything is trained, every run that could not keep its promises.

Nothing here needs a model or data.
"""

from collections.abc import Callable

from protocols.ring import RING_BITS, capacity
from rbla_secure.config import LEAST_SAMPLE_NOISE, MOST_SAMPLED_STEPS, Config
from rbla_secure.config.choices import (
    Adjacency,
    BandWeights,
    Rest,
    RowOrder,
    Weighting,
)
from rbla_secure.errors import PlanError, PrivacyError
from rbla_secure.lora.average import averaging_rule
from rbla_secure.planning.band_weights import check_band_weights
from rbla_secure.planning.budget import check_budget, check_sample_budget
from rbla_secure.planning.noise import check_privacy
from rbla_secure.planning.parameters import sample_level
from rbla_secure.planning.promises import Promises
from rbla_secure.planning.robust_checks import check_robustness
from rbla_secure.privacy.figures import exact
from rbla_secure.privacy.noise import NoiseKind, noise_kind


def check_config(config: Config) -> Promises:
    """Refuse a configuration whose run could not keep its promises; needs no model and no data.

    Returns:
        The promises of the configuration.

    Raises:
        PlanError: Names the argument, its value and the rule.
    """
    promises, privacy, robustness = Promises.build(config), config.privacy, config.robustness
    kind = noise_kind(privacy.mechanism)
    weighted = privacy.band_weights is not BandWeights.EQUAL or privacy.rank_decay
    of_noise = privacy.recovered_dropout or privacy.max_epsilon or promises.adaptive
    # In the order in which configurations are refused: what a check is about, and the check, which is made where that is set.
    checks: tuple[tuple[object, Callable[[Promises], None]], ...] = (
        (True, _check_tiers),
        (config.masking.threshold, _check_threshold),
        (True, _check_capacity),
        (True, promises.mode.check),
        # Before the noise, which is counted by the sizes of groups.
        (promises.judges_updates or robustness.group_size, check_robustness),
        (promises.class_quorum, _check_classes),
        (config.training.rows is RowOrder.IN_TURNS, _check_turns),
        # All that a mechanism without a check of its own refuses is a separation.
        (
            type(kind).check is not NoiseKind.check or privacy.separation,
            lambda found: kind.check(found.config),
        ),
        (privacy.sample_rate < 1, _check_draws),
        (weighted, check_band_weights),
        (promises.noisy, check_privacy),
        (promises.noisy, check_budget),
        (of_noise and not promises.noisy, _refuse_without_noise),
        (config.sample_level.noise_multiplier or config.sample_level.max_epsilon, _check_sample_level),
    )
    for wanted, check in checks:
        if wanted:
            check(promises)
    return promises


def _refuse_without_noise(promises: Promises) -> None:
    """Refuse settings that have a meaning only with noise on sums."""
    privacy = promises.config.privacy
    if privacy.recovered_dropout:
        raise PlanError(
            f"privacy.recovered-dropout={privacy.recovered_dropout:g} must be 0 without noise-multiplier above 0: "
            "there is no noise to make good"
        )
    if privacy.max_epsilon or promises.adaptive:
        raise PlanError(
            "noise-multiplier=0.0 must be above 0 with privacy.max-epsilon or privacy.clipping=adaptive: "
            "without noise nothing bounds epsilon"
        )


def _check_draws(promises: Promises) -> None:
    """Refuse secret draws unless one client's absence from a sum changes nothing but its own summand."""
    config, privacy = promises.config, promises.config.privacy
    named = f"privacy.sample-rate={privacy.sample_rate:g}"
    if config.noise_multiplier < LEAST_SAMPLE_NOISE:
        raise PlanError(
            f"{named} must be 1 with noise-multiplier={config.noise_multiplier:g}, below {LEAST_SAMPLE_NOISE:g}: sampling hides nobody "
            "without noise"
        )
    if not noise_kind(privacy.mechanism).hides_absence or privacy.adjacency is not Adjacency.ADD_OR_REMOVE:
        raise PlanError(
            f"{named} must be 1, or privacy.mechanism=central and privacy.adjacency=add-or-remove: whoever is not drawn takes no noise "
            "along, and what is divided by does not tell how many are"
        )
    if not promises.mode.opens_over_anybody:
        raise PlanError(
            f"{named} must have secure-sum=plain: masks and encryption need to know who takes part"
        )


def _check_sample_level(promises: Promises) -> None:
    config, wanted = promises.config, promises.config.sample_level
    if not wanted.noise_multiplier:
        if wanted.max_epsilon:
            raise PlanError(
                f"sample-level.max-epsilon={exact(wanted.max_epsilon)} must have sample-level.noise-multiplier above 0: without "
                "noise nothing bounds epsilon"
            )
        return
    if not config.training.steps:
        raise PlanError(
            "training.steps=0 must be above 0 with sample-level.noise-multiplier: each step draws its own batch, so "
            "there are no epochs, and their number would tell how many examples a client has"
        )
    if config.weights is Weighting.EXAMPLES:
        raise PlanError(
            "weights=examples must be uniform with sample-level.noise-multiplier: a weight would tell how many examples "
            "a client has, to the one"
        )
    try:
        sample_level(config)
    except PrivacyError as error:
        raise PlanError(f"sample-level: {error}") from None
    if wanted.noise_multiplier < LEAST_SAMPLE_NOISE:
        raise PlanError(
            f"sample-level.noise-multiplier={wanted.noise_multiplier:g} must be 0 or at least {LEAST_SAMPLE_NOISE:g}: with less, "
            "what sampled steps spend takes gigabytes to work out, and says nothing"
        )
    if config.training.steps > MOST_SAMPLED_STEPS:
        raise PlanError(
            f"training.steps={config.training.steps} must be <= {MOST_SAMPLED_STEPS} with sample-level.noise-multiplier: no ledger "
            "counts more in one round"
        )
    check_sample_budget(config)


def _check_capacity(promises: Promises) -> None:
    config, ring = promises.config, promises.config.quantization.ring_bits
    if ring not in RING_BITS:
        raise PlanError(f"quantization.ring-bits={ring} must be one of {', '.join(map(str, RING_BITS))}")
    if promises.grid_is_chosen:
        return
    members, levels = promises.members, promises.grid.levels
    limit = capacity(members, bits=ring)
    if levels > limit:
        wider = [bits for bits in RING_BITS if levels <= capacity(members, bits=bits)]
        raise PlanError(
            f"quantization.bits={config.quantization.bits} must be <= {(limit + 1).bit_length()}: the sum of {members} "
            f"clients would take more than half of the {ring}-bit ring, and one that went wrong could pass for right"
            + (f"; quantization.ring-bits={wider[0]} has room" if wider else "")
        )


def _check_tiers(promises: Promises) -> None:
    config = promises.config
    for name, tier in config.tiers.items():
        if tier.cohort > tier.clients:
            raise PlanError(
                f"tiers.{name}.cohort={tier.cohort} must be <= tiers.{name}.clients={tier.clients}"
            )
    bands = promises.bands
    if averaging_rule(config.average).equal_ranks_only and len(bands) > 1:
        raise PlanError(
            f"average={config.average} must have equal ranks: the tiers have {len(bands)} different ones"
        )
    for each in bands:
        if each.holders < config.min_holders:
            holding = sorted(name for name, tier in config.tiers.items() if tier.rank >= each.band.stop)
            raise PlanError(
                f"min-holders={config.min_holders} must be <= {each.holders}, the clients per round of rank "
                f">= {each.band.stop} (tiers {', '.join(holding)}): {each.band} could never open"
            )
    if (most := promises.members) < (quorum := promises.hostile_quorum):
        raise PlanError(
            f"robustness.f={config.robustness.f} asks for {quorum} holders of a band, and a round has {most} clients "
            "in all: nothing could ever open"
        )


def _check_turns(promises: Promises) -> None:
    """Refuse training rows in turns where ranks would not all compute and send alike.

    It takes folded rows, and nothing in a low band that depends on high ones; steps with noise are counted per round.
    """
    config = promises.config
    if config.lora.rest is Rest.DROPPED:
        raise PlanError(
            "training.rows=in-turns must have lora.rest=folded: clients that drop rows compute from different functions in "
            "whatever order they train"
        )
    if config.sample_level.noise_multiplier:
        raise PlanError(
            "training.rows=in-turns must be together with sample-level.noise-multiplier above 0: each turn would take as many "
            "steps as a round is accounted for"
        )
    if promises.adaptive:
        raise PlanError(
            "training.rows=in-turns must have privacy.clipping=flat or per-layer: each band is clipped alone, and a count of "
            "clients that were not clipped would tell in the lowest band what the others learned"
        )


def _check_classes(promises: Promises) -> None:
    """Refuse a class of view that is too small for its quorum: it would be left out of every round."""
    quorum, tiers = promises.class_quorum, promises.config.tiers
    for rank, size in promises.clients_of_ranks.items():
        if size < quorum:
            names = sorted(name for name, tier in tiers.items() if tier.rank == rank)
            raise PlanError(
                f"lora.rest=dropped: the {size} clients a round of rank {rank} (tiers {', '.join(names)}) compute from a "
                f"function of their own and are fewer than {quorum}, below which no sum shows them: they would be left out "
                "of every round; use lora.rest=folded, more clients of this rank, or (against a server that follows the "
                "protocol alone) masking.profile=semi-honest"
            )


def _check_threshold(promises: Promises) -> None:
    """Refuse a configured threshold outside its range; the default of a profile lies inside."""
    cohort, wanted = promises.members, promises.threshold
    profile = promises.mode.profile(promises.config)
    if wanted < profile.threshold(cohort):
        raise PlanError(
            f"masking.threshold={wanted} must be >= {profile.threshold(cohort)} "
            f"for {cohort} clients per round under masking.profile={profile.name}"
        )
    if wanted > cohort:
        raise PlanError(f"masking.threshold={wanted} must be <= {cohort}, the clients per round")
