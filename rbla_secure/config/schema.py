"""The configuration of a run: one TOML file, kebab-case keys, nested tables of scalars, every unknown key an error.

Lists are not used, so that engines whose run configuration knows only scalars can carry the same keys. The defaults
are the default job: ten organisations in four rank tiers on 5,000 handwritten digits.
"""

import hashlib
import json
from typing import Annotated

import tomli_w
from pydantic import Field

from rbla_secure.config.adapters import LoraConfig, TierConfig
from rbla_secure.config.choices import AverageRule, SecureSumMode, Upload, Weighting
from rbla_secure.config.fields import (
    LARGEST_STEP,
    Count,
    Length,
    Noise,
    NotNegative,
    Share,
    Table,
    TierName,
)
from rbla_secure.config.privacy import PrivacyConfig, SampleLevelConfig
from rbla_secure.config.robustness import RobustnessConfig
from rbla_secure.config.sums import HomomorphicConfig, MaskingConfig, QuantizationConfig
from rbla_secure.config.training import TaskConfig, TrainingConfig


def _default_tiers() -> dict[str, TierConfig]:
    return {
        "phone": TierConfig(rank=2, clients=2),
        "laptop": TierConfig(rank=4, clients=2),
        "workstation": TierConfig(rank=8, clients=2),
        "datacenter": TierConfig(rank=16, clients=4),
    }


class Config(Table):
    """The run as a whole: rounds, secure sum, average and noise."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="Seed of the run: everything but keys, masks and shares follows from it."
    )
    rounds: Count = Field(20, description="Number of rounds.")
    secure_sum: SecureSumMode = Field(
        SecureSumMode.MASKING,
        description="How the server obtains sums of the clients' updates. `masking`: clients add masks that cancel in the sum. "
        "`homomorphic`: sums are computed under encryption (install `rbla-secure[he]`). `plain`: hides nothing.",
    )
    average: AverageRule = Field(
        AverageRule.RBLA,
        description="How sums become one adapter. `rbla`: each rank row is averaged over exactly the clients that hold it. `zero-pad`: "
        "rows that a client does not hold count as zero. `fedavg`: the plain average, for equal ranks.",
    )
    gamma: Annotated[float, Field(ge=0, le=4, allow_inf_nan=False)] = Field(
        0.0,
        description="Above 0, each row of `lora_B` is weighted by (its holders' share of the weight)^gamma. 0 is RBLA as published.",
    )
    server_learning_rate: Annotated[float, Field(gt=0, le=LARGEST_STEP, allow_inf_nan=False)] = Field(
        1.0,
        description="Factor by which the average update is multiplied before it is added to the global adapter.",
    )
    upload: Upload = Field(
        Upload.BANDED,
        description="Rank bands that a client uploads. `banded`: those that it holds. `padded`: all, with zeros for those that it does not "
        "hold, so that sizes no longer tell ranks.",
    )
    weights: Weighting = Field(
        Weighting.UNIFORM,
        description="Weight of a client in the average. `uniform`: one for all. `examples`: by the number of its examples.",
    )
    examples_cap: Count = Field(
        1000, description='With `weights = "examples"`: number of examples that gives the full weight 1.'
    )
    least_weight: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = Field(
        1 / 16,
        description='With `weights = "examples"`: the least weight of a client, however few examples it has. A forged weight amplifies '
        "an update by 1 / this at most.",
    )
    min_holders: Count = Field(
        3,
        description="A rank band opens only over so many surviving holders. A masking profile may ask for more; `check` prints it.",
    )
    clip_norm: Length = Field(
        1.5,
        description="Largest L2 norm C of a client's whole update; longer ones are scaled down to it. With `training.rows = "
        '"in-turns"` each of m bands is clipped to C / sqrt(m).',
    )
    noise_multiplier: Noise = Field(
        0.0,
        description="Differential privacy of clients: standard deviation of the noise on every sum, in units of what one client can move "
        "the sum by. 0 adds none.",
    )
    dropout_rate: Share = Field(
        0.05,
        description="Injected fault: chance that a client fails in a round, three times in four before its input counts.",
    )
    stage_seconds: NotNegative = Field(
        3600.0,
        description="Seconds that one client's answer to one stage may take; a client that takes longer counts as silent. 0 sets no limit.",
    )
    max_aborted_rounds: Count = Field(5, description="The run stops after so many aborted rounds in a row.")
    tiers: dict[TierName, TierConfig] = Field(
        default_factory=_default_tiers,
        min_length=1,
        description="Device classes, each with a NAME of lower-case letters, digits and dashes. A file that names tiers replaces the "
        "default ones as a whole.",
    )
    lora: LoraConfig = LoraConfig()
    quantization: QuantizationConfig = QuantizationConfig()
    masking: MaskingConfig = MaskingConfig()
    homomorphic: HomomorphicConfig = HomomorphicConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    sample_level: SampleLevelConfig = SampleLevelConfig()
    robustness: RobustnessConfig = RobustnessConfig()
    task: TaskConfig = TaskConfig()
    training: TrainingConfig = TrainingConfig()

    def to_toml(self) -> str:
        """The configuration as a TOML file that :func:`load_config` reads back to an equal value."""
        return tomli_w.dumps(self.model_dump(mode="json", by_alias=True))

    def digest(self) -> bytes:
        """SHA-256 of the canonical JSON of every key."""
        text = json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(b"rbla-secure config\x00" + text.encode()).digest()
