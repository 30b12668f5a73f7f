"""The types of ledger fields: figures that a run can spend, attempts from 1 on, clients by name in order.

A figure outside of this was written by nobody who keeps a ledger. One that is negative or not a number would take spent privacy
back, or turn every comparison with a budget false; one that no mechanism has may be beyond what the accountant can compute.

Where the ranges come from. A target multiplier of client level is 0 or in `LEAST_NOISE`..`MOST_NOISE` of rbla_secure/config/fields.py.
What an observer faces of it is 0, where it knows all noise, or at least one share, 1 / m of the variance, and at most n / m
times the variance, with m shares counted of n uploaders (noise/; shares have a standard deviation of 4 units at least, so
that the smoothing takes an eighth of it at most). With fewer than 1e17 clients the square roots stay within a factor of
`MOST_SHARES`. A slack is below 1e-33, and a total variation 2^-947, for each share of each coordinate (noise/), at either level.
Rate and multiplier of single examples are the configuration's; steps are those of one round.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from rbla_secure.config import (
    LEAST_NOISE,
    LEAST_SAMPLE_NOISE,
    LEAST_SAMPLE_RATE,
    MOST_NOISE,
    MOST_SAMPLE_NOISE,
    MOST_SAMPLED_STEPS,
    zero_or,
)
from rbla_secure.errors import PrivacyError

# The square root of more than the shares that a sum can have.
MOST_SHARES: Final = 1e9
MOST_SLACK: Final = 100.0
# For more draws than can be made, and so little that it leaves all of a delta to epsilons up to 500.
MOST_TOTAL_VARIATION: Final = 1e-250
# Of both ledgers.
FORMAT: Final = 2


class Record(BaseModel):
    """A part of a ledger: frozen, without further fields, without conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _in_order(clients: tuple[str, ...]) -> tuple[str, ...]:
    if not all(clients) or list(clients) != sorted(set(clients)):
        raise ValueError("clients must be named, in order and once each")
    return clients


# Pydantic's bounds are comparisons that must hold, so none of them takes a value that is not a number.
Figure = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Multiplier = Annotated[
    float, Field(ge=0, le=MOST_NOISE * MOST_SHARES, allow_inf_nan=False), zero_or(LEAST_NOISE / MOST_SHARES)
]
Slack = Annotated[float, Field(ge=0, le=MOST_SLACK)]
TotalVariation = Annotated[float, Field(ge=0, le=MOST_TOTAL_VARIATION)]
SampleMultiplier = Annotated[float, Field(ge=0, le=MOST_SAMPLE_NOISE), zero_or(LEAST_SAMPLE_NOISE)]
SampleRate = Annotated[float, Field(ge=LEAST_SAMPLE_RATE, le=1)]
Steps = Annotated[int, Field(ge=1, le=MOST_SAMPLED_STEPS)]
Delta = Annotated[float, Field(gt=0, lt=1)]
Number = Annotated[int, Field(ge=1)]
Clients = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_in_order)]


class _Format(BaseModel):
    format: int


def unreadable(path: Path, data: bytes) -> PrivacyError:
    """Return the error for a ledger that is not of `FORMAT`, or is damaged.

    Args:
        path: Path of the ledger file.
        data: Its content.
    """
    try:
        found = _Format.model_validate_json(data, strict=True).format
    except ValidationError:
        found = FORMAT
    if found == FORMAT:
        return PrivacyError(f"{path} is damaged: restore it from a copy")
    return PrivacyError(
        f"{path} is of format {found} and must be of {FORMAT}, which counts four observers and the error of the noise's sampler "
        "(some figures of format 1 are too small: CHANGELOG.md): go on with the version of rbla-secure that wrote it, or start a "
        "new run"
    )


@contextmanager
def accounted(path: Path) -> Iterator[None]:
    """Report what the accountant cannot compute, while this ledger is accounted for, as an error of the ledger.

    Args:
        path: Path of the ledger file.

    Raises:
        PrivacyError: A figure left the range of floats, or what was counted takes more memory than there is.
    """
    try:
        yield
    except MemoryError:
        raise PrivacyError(
            f"{path}: what it counts takes more memory to account for than there is: restore it from a copy if it was edited"
        ) from None
    except (ArithmeticError, ValueError) as error:
        raise PrivacyError(
            f"{path}: what it counts cannot be accounted for ({error}): restore it from a copy"
        ) from None
