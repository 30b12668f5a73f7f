"""The configuration of a run: one TOML file, kebab-case keys, nested tables of scalars, every unknown key an error.

Lists are not used, so that engines whose run configuration knows only scalars can carry the same keys. The defaults
are the default job: ten organisations in four rank tiers on 5,000 handwritten digits.
"""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from rbla_secure.choices import (
    AcrossRule,
    Adjacency,
    AverageRule,
    BandWeights,
    Clipping,
    DataSet,
    Encryption,
    Factors,
    FilterName,
    Mechanism,
    Optimizer,
    Partition,
    PreStepName,
    Profile,
    Rest,
    RowOrder,
    Screen,
    SecureSumMode,
    Upload,
    Weighting,
)
from rbla_secure.errors import ConfigError

Count = Annotated[int, Field(ge=1, le=10**9)]
CountOrZero = Annotated[int, Field(ge=0, le=10**9)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]

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


def zero_or(least: float) -> AfterValidator:
    """Beyond the range of its field: nothing between 0, which turns something off, and the least value."""

    def check(value: float) -> float:
        if 0 < value < least:
            raise ValueError(f"must be 0 or at least {least}")
        return value

    return AfterValidator(check)


Length = Annotated[float, Field(ge=SHORTEST, le=LONGEST, allow_inf_nan=False)]
LengthOrZero = Annotated[float, Field(ge=0, le=LONGEST, allow_inf_nan=False), zero_or(SHORTEST)]
Noise = Annotated[float, Field(ge=0, le=MOST_NOISE, allow_inf_nan=False), zero_or(LEAST_NOISE)]
TierName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]


class _Table(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
        validate_by_name=True,
        validate_by_alias=True,
    )


class TierConfig(_Table):
    """Clients of one device class: they hold adapters of the same rank."""

    rank: Annotated[int, Field(ge=1, le=4096)]
    clients: Count
    cohort: CountOrZero = Field(0, description="clients drawn per round; 0 draws all of them")


class LoraConfig(_Table):
    """The adapter."""

    scaling: Positive = Field(2.0, description="alpha / r, one constant for the whole federation")
    factors: Factors = Field(
        Factors.BOTH, description="lora-b freezes the shared lora_A (FFA): fewer values, less noise"
    )
    rest: Rest = Field(
        Rest.FOLDED,
        description="rows beyond a client's rank: folded into its frozen weights, or dropped (RBLA as published)",
    )


class QuantizationConfig(_Table):
    """Fixed point: values in [-bound, bound] become integers of `bits` bits by stochastic rounding."""

    bits: Annotated[int, Field(ge=2, le=32)] = 16
    ring_bits: Annotated[int, Field(ge=16, le=32)] = Field(32, description="of the sum: 16, 20, 24 or 32")
    bound: Length = Field(0.06, description="largest magnitude of one coordinate; what is cut off is counted")


class MaskingConfig(_Table):
    """The masking protocol."""

    profile: Profile = Field(
        Profile.ONE_ANSWER, description="the server it protects against (protocols/profiles.py)"
    )
    threshold: CountOrZero = Field(0, description="survivors needed to open a sum; 0 takes the profile's")


class HomomorphicConfig(_Table):
    """The homomorphic mode."""

    profile: Encryption = Field(Encryption.BFV_2X20, description="fields x bits of a slot")
    verifier: bool = Field(
        False, description="a keyless party adds the same inputs and signs the sums before they are decrypted"
    )
    screening: Screen = Field(
        Screen.OFF,
        description="norm and cosine of every update: a verdict, or the values; about 13x float32 bytes",
    )
    min_cosine: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] = Field(
        -1.0, description="with screening: least cosine to the previous global step"
    )


