"""The security parameters, parties and mechanisms that a configuration names."""

from collections.abc import Mapping
from typing import Final

from protocols import profiles
from protocols.homomorphic.scheme import parameters
from protocols.homomorphic.scheme.parameters import EncryptionProfile
from protocols.homomorphic.terms import Services
from protocols.profiles import MaskingProfile
from rbla_secure.config import Config
from rbla_secure.config.choices import Profile
from rbla_secure.privacy.sampled_gaussian import SampledGaussian

WORTHLESS = "the noise follows from the seed and can be subtracted; its epsilon is worthless as protection"

# The name under which a verifier is enrolled.
VERIFIER = "verifier"

MASKING_PROFILES: Final[Mapping[Profile, MaskingProfile]] = {
    choice: profiles.by_name(choice.value) for choice in Profile
}


def masking_profile(config: Config) -> MaskingProfile:
    """Return the security parameters that a configuration names."""
    return MASKING_PROFILES[config.masking.profile]


def encryption_profile(config: Config) -> EncryptionProfile:
    """Return the encryption parameters that a configuration names."""
    return parameters.by_name(config.homomorphic.profile.value)


def services(config: Config) -> Services:
    """Return the services that decrypt and, if configured, verify."""
    return Services(verifier=VERIFIER if config.homomorphic.verifier else "")


def sample_level(config: Config) -> SampledGaussian | None:
    """Return the noise inside each client's training; None without."""
    wanted = config.sample_level
    if not wanted.noise_multiplier:
        return None
    return SampledGaussian(
        noise_multiplier=wanted.noise_multiplier,
        clip_norm=wanted.clip_norm,
        sample_rate=wanted.sample_rate,
        steps=config.training.steps,
    )
