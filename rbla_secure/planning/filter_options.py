"""The parameters of filters that a configuration names; what it leaves out follows from the clip norm."""

from collections.abc import Mapping

from rbla_secure.config import Config
from rbla_secure.lora.update import RealVector
from rbla_secure.robustness.registry import FilterOptions


def options(config: Config, *, reference: Mapping[int, RealVector] | None = None) -> FilterOptions:
    """Those of a run.

    Args:
        config: Of the plan.
        reference: Of this round, by band, for fl-trust.
    """
    wanted = config.robustness
    return FilterOptions(
        bound=wanted.bound or config.clip_norm / 2,
        radius=wanted.radius or config.clip_norm,
        bucket_size=wanted.bucket_size,
        reference=reference,
    )
