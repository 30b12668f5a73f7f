"""What follows from a configuration alone: profiles, thresholds, bands, quorums, and what weakens a run."""

from protocols import profiles
from protocols.homomorphic import parameters
from protocols.homomorphic.parameters import EncryptionProfile
from protocols.homomorphic.terms import Services
from protocols.masking.parameters import reveal_quorum
from protocols.profiles import MaskingProfile, SurvivorCheck
from rbla_secure.choices import Screen, SecureSumMode
from rbla_secure.config import Config
from rbla_secure.federation.cohort import cohort_size
from rbla_secure.federation.protection import noisy
from rbla_secure.lora.bands import Band, rank_bands
from rbla_secure.privacy.sampled_gaussian import SampledGaussian
from rbla_secure.robustness import quorum

WORTHLESS = "the noise follows from the seed and can be subtracted; its epsilon is worthless as protection"

# Below three holders, a holder can subtract its own part and read another's.
SAFE_MIN_HOLDERS = 3
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
    """Holders with which a band may open: against hostile ones, and against sums over too few."""
    return quorum.band_quorum(config.robustness.f, config.min_holders)


def closed_for_good(config: Config) -> tuple[str, ...]:
    """The bands that can never open against f hostile clients, in words; their rows stay as every run begins."""
    ranks = [tier.rank for tier in config.tiers.values() for _ in range(cohort_size(tier))]
    wanted = config.robustness.f
    return quorum.closed_bands(rank_bands(ranks), ranks, f=wanted, privacy_quorum=config.min_holders)


def band_quorum(config: Config, holders: int) -> int:
    """Surviving holders with which a band of so many holders opens."""
    profile, members = masking_profile(config), members_per_round(config)
    masked = config.secure_sum is SecureSumMode.MASKING
    if not masked or profile.survivor_check is not SurvivorCheck.REVEAL_QUORUM:
        return row_quorum(config)
    return reveal_quorum(
        segment_members=holders,
        quorum=row_quorum(config),
        members=members,
        threshold=threshold(config),
        corrupt=profile.corrupt(members),
    )


def warnings(config: Config) -> list[str]:
    """What is allowed but weakens the run."""
    found = []
    if config.secure_sum is SecureSumMode.PLAIN:
        found.append("INSECURE: secure-sum=plain shows every single update to the server")
    if config.secure_sum is SecureSumMode.HOMOMORPHIC and config.homomorphic.screening is not Screen.OFF:
        found.append(
            "homomorphic.screening finds faulty clients, not malicious ones: a forged copy can have any norm, and the "
            "decryptor sees norm and cosine of every update"
        )
    if (noisy(config) or config.sample_level.noise_multiplier) and config.privacy.simulation:
        found.append(f"SIMULATION: {WORTHLESS}")
    found += [
        f"robustness.f={config.robustness.f}: {text}; the band never opens, and its rows stay as they are"
        for text in closed_for_good(config)
    ]
    if config.min_holders < SAFE_MIN_HOLDERS:
        found.append(
            f"INSECURE: min-holders={config.min_holders} opens bands in which a holder reads another's update; "
            f"{SAFE_MIN_HOLDERS} or more is safe against single holders"
        )
    return found
