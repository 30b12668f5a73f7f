"""How many drop-outs of a band are made good by noise that is removed where it is not needed, and where that can be.

What is removed grows from secrets that clients share beside their masks' seeds, so it takes masking; and it takes a server
that tells all clients the same survivors, or too many secrets would be given out (privacy/shares.py).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import final

from protocols.session import MAX_EXTRA_SECRETS
from rbla_secure.config import Config
from rbla_secure.config.choices import Profile
from rbla_secure.errors import PlanError
from rbla_secure.lora.bands import Band
from rbla_secure.planning.modes import mode_of
from rbla_secure.planning.noise_settings import noise_by_server

_KEY = "privacy.recovered-dropout"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BandSize:
    """A band, how many clients of a round upload it, and how many of their noise shares are counted on."""

    band: Band
    uploaders: int
    counted: int


def recovered_shares(config: Config, uploaders: int) -> int:
    """T: so many of a band's uploaders may be missing without less noise; the share as it is written, rounded down."""
    return math.floor(Fraction(str(config.privacy.recovered_dropout)) * uploaders)


def check_recovery(config: Config, sizes: Sequence[BandSize]) -> None:
    """Refuse to make drop-outs good where nothing can; needs no model. Without noise, ask :func:`refuse_without_noise`.

    Args:
        config: With noise.
        sizes: Every band.

    Raises:
        PlanError: Names the argument, its value, the rule and what to do.
    """
    if not config.privacy.recovered_dropout:
        return
    _check_mode(config)
    wanted = f"{_KEY}={config.privacy.recovered_dropout:g}"
    for size in sizes:
        recovered = recovered_shares(config, size.uploaders)
        if recovered > MAX_EXTRA_SECRETS:
            raise PlanError(
                f"{wanted} makes good {recovered} of the {size.uploaders} uploaders of {size.band}, and at most "
                f"{MAX_EXTRA_SECRETS} can be: use {MAX_EXTRA_SECRETS / size.uploaders:.3g} or less"
            )
        if recovered >= size.counted:
            raise PlanError(
                f"{wanted} makes good {recovered} of the {size.uploaders} uploaders of {size.band}, and must be fewer than "
                f"the {size.counted} whose noise the server does not know: use a smaller share, fewer "
                "privacy.colluders, or more clients"
            )
    largest = max(size.uploaders for size in sizes)
    if not recovered_shares(config, largest):
        raise PlanError(
            f"{wanted} makes good not one client of any band: it must be 0, or at least 1/{largest} for the largest "
            f"band, which {largest} clients upload"
        )


def refuse_without_noise(config: Config) -> None:
    """Refuse to make noise good that is not there.

    Raises:
        PlanError: The configuration asks for it.
    """
    if config.privacy.recovered_dropout:
        raise PlanError(
            f"{_KEY}={config.privacy.recovered_dropout:g} must be 0 without noise-multiplier above 0: "
            "there is no noise to make good"
        )


def _check_mode(config: Config) -> None:
    privacy, wanted = config.privacy, f"{_KEY}={config.privacy.recovered_dropout:g}"
    if noise_by_server(config):
        raise PlanError(
            f"{wanted} needs privacy.mechanism=distributed, not {privacy.mechanism}: noise that the server adds does not "
            f"drop out; set {_KEY}=0"
        )
    if not mode_of(config).shares_secrets:
        raise PlanError(
            f"{wanted} needs secure-sum=masking, not {config.secure_sum}: only there do clients share the seeds of noise; "
            "use privacy.expected-dropout instead"
        )
    if mode_of(config).lists_may_differ(config):
        raise PlanError(
            f"{wanted} needs masking.profile={Profile.CONSISTENCY} or {Profile.SEMI_HONEST}, not "
            f"{config.masking.profile}: under it a server may tell clients different survivors, and a list that is too "
            "long gives out the seeds of too much noise"
        )
    if privacy.expected_dropout:
        raise PlanError(
            f"{wanted} needs privacy.expected-dropout=0, not {privacy.expected_dropout:g}: what is made good exactly "
            "is not provided for a second time"
        )
