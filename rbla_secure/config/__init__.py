"""The configuration of a run: its schema, how a file is read, and what each key means."""

from rbla_secure.config.adapters import LoraConfig, TierConfig
from rbla_secure.config.fields import (
    LEAST_NOISE,
    LEAST_SAMPLE_NOISE,
    LEAST_SAMPLE_RATE,
    MOST_NOISE,
    MOST_SAMPLE_NOISE,
    MOST_SAMPLED_STEPS,
    zero_or,
)
from rbla_secure.config.load import load_config
from rbla_secure.config.privacy import PrivacyConfig, SampleLevelConfig
from rbla_secure.config.robustness import RobustnessConfig
from rbla_secure.config.schema import Config
from rbla_secure.config.sums import HomomorphicConfig, MaskingConfig, QuantizationConfig
from rbla_secure.config.training import TaskConfig, TrainingConfig

__all__ = [
    "LEAST_NOISE",
    "LEAST_SAMPLE_NOISE",
    "LEAST_SAMPLE_RATE",
    "MOST_NOISE",
    "MOST_SAMPLED_STEPS",
    "MOST_SAMPLE_NOISE",
    "Config",
    "HomomorphicConfig",
    "LoraConfig",
    "MaskingConfig",
    "PrivacyConfig",
    "QuantizationConfig",
    "RobustnessConfig",
    "SampleLevelConfig",
    "TaskConfig",
    "TierConfig",
    "TrainingConfig",
    "load_config",
    "zero_or",
]
