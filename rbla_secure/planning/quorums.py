"""What follows from a configuration alone: profiles, thresholds, bands and quorums."""

from protocols import profiles
from protocols.homomorphic.scheme import parameters
from protocols.homomorphic.scheme.parameters import EncryptionProfile
from protocols.homomorphic.terms import Services
from protocols.profiles import MaskingProfile
from rbla_secure.config import Config
from rbla_secure.lora.bands import Band, rank_bands
from rbla_secure.planning.cohort import cohort_size
from rbla_secure.privacy.sampled_gaussian import SampledGaussian
from rbla_secure.robustness import quorum
from rbla_secure.robustness.grouping import group_sizes
from rbla_secure.robustness.registry import least_holders, pre_step_of

WORTHLESS = "the noise follows from the seed and can be subtracted; its epsilon is worthless as protection"

# The name under which a verifier is enrolled.
VERIFIER = "verifier"


def masking_profile(config: Config) -> MaskingProfile:
    """The security parameters that a configuration names."""
    return profiles.by_name(config.masking.profile.value)


def encryption_profile(config: Config) -> EncryptionProfile:
    """The encryption parameters that a configuration names."""
    return parameters.by_name(config.homomorphic.profile.value)


def services(config: Config) -> Services:
    """Who decrypts and, if the configuration wants it, who verifies."""
    return Services(verifier=VERIFIER if config.homomorphic.verifier else "")


def threshold(config: Config) -> int:
    """Survivors needed to open a round: the configured number or the profile's."""
    return config.masking.threshold or masking_profile(config).threshold(members_per_round(config))


def members_per_round(config: Config) -> int:
    """Clients of one cohort."""
    return sum(cohort_size(tier) for tier in config.tiers.values())


def bands_and_holders(config: Config) -> list[tuple[Band, int]]:
    """Every rank band and how many clients of a round hold it."""
    tiers = config.tiers.values()
    return [
        (band, sum(cohort_size(tier) for tier in tiers if tier.rank >= band.stop))
        for band in rank_bands(tier.rank for tier in tiers)
    ]


def band_buckets(config: Config) -> list[tuple[Band, int]]:
    """Every rank band and how many of a round's buckets hold it: the last one of a rank may be smaller."""
    size = config.robustness.bucket_size
    buckets = {rank: -(-count // size) for rank, count in clients_of_ranks(config).items()}
    return [
        (band, sum(count for rank, count in buckets.items() if rank >= band.stop))
        for band in rank_bands(buckets)
    ]


def band_voters(config: Config) -> list[tuple[Band, int]]:
    """Every rank band and how many have a vote in it: buckets where there are any, or else single holders."""
    if pre_step_of(config.robustness.pre_step).in_buckets:
        return band_buckets(config)
    return bands_and_holders(config)


def largest_f(config: Config, voters: int) -> int | None:
    """The most attackers against whom the plan's filter opens a band of so many votes; None if not even against none."""
    wanted = config.robustness

    def needed(f: int) -> int:
        return least_holders(wanted.filter, f=f, privacy_quorum=config.min_holders, pre_step=wanted.pre_step)

    return max((f for f in range(voters + 1) if needed(f) <= voters), default=None)


def band_groups(config: Config) -> list[tuple[Band, tuple[int, ...]]]:
    """Every rank band and the sizes of the groups of a round that hold it; no sizes where clients are not grouped."""
    clients, size = clients_of_ranks(config), config.robustness.group_size
    sizes = {rank: group_sizes(count, size) if size else () for rank, count in clients.items()}
    return [
        (band, tuple(each for rank, of_rank in sizes.items() if rank >= band.stop for each in of_rank))
        for band in rank_bands(clients)
    ]


def clients_of_ranks(config: Config) -> dict[int, int]:
    """By rank: clients of a round."""
    clients: dict[int, int] = {}
    for tier in config.tiers.values():
        clients[tier.rank] = clients.get(tier.rank, 0) + cohort_size(tier)
    return dict(sorted(clients.items()))


def sample_level(config: Config) -> SampledGaussian | None:
    """The noise inside each client's training; None without."""
    wanted = config.sample_level
    if not wanted.noise_multiplier:
        return None
    return SampledGaussian(
        noise_multiplier=wanted.noise_multiplier,
        clip_norm=wanted.clip_norm,
        sample_rate=wanted.sample_rate,
        steps=config.training.steps,
    )


def row_quorum(config: Config) -> int:
    """Holders with which a band may open: against hostile ones, and against sums over too few.

    As many as the filter needs, where there is one: rules that leave holders out need more. Behind bucketing it counts buckets, of
    which there are no more than holders.
    """
    wanted = config.robustness
    return least_holders(
        wanted.filter, f=wanted.f, privacy_quorum=config.min_holders, pre_step=wanted.pre_step
    )


def closed_for_good(config: Config) -> tuple[str, ...]:
    """The bands that can never open against f hostile clients, in words; their rows stay as every run begins."""
    ranks = [tier.rank for tier in config.tiers.values() for _ in range(cohort_size(tier))]
    wanted = config.robustness.f
    return quorum.closed_bands(rank_bands(ranks), ranks, f=wanted, privacy_quorum=config.min_holders)
