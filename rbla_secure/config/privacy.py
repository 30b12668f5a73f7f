"""The tables ``privacy`` and ``sample-level``: differential privacy of clients, and of single examples."""

from typing import Annotated

from pydantic import Field

from rbla_secure.config.choices import Adjacency, BandWeights, Clipping, Mechanism
from rbla_secure.config.fields import (
    LEAST_SAMPLE_RATE,
    MOST_SAMPLE_NOISE,
    CountOrZero,
    Length,
    LengthOrZero,
    Noise,
    NotNegative,
    Share,
    Table,
)


class PrivacyConfig(Table):
    """Differential privacy of clients; in force where `noise-multiplier` is above 0."""

    mechanism: Mechanism = Field(
        Mechanism.DISTRIBUTED,
        description="Who adds the noise. `distributed`: every client adds a share of discrete Gaussian noise, inside every secure sum. "
        "`central`: the server adds it, and is trusted with the sums (of `plain` or `masking`). `banded-matrix`: the same, "
        "with noise that cancels over rounds and clients that take part in turns.",
    )
    separation: CountOrZero = Field(
        0,
        description="With `banded-matrix`: a client's rounds are so many rounds apart or more, which the `cohort` of every tier must "
        "allow.",
    )
    adjacency: Adjacency = Field(
        Adjacency.ZERO_OUT,
        description="What a neighbouring federation is. `zero-out`: one client sends zeros instead. `add-or-remove`: one client is not "
        'there; needs `central` noise, `secure-sum = "plain"` and whole cohorts: every band opens over whoever is there, and '
        "the claim is about whoever reads adapters alone.",
    )
    sample_rate: Annotated[float, Field(ge=LEAST_SAMPLE_RATE, le=1)] = Field(
        1.0,
        description="With `add-or-remove` and plain sums: the probability with which a client takes part in a round, by a secret draw "
        "that readers and other clients do not learn.",
    )
    delta: Annotated[float, Field(gt=0, lt=1)] = Field(
        1e-5,
        description="Delta of the (epsilon, delta) guarantee of a client.",
    )
    max_epsilon: NotNegative = Field(
        0.0,
        description="The run stops before epsilon against any observer of whom something is claimed exceeds this; with `colluders` = 0 "
        "the participant's is the largest of masked sums. 0 sets no limit.",
    )
    colluders: Annotated[int, Field(ge=-1, le=10**9)] = Field(
        -1,
        description="Clients that pool what they know of the noise, with the server or with each other. -1 takes the number of the "
        "masking profile.",
    )
    expected_dropout: Share = Field(
        0.0,
        description="Share of a band's clients for whose missing noise the others make up in advance. Works in every secure sum, and "
        "leaves too much noise when nobody drops out.",
    )
    recovered_dropout: Share = Field(
        0.0,
        description="Share of a band's uploaders (rounded down) whose drop-out leaves the noise exactly as planned. Needs masking under "
        "the profile `consistency` or `semi-honest`.",
    )
    simulation: bool = Field(
        False, description="Whether the noise follows from the seed: repeatable, and worthless as protection."
    )
    clipping: Clipping = Field(
        Clipping.FLAT,
        description="How an update is bounded. `flat`: one L2 norm for the whole update. `per-layer`: each of L layers alone, to `clip-norm` / sqrt(L). `adaptive`: "
        "the clip norm follows a quantile of the clients' norms that is counted under noise.",
    )
    band_weights: BandWeights = Field(
        BandWeights.EQUAL,
        description="How rank bands are weighted before the clip. `equal`: not at all. `holders`: so that an average has the "
        "least noise at the same epsilon, given the holders of each band and the squared norms that `rank-decay` expects; `clip-norm` "
        "and `quantization.bound` are then of the weighted update.",
    )
    rank_decay: Annotated[float, Field(ge=0, le=4, allow_inf_nan=False)] = Field(
        0.0,
        description='With `band-weights = "holders"`: the squared norm of row r is expected to fall as r^-`rank-decay`.',
    )
    min_clip: LengthOrZero = Field(
        0.0, description="Adaptive clipping: the smallest clip norm. 0 takes `clip-norm` / 16."
    )
    max_clip: LengthOrZero = Field(
        0.0, description="Adaptive clipping: the largest clip norm. 0 takes 4 `clip-norm`."
    )
    quantile: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="Adaptive clipping: the share of clients whose updates shall stay unclipped."
    )
    clip_rate: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = Field(
        0.2, description="Adaptive clipping: the learning rate with which the clip norm follows the quantile."
    )
    count_noise: Noise = Field(
        0.0,
        description="Adaptive clipping: standard deviation of the noise on the count of unclipped clients. 0 takes a twentieth of the "
        "cohort, or twice `noise-multiplier` if that is more.",
    )


class SampleLevelConfig(Table):
    """Differential privacy of single examples inside each client (DP-SGD); in force where its `noise-multiplier` is above 0.

    Needs `training.steps`. The claim holds against everyone outside of the client who does not measure how long it trains.
    """

    noise_multiplier: Annotated[float, Field(ge=0, le=MOST_SAMPLE_NOISE, allow_inf_nan=False)] = Field(
        0.0,
        description="Standard deviation of the noise on the sum of a step's clipped gradients, in units of what one example can move it "
        "by: 0 for none, or 0.1 and more.",
    )
    clip_norm: Length = Field(1.0, description="Largest L2 norm of the gradient of one example.")
    sample_rate: Annotated[float, Field(ge=LEAST_SAMPLE_RATE, le=1)] = Field(
        0.05, description="Probability with which an example is in the batch of a step."
    )
    delta: Annotated[float, Field(gt=0, lt=1)] = Field(
        1e-5, description="Delta of the (epsilon, delta) guarantee of a single example."
    )
    max_epsilon: NotNegative = Field(
        0.0, description="The run stops before epsilon of single examples exceeds this. 0 sets no limit."
    )
