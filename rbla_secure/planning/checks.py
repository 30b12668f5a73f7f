"""What a plan refuses before anything is trained: every run that could not keep its promises.

Nothing here needs a model or data.
"""

from protocols.ring import RING_BITS, capacity
from protocols.session import MAX_MEMBERS, MIN_MEMBERS
from rbla_secure.config import LEAST_SAMPLE_NOISE, MOST_SAMPLED_STEPS, Config
from rbla_secure.config.choices import (
    Adjacency,
    Rest,
    RowOrder,
    Weighting,
)
from rbla_secure.errors import PlanError, PrivacyError
from rbla_secure.lora.average import averaging_rule
from rbla_secure.lora.bands import rank_bands
from rbla_secure.planning.band_weights import check_band_weights
from rbla_secure.planning.budget import check_budget, check_sample_budget
from rbla_secure.planning.cohort import cohort_size
from rbla_secure.planning.modes import mode_of
from rbla_secure.planning.noise import check_privacy, colluders, counted_shares
from rbla_secure.planning.noise_settings import adaptive, grid_is_chosen, levels, noisy
from rbla_secure.planning.opening import class_quorum
from rbla_secure.planning.quorums import (
    bands_and_holders,
    masking_profile,
    members_per_round,
    sample_level,
    threshold,
)
from rbla_secure.planning.recovered_noise import refuse_without_noise
from rbla_secure.planning.robust_checks import check_robustness
from rbla_secure.privacy.figures import exact
from rbla_secure.privacy.noise import noise_kind
from rbla_secure.robustness.quorum import band_quorum


def check_config(config: Config) -> None:
    """Refuse a configuration whose run could not keep its promises; needs no model and no data.

    Raises:
        PlanError: Names the argument, its value and the rule.
    """
    cohort = members_per_round(config)
    if not MIN_MEMBERS <= cohort <= MAX_MEMBERS:
        raise PlanError(f"tiers: {cohort} clients per round must be {MIN_MEMBERS}..{MAX_MEMBERS}")
    _check_tiers(config)
    _check_threshold(config)
    _check_capacity(config)
    mode_of(config).check(config)
    # Before the noise, which is counted by the sizes of groups.
    check_robustness(config)
    _check_classes(config)
    _check_turns(config)
    noise_kind(config.privacy.mechanism).check(config)
    _check_draws(config)
    check_band_weights(config)
    _check_noise(config)
    _check_sample_level(config)


def _check_noise(config: Config) -> None:
    if noisy(config):
        members, holders = members_per_round(config), bands_and_holders(config)
        colluding = colluders(config, masking_profile(config), members)
        check_privacy(config, holders=holders, members=members, colluding=colluding)
        counted = [counted_shares(config, count, members, colluding) for _, count in holders]
        check_budget(config, counted, colluding)
        return
    refuse_without_noise(config)
    if config.privacy.max_epsilon or adaptive(config):
        raise PlanError(
            "noise-multiplier=0.0 must be above 0 with privacy.max-epsilon or privacy.clipping=adaptive: "
            "without noise nothing bounds epsilon"
        )


def _check_draws(config: Config) -> None:
    """Secret draws need a sum in which one client that is not there changes nothing but its own summand."""
    privacy, named = config.privacy, f"privacy.sample-rate={config.privacy.sample_rate:g}"
    if privacy.sample_rate == 1:
        return
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
    if not mode_of(config).opens_over_anybody:
        raise PlanError(
            f"{named} must have secure-sum=plain: masks and encryption need to know who takes part"
        )


def _check_sample_level(config: Config) -> None:
    wanted = config.sample_level
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


def _check_capacity(config: Config) -> None:
    ring = config.quantization.ring_bits
    if ring not in RING_BITS:
        raise PlanError(f"quantization.ring-bits={ring} must be one of {', '.join(map(str, RING_BITS))}")
    if grid_is_chosen(config):
        return
    members = members_per_round(config)
    limit = capacity(members, bits=ring)
    if levels(config) > limit:
        wider = [bits for bits in RING_BITS if levels(config) <= capacity(members, bits=bits)]
        raise PlanError(
            f"quantization.bits={config.quantization.bits} must be <= {(limit + 1).bit_length()}: the sum of {members} "
            f"clients would take more than half of the {ring}-bit ring, and one that went wrong could pass for right"
            + (f"; quantization.ring-bits={wider[0]} has room" if wider else "")
        )


def _check_tiers(config: Config) -> None:
    for name, tier in config.tiers.items():
        if tier.cohort > tier.clients:
            raise PlanError(
                f"tiers.{name}.cohort={tier.cohort} must be <= tiers.{name}.clients={tier.clients}"
            )
    bands = rank_bands(tier.rank for tier in config.tiers.values())
    if averaging_rule(config.average).equal_ranks_only and len(bands) > 1:
        raise PlanError(
            f"average={config.average} must have equal ranks: the tiers have {len(bands)} different ones"
        )
    for band in bands:
        holding = {name: cohort_size(tier) for name, tier in config.tiers.items() if tier.rank >= band.stop}
        if sum(holding.values()) < config.min_holders:
            raise PlanError(
                f"min-holders={config.min_holders} must be <= {sum(holding.values())}, the clients per round of rank "
                f">= {band.stop} (tiers {', '.join(sorted(holding))}): {band} could never open"
            )
    if (most := members_per_round(config)) < (quorum := band_quorum(config.robustness.f, config.min_holders)):
        raise PlanError(
            f"robustness.f={config.robustness.f} asks for {quorum} holders of a band, and a round has {most} clients "
            "in all: nothing could ever open"
        )


def _check_turns(config: Config) -> None:
    """Rows in turns make all ranks compute and send alike.

    That takes folded rows, and nothing in a low band that depends on high ones; steps with noise are counted by the round.
    """
    if config.training.rows is RowOrder.TOGETHER:
        return
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
    if adaptive(config):
        raise PlanError(
            "training.rows=in-turns must have privacy.clipping=flat or per-layer: each band is clipped alone, and a count of "
            "clients that were not clipped would tell in the lowest band what the others learned"
        )


def _check_classes(config: Config) -> None:
    """A class of view that is too small for its quorum would be left out of every round."""
    quorum = class_quorum(config)
    ranks = {tier.rank for tier in config.tiers.values()}
    for rank in sorted(ranks) if quorum else ():
        names = sorted(name for name, tier in config.tiers.items() if tier.rank == rank)
        size = sum(cohort_size(config.tiers[name]) for name in names)
        if size < quorum:
            raise PlanError(
                f"lora.rest=dropped: the {size} clients a round of rank {rank} (tiers {', '.join(names)}) compute from a "
                f"function of their own and are fewer than {quorum}, below which no sum shows them: they would be left out "
                "of every round; use lora.rest=folded, more clients of this rank, or (against a server that follows the "
                "protocol alone) masking.profile=semi-honest"
            )


def _check_threshold(config: Config) -> None:
    cohort, wanted = members_per_round(config), threshold(config)
    profile = mode_of(config).profile(config)
    if wanted < profile.threshold(cohort):
        raise PlanError(
            f"masking.threshold={wanted} must be >= {profile.threshold(cohort)} "
            f"for {cohort} clients per round under masking.profile={profile.name}"
        )
    if wanted > cohort:
        raise PlanError(f"masking.threshold={wanted} must be <= {cohort}, the clients per round")
