"""Warnings about settings that are allowed although they weaken a run."""

from rbla_secure.planning.parameters import WORTHLESS
from rbla_secure.planning.promises import Promises
from rbla_secure.robustness.quorum import closed_bands

# Below three holders, a holder can subtract its own part and read another's.
SAFE_MIN_HOLDERS = 3


def warnings(promises: Promises) -> list[str]:
    """Return a warning for each setting that is allowed but weakens the run."""
    config = promises.config
    found = promises.mode.warnings(promises)
    if (promises.noisy or config.sample_level.noise_multiplier) and config.privacy.simulation:
        found.append(f"SIMULATION: {WORTHLESS}")
    found += [
        f"robustness.f={config.robustness.f}: {text}; the band never opens, and its rows stay as they are"
        for text in _closed_for_good(promises)
    ]
    if config.min_holders < SAFE_MIN_HOLDERS:
        found.append(
            f"INSECURE: min-holders={config.min_holders} opens bands in which a holder reads another's update; "
            f"{SAFE_MIN_HOLDERS} or more is safe against single holders"
        )
    return found


def _closed_for_good(promises: Promises) -> tuple[str, ...]:
    """Return in words the bands that can never open against f hostile clients; their rows keep the initial values."""
    ranks = [rank for rank, count in promises.clients_of_ranks.items() for _ in range(count)]
    bands, config = [each.band for each in promises.bands], promises.config
    return closed_bands(bands, ranks, f=config.robustness.f, privacy_quorum=config.min_holders)