class PrivacyConfig(_Table):
    """Differential privacy of clients; in force where noise-multiplier is above 0."""

    mechanism: Mechanism = Field(
        Mechanism.DISTRIBUTED,
        description="central: the server adds the noise and is trusted with the sums; banded-matrix: noise that cancels over "
        "rounds, with clients that take part in turns",
    )
    separation: CountOrZero = Field(
        0, description="banded-matrix: so many rounds from one participation of a client to its next, or more"
    )
    adjacency: Adjacency = Adjacency.ZERO_OUT
    sample_rate: Annotated[float, Field(ge=LEAST_SAMPLE_RATE, le=1)] = Field(
        1.0,
        description="add-or-remove: probability of a client to take part in a round, by a secret draw that readers and other "
        "clients do not learn",
    )
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    max_epsilon: NotNegative = Field(
        0.0,
        description="the run stops before it exceeds this against any observer of whom something is claimed; 0 sets no limit",
    )
    colluders: Annotated[int, Field(ge=-1, le=10**9)] = Field(
        -1,
        description="clients that pool what they know of noise, with the server or each other; -1 takes the masking profile's",
    )
    expected_dropout: Share = Field(
        0.0, description="share of a band's clients for whose missing noise the others make up"
    )
    recovered_dropout: Share = Field(
        0.0,
        description="share of a band's uploaders whose missing noise is made good exactly, by masking alone",
    )
    simulation: bool = Field(
        False, description="noise follows from the seed: repeatable, and worthless as protection"
    )
    clipping: Clipping = Clipping.FLAT
    band_weights: BandWeights = Field(
        BandWeights.EQUAL,
        description="holders: rank bands are weighted before the clip so that the average has the least noise; clip-norm and "
        "quantization.bound are of the weighted update",
    )
    rank_decay: Annotated[float, Field(ge=0, le=4, allow_inf_nan=False)] = Field(
        0.0,
        description="with band-weights=holders: the squared norm of row r is expected to fall as r^-decay",
    )
    min_clip: LengthOrZero = Field(
        0.0, description="adaptive clipping: the smallest norm; 0 takes clip-norm / 16"
    )
    max_clip: LengthOrZero = Field(
        0.0, description="adaptive clipping: the largest norm; 0 takes 4 clip-norm"
    )
    quantile: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="adaptive clipping: share of clients that shall stay unclipped"
    )
    clip_rate: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = Field(
        0.2, description="adaptive clipping: how fast the norm follows"
    )
    count_noise: Noise = Field(
        0.0,
        description="adaptive clipping: noise on the count of unclipped clients; 0 takes cohort / 20, or twice noise-multiplier if that "
        "is more",
    )


class SampleLevelConfig(_Table):
    """Differential privacy of single examples, inside each client; in force where its noise-multiplier is above 0."""

    noise_multiplier: Annotated[float, Field(ge=0, le=MOST_SAMPLE_NOISE, allow_inf_nan=False)] = Field(
        0.0,
        description="noise on the sum of a step's clipped gradients over what one example can move it; 0 is none",
    )
    clip_norm: Length = Field(1.0, description="L2 norm of one example's gradient")
    sample_rate: Annotated[float, Field(ge=LEAST_SAMPLE_RATE, le=1)] = Field(
        0.05, description="probability of an example to be in a step's batch"
    )
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    max_epsilon: NotNegative = Field(0.0, description="the run stops before it exceeds this; 0 sets no limit")


class RobustnessConfig(_Table):
    """What stands between a faulty or hostile client and the global adapter."""

    f: CountOrZero = Field(
        0,
        description="hostile clients of a round to stand against; bands open over 2f + 1 holders, 3f + 1 where a filter rejects or mixes",
    )
    filter: FilterName = Field(
        FilterName.NONE,
        description="over single updates: in plain mode only. If any, trimmed-mean; none withstands attackers that adapt to it "
        "(docs/robustness.md)",
    )
    pre_step: PreStepName = PreStepName.NONE
    bucket_size: Annotated[int, Field(ge=1, le=10**6)] = Field(2, description="of pre-step bucketing")
    bound: NotNegative = Field(0.0, description="of norm-bound; 0 takes clip-norm / 2")
    radius: NotNegative = Field(0.0, description="of centered-clipping; 0 takes clip-norm")
    root_examples: Count = Field(
        200, description="public examples that the reference of fl-trust is trained on"
    )
    group_size: CountOrZero = Field(
        0,
        description="masked mode: sums over random groups of so many clients of one tier; 0: one sum over all",
    )
    group_rule: AcrossRule = Field(
        AcrossRule.COORDINATE_MEDIAN, description="what is taken across group averages"
    )
    max_step_norm: NotNegative = Field(
        0.0, description="longer global steps are scaled down to this; 0 is off"
    )
    max_accuracy_drop: Share = Field(
        0.0, description="on public examples, against the best of the last three rounds; rolls back; 0 is off"
    )
    max_trigger_rise: Share = Field(
        0.0,
        description="how much more often a known trigger may work on public examples; rolls back; 0 is off",
    )


class TaskConfig(_Table):
    """Data, and how the clients came by it."""

    data: DataSet = DataSet.MNIST_5K
    root: str = Field("", description="folder or file of a data set that no package ships")
    partition: Partition = Partition.DIRICHLET
    alpha: Positive = Field(1.0, description="Dirichlet concentration; small is skewed")
    held_out: Count = Field(1000, description="examples that only the evaluation sees")
    public: Count = Field(1000, description="examples, mirrored, that the frozen base is trained on")


class TrainingConfig(_Table):
    """Local training of one client in one round."""

    epochs: Count = 1
    steps: CountOrZero = Field(0, description="when above 0: so many batches instead of epochs")
    batch_size: Count = Field(
        32,
        description="with noise inside clients: what a step's sum is divided by, whatever is drawn; public, best near sample-rate x examples",
    )
    optimizer: Optimizer = Optimizer.ADAM
    learning_rate: Positive = 0.005
    momentum: Share = Field(0.0, description="used by sgd")
    weight_decay: NotNegative = 0.0
    rows: RowOrder = Field(
        RowOrder.TOGETHER,
        description="in-turns trains one rank band after another: a pass for each, and no rank can be told from another",
    )


