"""Types and limits of single keys, and the base of every table of the configuration."""

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

# Lengths of updates, steps and noise, far beyond what any model has use for. Inside, no arithmetic leaves its range: squares of
# lengths in integer units stay below 1e60, and the rows after 1e9 rounds below 1e25.
SHORTEST, LONGEST = 1e-9, 1e9
LARGEST_STEP = 1e6
LEAST_NOISE, MOST_NOISE = 1e-6, 1e6
# Of single examples. With less noise one sampled step in twenty spends an epsilon above 80, and the distribution of losses has some
# ten million values. Within these the accountant of sampled steps stays inside the range of floats.
LEAST_SAMPLE_NOISE, MOST_SAMPLE_NOISE = 0.1, 100.0
LEAST_SAMPLE_RATE = 1e-9
MOST_SAMPLED_STEPS = 10**7
# Under this name the schema says that a key may be 0, or this much and more.
LEAST_ABOVE_ZERO: Final = "least-above-zero"


def zero_or(least: float) -> AfterValidator:
    """Return a validator that refuses values between 0, which turns something off, and the least value."""

    def check(value: float) -> float:
        if 0 < value < least:
            raise ValueError(f"must be 0 or at least {least}")
        return value

    return AfterValidator(check)


Count = Annotated[int, Field(ge=1, le=10**9)]
CountOrZero = Annotated[int, Field(ge=0, le=10**9)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Length = Annotated[float, Field(ge=SHORTEST, le=LONGEST, allow_inf_nan=False)]
LengthOrZero = Annotated[
    float,
    Field(ge=0, le=LONGEST, allow_inf_nan=False, json_schema_extra={LEAST_ABOVE_ZERO: SHORTEST}),
    zero_or(SHORTEST),
]
Noise = Annotated[
    float,
    Field(ge=0, le=MOST_NOISE, allow_inf_nan=False, json_schema_extra={LEAST_ABOVE_ZERO: LEAST_NOISE}),
    zero_or(LEAST_NOISE),
]
TierName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]


class Table(BaseModel):
    """A table of keys: TOML spells them with dashes, and a key that is not listed is an error.

    The docstring of a table and the description of a key are what ``rbla-secure config --explain`` prints.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
        validate_by_name=True,
        validate_by_alias=True,
    )
