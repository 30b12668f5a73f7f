"""Checks that refuse defences whose mode cannot see enough for them, and numbers that cannot be met."""

import numpy as np

from rbla_secure.config.choices import Clipping, Upload, Weighting
from rbla_secure.errors import PlanError, RobustnessError
from rbla_secure.lora.bands import Band
from rbla_secure.planning.cohort import cohort_size, tier_clients
from rbla_secure.planning.opening import largest_f
from rbla_secure.planning.promises import Promises
from rbla_secure.robustness.filter import FilterOptions
from rbla_secure.robustness.grouping import SEED_BYTES, check_groups, draw_groups, largest_group_size
from rbla_secure.robustness.registry import RECOMMENDED, build, pre_step_of


def check_robustness(promises: Promises) -> None:
    """Refuse defences that could not keep their promise.

    Raises:
        PlanError: Names the argument, its value and the rule.
    """
    wanted = promises.config.robustness
    if wanted.has_filter:
        _check_filter(promises)
    elif wanted.has_pre_step:
        raise PlanError(f"robustness.pre-step={wanted.pre_step} must have a robustness.filter behind it")
    if wanted.group_size:
        _check_groups(promises)


def _check_filter(promises: Promises) -> None:
    config, wanted = promises.config, promises.config.robustness
    if not promises.mode.reads_uploads:
        raise PlanError(
            f"robustness.filter={wanted.filter} must have secure-sum=plain: it looks at single updates, which "
            f"secure-sum={config.secure_sum} hides; {promises.mode.instead_of_filters}"
        )
    if promises.noisy:
        raise PlanError(
            f"robustness.filter={wanted.filter} must have noise-multiplier=0: noise on single updates blinds every filter, "
            "and which updates were kept is not covered by any epsilon"
        )
    _check_parameters(promises)
    # What has no quorum whatever the filter is uploaded by nobody, and warned of.
    failing = [
        each
        for each in promises.bands
        if each.holders >= promises.hostile_quorum and each.voters < promises.row_quorum
    ]
    if failing:
        thinnest = min(failing, key=lambda each: each.voters)
        raise PlanError(_too_few(promises, thinnest.band, thinnest.voters))


def _too_few(promises: Promises, band: Band, count: int) -> str:
    """Say why the filter could not open a band that others would open, and which settings would do."""
    config, wanted, needed = promises.config, promises.config.robustness, promises.row_quorum
    bucketing = pre_step_of(wanted.pre_step).in_buckets
    what = f"buckets of {wanted.bucket_size}" if bucketing else "holders"
    stands = largest_f(promises, count)
    smaller = f"robustness.f={stands}, " if stands is not None else ""
    plain = wanted.filter is RECOMMENDED and not wanted.has_pre_step
    other = "" if plain else f"robustness.filter={RECOMMENDED} without a pre-step (2f + 1 holders), "
    return (
        f"robustness.f={wanted.f} is too many for robustness.filter={wanted.filter} with "
        f"robustness.pre-step={wanted.pre_step} and min-holders={config.min_holders}: {band} has {count} {what} per round "
        f"and needs {needed}, or those that are left could be hostile in their majority. What would do: {smaller}"
        f"{other}or {needed - count} more clients of a round that hold it"
    )


def _check_parameters(promises: Promises) -> None:
    """Refuse parameters other than holders that the filter cannot use, before anything is trained."""
    config, wanted = promises.config, promises.config.robustness
    try:
        build(
            wanted.filter,
            f=wanted.f,
            privacy_quorum=config.min_holders,
            options=FilterOptions.of(config, reference={0: np.ones(1)}),
        )
    except RobustnessError as error:
        raise PlanError(
            f"robustness.filter={wanted.filter} cannot be used with robustness.f={wanted.f} and "
            f"min-holders={config.min_holders} (its privacy_quorum): {error}"
        ) from None


def _check_groups(promises: Promises) -> None:
    config, wanted = promises.config, promises.config.robustness
    _check_group_mode(promises)
    ranks = {
        client: tier.rank
        for name, tier in config.tiers.items()
        for client in tier_clients(name, tier)[: cohort_size(tier)]
    }
    try:
        groups = draw_groups(ranks, group_size=wanted.group_size, seed=bytes(SEED_BYTES))
        bands = [each.band for each in promises.bands]
        check_groups(groups, bands, f=wanted.f, privacy_quorum=config.min_holders)
    except RobustnessError as error:
        smallest = min(cohort_size(tier) for tier in config.tiers.values())
        fitting = min(largest_group_size(each.holders, wanted.f) for each in promises.bands)
        raise PlanError(
            f"robustness.group-size={wanted.group_size}: {error}; at robustness.f={wanted.f} a size of at most "
            f"{min(fitting, smallest)} can meet the bands, and one of at least min-holders={config.min_holders} the quorum"
        ) from None


def _check_group_mode(promises: Promises) -> None:
    config, size = promises.config, promises.config.robustness.group_size
    named = f"robustness.group-size={size}"
    if not promises.mode.sums_groups:
        raise PlanError(f"{named} must have secure-sum=masking or plain: ciphertexts are not grouped")
    if config.upload is Upload.PADDED:
        raise PlanError(f"{named} must have upload=banded: groups stay inside a rank tier")
    if config.robustness.has_filter:
        raise PlanError(f"{named} must have robustness.filter=none: groups are judged by their sums")
    if not promises.noisy:
        return
    privacy = config.privacy
    if promises.noise_by_server:
        raise PlanError(
            f"{named} must have privacy.mechanism=distributed: a median of groups has no central noise"
        )
    if privacy.recovered_dropout or privacy.clipping is Clipping.ADAPTIVE:
        raise PlanError(
            f"{named} must have privacy.recovered-dropout=0 and a fixed clip: both are counted over whole bands"
        )
    if config.weights is Weighting.EXAMPLES:
        raise PlanError(f"{named} must have weights=uniform under noise")
