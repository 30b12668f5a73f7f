"""Checks of noise recovery: extra noise makes drop-outs good and is removed where it is not needed.

The removed noise is derived from secrets that clients share beside their masks' seeds, so it takes masking. It also
takes a server that names the same survivors to all clients, or too many secrets would be revealed (privacy/shares.py).
"""

from protocols.session import MAX_EXTRA_SECRETS
from rbla_secure.config.choices import Profile
from rbla_secure.errors import PlanError
from rbla_secure.planning.promises import Promises

_KEY = "privacy.recovered-dropout"


def check_recovery(promises: Promises) -> None:
    """Refuse to make drop-outs good where that is impossible; needs no model.

    Args:
        promises: The promises of a configuration with noise.

    Raises:
        PlanError: Names the argument, its value, the rule and what to do.
    """
    share = promises.config.privacy.recovered_dropout
    if not share:
        return
    _check_mode(promises)
    wanted = f"{_KEY}={share:g}"
    for size in promises.bands:
        if (recovered := size.recovered) > MAX_EXTRA_SECRETS:
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
    if not any(size.recovered for size in promises.bands):
        largest = max(size.uploaders for size in promises.bands)
        raise PlanError(
            f"{wanted} makes good not one client of any band: it must be 0, or at least 1/{largest} for the largest "
            f"band, which {largest} clients upload"
        )


def _check_mode(promises: Promises) -> None:
    config, mode = promises.config, promises.mode
    privacy, wanted = config.privacy, f"{_KEY}={config.privacy.recovered_dropout:g}"
    if promises.noise_by_server:
        raise PlanError(
            f"{wanted} needs privacy.mechanism=distributed, not {privacy.mechanism}: noise that the server adds does not "
            f"drop out; set {_KEY}=0"
        )
    if not mode.shares_secrets:
        raise PlanError(
            f"{wanted} needs secure-sum=masking, not {config.secure_sum}: only there do clients share the seeds of noise; "
            "use privacy.expected-dropout instead"
        )
    if mode.lists_may_differ(config):
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