def _default_tiers() -> dict[str, TierConfig]:
    return {
        "phone": TierConfig(rank=2, clients=2),
        "laptop": TierConfig(rank=4, clients=2),
        "workstation": TierConfig(rank=8, clients=2),
        "datacenter": TierConfig(rank=16, clients=4),
    }


class Config(_Table):
    """A whole run."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    rounds: Count = 20
    secure_sum: SecureSumMode = SecureSumMode.MASKING
    average: AverageRule = AverageRule.RBLA
    gamma: Annotated[float, Field(ge=0, le=4, allow_inf_nan=False)] = 0.0
    server_learning_rate: Annotated[float, Field(gt=0, le=LARGEST_STEP, allow_inf_nan=False)] = 1.0
    upload: Upload = Field(
        Upload.BANDED, description="padded uploads zeros for bands that a client does not hold"
    )
    weights: Weighting = Weighting.UNIFORM
    examples_cap: Count = Field(1000, description="examples that give weight 1 when weights = examples")
    least_weight: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = Field(
        1 / 16,
        description="of a client when weights = examples, however few it has; a forged weight amplifies by 1 / this at most",
    )
    min_holders: Count = Field(3, description="a rank band opens only with so many surviving holders")
    clip_norm: Length = 1.5
    noise_multiplier: Noise = Field(
        0.0,
        description="standard deviation of the noise on every sum over what one client can move it; 0 is none",
    )
    dropout_rate: Share = Field(
        0.05,
        description="chance that a client fails in a round, three times in four before its input counts (injected fault)",
    )
    stage_seconds: NotNegative = Field(
        3600.0, description="longest time of one client's answer to one stage; 0 sets no limit"
    )
    max_aborted_rounds: Count = Field(5, description="the run stops after so many aborted rounds in a row")
    tiers: dict[TierName, TierConfig] = Field(default_factory=_default_tiers, min_length=1)
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


def load_config(path: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file, if any, and apply ``key=value`` overrides on top.

    Args:
        path: A TOML file; None takes the defaults. A file that names tiers replaces the default tiers as a whole.
        overrides: Such as ``"rounds=5"`` or ``"tiers.phone.clients=4"``; the value is a TOML scalar, quotes optional.

    Raises:
        ConfigError: The file cannot be read or is no TOML; a key is unknown, a type wrong, a value out of range.
    """
    table = {} if path is None else _read(path)
    table.setdefault("tiers", Config().model_dump(mode="json", by_alias=True)["tiers"])
    for override in overrides:
        _apply(table, override)
    try:
        text = json.dumps(table, default=str)
    except ValueError:
        raise ConfigError("a number of the configuration has too many digits") from None
    try:
        # Strict JSON validation: text is never a number, a number never a truth value, but names become Enums.
        return Config.model_validate_json(text, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config={path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"config={path} is not a TOML file: {error}") from None


def _apply(table: dict[str, Any], override: str) -> None:
    key, _, text = override.partition("=")
    try:
        override.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{ascii(key)[1:-1]}={text!a} must be UTF-8 text") from None
    *parents, last = key.strip().split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f"key {key!r} does not exist: {parent!r} is no table")
    table[last] = _scalar(text.strip())


def _scalar(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text  # an unquoted word: secure-sum=plain


def _explain(error: ValidationError) -> str:
    return "; ".join(_explain_one(fault) for fault in error.errors(include_url=False, include_context=False))


def _explain_one(fault: Mapping[str, Any]) -> str:
    path = [str(part) for part in fault["loc"] if part != "[key]"]
    key = ".".join(path)
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path[-1], _keys_beside(path), n=1)
        return f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    if fault["type"] == "missing":
        return f"key {key!r} is missing"
    rule = fault["msg"].replace("Input should", "must", 1).replace("String should", "must", 1)
    rule = rule.removeprefix("Value error, ")
    value = "{...}" if isinstance(fault["input"], Mapping) else repr(fault["input"])
    return f"{key}={value} {rule}"


def _keys_beside(path: Sequence[str]) -> list[str]:
    """The keys that may stand where the last part of `path` stands."""
    tables: dict[str, type[_Table]] = {
        "tiers": TierConfig,
        "lora": LoraConfig,
        "quantization": QuantizationConfig,
        "masking": MaskingConfig,
        "homomorphic": HomomorphicConfig,
        "privacy": PrivacyConfig,
        "sample-level": SampleLevelConfig,
        "robustness": RobustnessConfig,
        "task": TaskConfig,
        "training": TrainingConfig,
    }
    table = tables.get(path[0], Config) if len(path) > 1 else Config
    return [str(field.alias) for field in table.model_fields.values()]
