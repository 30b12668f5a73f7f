"""A configuration is what its file says, or a refusal that names the key, its value and the rule."""

import contextlib
import itertools
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbla_secure.config import Config, TierConfig, load_config
from rbla_secure.config.choices import SecureSumMode
from rbla_secure.errors import ConfigError
from tests.support.properties import PROPERTY

# Another value for every key that there is.
OTHERS = {
    "seed": 1,
    "rounds": 7,
    "secure-sum": "plain",
    "average": "zero-pad",
    "gamma": 0.5,
    "server-learning-rate": 0.25,
    "upload": "padded",
    "weights": "examples",
    "examples-cap": 77,
    "least-weight": 0.125,
    "stage-seconds": 60.0,
    "lora.rest": "dropped",
    "training.rows": "in-turns",
    "min-holders": 4,
    "clip-norm": 7.5,
    "noise-multiplier": 0.5,
    "dropout-rate": 0.5,
    "max-aborted-rounds": 9,
    "tiers.phone.rank": 3,
    "tiers.phone.clients": 9,
    "tiers.phone.cohort": 1,
    "lora.scaling": 3.0,
    "lora.factors": "lora-b",
    "quantization.bits": 9,
    "quantization.ring-bits": 20,
    "quantization.bound": 0.75,
    "masking.profile": "consistency",
    "masking.threshold": 8,
    "homomorphic.profile": "bfv-2x29",
    "homomorphic.verifier": True,
    "homomorphic.screening": "verdicts",
    "homomorphic.min-cosine": -0.5,
    "privacy.mechanism": "central",
    "privacy.adjacency": "add-or-remove",
    "privacy.delta": 1e-6,
    "privacy.max-epsilon": 8.0,
    "privacy.colluders": 2,
    "privacy.expected-dropout": 0.125,
    "privacy.recovered-dropout": 0.25,
    "privacy.simulation": True,
    "sample-level.noise-multiplier": 1.5,
    "sample-level.clip-norm": 0.5,
    "sample-level.sample-rate": 0.25,
    "sample-level.delta": 1e-6,
    "sample-level.max-epsilon": 3.0,
    "robustness.f": 2,
    "robustness.filter": "tier-dnc-cosine",
    "robustness.pre-step": "bucketing",
    "robustness.bucket-size": 3,
    "robustness.bound": 0.25,
    "robustness.radius": 0.5,
    "robustness.root-examples": 100,
    "robustness.group-size": 4,
    "robustness.group-rule": "trimmed-mean",
    "robustness.max-step-norm": 2.0,
    "robustness.max-accuracy-drop": 0.125,
    "robustness.max-trigger-rise": 0.25,
    "privacy.clipping": "per-layer",
    "privacy.band-weights": "holders",
    "privacy.rank-decay": 0.5,
    "privacy.separation": 3,
    "privacy.sample-rate": 0.5,
    "privacy.min-clip": 0.25,
    "privacy.max-clip": 16.0,
    "privacy.quantile": 0.75,
    "privacy.clip-rate": 0.5,
    "privacy.count-noise": 3.0,
    "task.data": "fashion-mnist",
    "task.root": "/some/where",
    "task.partition": "iid",
    "task.alpha": 0.125,
    "task.held-out": 11,
    "task.public": 12,
    "training.epochs": 13,
    "training.steps": 14,
    "training.batch-size": 15,
    "training.optimizer": "sgd",
    "training.learning-rate": 0.0625,
    "training.momentum": 0.5,
    "training.weight-decay": 0.25,
}


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "config.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def at(config: Config, key: str) -> Any:
    """The value of a dotted key in a dump of the whole configuration."""
    value: Any = config.model_dump(mode="json", by_alias=True)
    for part in key.split("."):
        value = value[part]
    return value


def flat(table: dict[str, Any], prefix: str = "") -> set[str]:
    """Every dotted key of nested tables."""
    found = set()
    for key, value in table.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return found


def literal(value: object) -> str:
    return json.dumps(value)


def test_the_table_of_keys_is_complete() -> None:
    """The tests below know every key: those of one tier stand for those of all."""
    keys = flat(Config().model_dump(mode="json", by_alias=True))

    assert {key for key in keys if not key.startswith("tiers.") or key.startswith("tiers.phone.")} == set(
        OTHERS
    )


def test_without_a_file_the_defaults_hold() -> None:
    """Nothing given is the default job."""
    config = load_config()

    assert config == Config()


@pytest.mark.parametrize(("key", "value"), OTHERS.items())
def test_every_key_can_be_overridden(key: str, value: object) -> None:
    """An override changes its key and nothing else."""
    default = Config()

    config = load_config(None, [f"{key}={literal(value)}"])

    assert at(config, key) == value != at(default, key)
    assert {other for other in OTHERS if at(config, other) != at(default, other)} == {key}


def test_the_digest_tells_every_key_apart() -> None:
    """Two configurations that differ in any one key have different digests."""
    digests = [load_config(None, [f"{key}={literal(value)}"]).digest() for key, value in OTHERS.items()]

    assert len({Config().digest(), *digests}) == len(OTHERS) + 1
    assert {len(digest) for digest in digests} == {32}


def test_the_digest_tells_the_names_of_tiers_apart() -> None:
    """Renaming a tier renames its clients."""
    tier = TierConfig(rank=2, clients=3)

    one, other = Config(tiers={"one": tier}), Config(tiers={"other": tier})

    assert one.digest() != other.digest()


def test_the_digest_does_not_depend_on_the_order_of_tiers() -> None:
    """The order of tables in a file means nothing."""
    small, large = TierConfig(rank=2, clients=3), TierConfig(rank=4, clients=3)

    one, other = Config(tiers={"a": small, "b": large}), Config(tiers={"b": large, "a": small})

    assert one.digest() == other.digest()


@pytest.mark.parametrize("key", OTHERS)
def test_a_toml_file_gives_the_same_configuration(tmp_path: Path, key: str) -> None:
    """What is written of a configuration reads back equal, whichever key was changed."""
    config = load_config(None, [f"{key}={literal(OTHERS[key])}"])

    path = write(tmp_path, config.to_toml())

    assert load_config(path) == config
    assert load_config(path).digest() == config.digest()


@PROPERTY
@given(
    rate=st.floats(1e-300, 1e300),
    root=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    seed=st.integers(0, 2**63 - 1),
)
def test_toml_keeps_every_digit_and_character(rate: float, root: str, seed: int) -> None:
    """Floats, large integers and odd text survive being written."""
    config = Config.model_validate({"lora": {"scaling": rate}, "seed": seed, "task": {"root": root}})

    table = tomllib.loads(config.to_toml())

    assert Config.model_validate(table) == config


def test_a_file_that_names_tiers_replaces_the_default_ones(tmp_path: Path) -> None:
    """The default tiers do not mix with those of a file, while other defaults stay."""
    path = write(tmp_path, "rounds = 3\n[tiers.lab]\nrank = 5\nclients = 4\n")

    config = load_config(path)

    assert config == Config(rounds=3, tiers={"lab": TierConfig(rank=5, clients=4)})


def test_an_override_wins_over_the_file_and_the_last_one_over_the_first(tmp_path: Path) -> None:
    """Overrides are applied in order, on top of the file."""
    path = write(tmp_path, "rounds = 3\ngamma = 0.5\n")

    config = load_config(path, ["rounds=4", "rounds=5"])

    assert (config.rounds, config.gamma) == (5, 0.5)


@pytest.mark.parametrize(
    "override", ["secure-sum=plain", 'secure-sum="plain"', "secure-sum='plain'", " secure-sum = plain "]
)
def test_quotes_are_optional(override: str) -> None:
    """A shell takes quotes away, so a bare word is text."""
    config = load_config(None, [override])

    assert config.secure_sum is SecureSumMode.PLAIN


def test_an_override_may_contain_an_equals_sign() -> None:
    """Only the first equals sign ends the key."""
    config = load_config(None, ["task.root=/a=b"])

    assert config.task.root == "/a=b"


def test_a_tier_can_be_added_on_the_command_line() -> None:
    """A new tier joins the default ones."""
    config = load_config(None, ["tiers.lab.rank=5", "tiers.lab.clients=4"])

    assert config.tiers["lab"] == TierConfig(rank=5, clients=4)
    assert set(config.tiers) == {"lab", *Config().tiers}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        # Unknown keys, with the nearest known one beside them.
        ("roundz=3", "unknown key 'roundz'; did you mean 'rounds'?"),
        ("quantization.bit=3", "unknown key 'quantization.bit'; did you mean 'bits'?"),
        ("tiers.phone.ranks=3", "unknown key 'tiers.phone.ranks'; did you mean 'rank'?"),
        ("training.learningrate=3", "unknown key 'training.learningrate'; did you mean 'learning-rate'?"),
        ("zzz=3", "unknown key 'zzz'"),
        ("zzz.rounds=3", "unknown key 'zzz'"),
        # Wrong types: a truth value is no number, text is no number, a number is no text.
        ("rounds=true", "rounds=True must be a valid integer"),
        ("seed=false", "seed=False must be a valid integer"),
        ("gamma=true", "gamma=True must be a valid number"),
        ('rounds="3"', "rounds='3' must be a valid integer"),
        ("rounds=three", "rounds='three' must be a valid integer"),
        ("rounds=", "rounds='' must be a valid integer"),
        ('clip-norm="1.0"', "clip-norm='1.0' must be a valid number"),
        ("rounds=3.5", "rounds=3.5 must be a valid integer"),
        ("rounds=3.0", "rounds=3.0 must be a valid integer"),
        ("task.root=3", "task.root=3 must be a valid string"),
        ("rounds=[3]", "rounds=[3] must be a valid integer"),
        ("rounds=2020-01-01", "rounds='2020-01-01' must be a valid integer"),
        ("lora=3", "lora=3 must be an object"),
        ("tiers.phone=3", "tiers.phone=3 must be an object"),
        ("rounds.x=3", "rounds={...} must be a valid integer"),
        # Not a number, and too large for one.
        ("rounds=nan", "rounds=nan must be a"),
        ("gamma=nan", "gamma=nan must be a finite number"),
        ("clip-norm=nan", "clip-norm=nan must be a finite number"),
        ("clip-norm=inf", "clip-norm=inf must be a finite number"),
        ("clip-norm=1e999", "clip-norm=inf must be a finite number"),
        ("dropout-rate=-inf", "dropout-rate=-inf must be a finite number"),
        ("quantization.bound=inf", "quantization.bound=inf must be a finite number"),
        ("seed=inf", "seed=inf must be a"),
        # Out of range, one past each end.
        ("seed=-1", "seed=-1 must be greater than or equal to 0"),
        ("seed=9223372036854775808", "seed=9223372036854775808 must be less than 9223372036854775808"),
        ("rounds=0", "rounds=0 must be greater than or equal to 1"),
        ("rounds=1000000001", "rounds=1000000001 must be less than or equal to 1000000000"),
        ("gamma=-0.1", "gamma=-0.1 must be greater than or equal to 0"),
        ("gamma=4.1", "gamma=4.1 must be less than or equal to 4"),
        ("server-learning-rate=0", "server-learning-rate=0 must be greater than 0"),
        ("examples-cap=0", "examples-cap=0 must be greater than or equal to 1"),
        ("least-weight=0", "least-weight=0 must be greater than 0"),
        ("least-weight=1.01", "least-weight=1.01 must be less than or equal to 1"),
        ("least-weight=nan", "least-weight=nan must be"),
        ("min-holders=0", "min-holders=0 must be greater than or equal to 1"),
        ("clip-norm=0", "clip-norm=0 must be greater than or equal to 0.000000001"),
        ("clip-norm=-1", "clip-norm=-1 must be greater than or equal to 0.000000001"),
        ("noise-multiplier=-1", "noise-multiplier=-1 must be greater than or equal to 0"),
        ("dropout-rate=1", "dropout-rate=1 must be less than 1"),
        ("dropout-rate=-0.1", "dropout-rate=-0.1 must be greater than or equal to 0"),
        ("max-aborted-rounds=0", "max-aborted-rounds=0 must be greater than or equal to 1"),
        ("tiers.phone.rank=0", "tiers.phone.rank=0 must be greater than or equal to 1"),
        ("tiers.phone.rank=4097", "tiers.phone.rank=4097 must be less than or equal to 4096"),
        ("tiers.phone.clients=0", "tiers.phone.clients=0 must be greater than or equal to 1"),
        ("tiers.phone.cohort=-1", "tiers.phone.cohort=-1 must be greater than or equal to 0"),
        ("lora.scaling=0", "lora.scaling=0 must be greater than 0"),
        ("quantization.bits=1", "quantization.bits=1 must be greater than or equal to 2"),
        ("quantization.bits=33", "quantization.bits=33 must be less than or equal to 32"),
        ("quantization.bound=0", "quantization.bound=0 must be greater than or equal to 0.000000001"),
        # Numbers with which arithmetic would leave its range, or a division would have nothing to divide by.
        (
            "quantization.bound=1e-200",
            "quantization.bound=1e-200 must be greater than or equal to 0.000000001",
        ),
        ("quantization.bound=1e10", "quantization.bound=10000000000.0 must be less than or equal to 10000"),
        ("clip-norm=1e200", "clip-norm=1e+200 must be less than or equal to 10000"),
        ("server-learning-rate=1e308", "server-learning-rate=1e+308 must be less than or equal to 1000000"),
        (
            "sample-level.clip-norm=1e-10",
            "sample-level.clip-norm=1e-10 must be greater than or equal to 0.000000001",
        ),
        ("privacy.min-clip=5e-324", "privacy.min-clip=5e-324 must be 0 or at least 1e-09"),
        ("privacy.max-clip=1e308", "privacy.max-clip=1e+308 must be less than or equal to 10000"),
        ("privacy.clip-rate=101", "privacy.clip-rate=101 must be less than or equal to 100"),
        ("privacy.count-noise=1e-7", "privacy.count-noise=1e-07 must be 0 or at least 1e-06"),
        ("noise-multiplier=5e-324", "noise-multiplier=5e-324 must be 0 or at least 1e-06"),
        ("masking.threshold=-1", "masking.threshold=-1 must be greater than or equal to 0"),
        ("task.alpha=0", "task.alpha=0 must be greater than 0"),
        ("task.held-out=0", "task.held-out=0 must be greater than or equal to 1"),
        ("task.public=0", "task.public=0 must be greater than or equal to 1"),
        ("training.epochs=0", "training.epochs=0 must be greater than or equal to 1"),
        ("training.steps=-1", "training.steps=-1 must be greater than or equal to 0"),
        ("training.batch-size=0", "training.batch-size=0 must be greater than or equal to 1"),
        ("training.learning-rate=0", "training.learning-rate=0 must be greater than 0"),
        ("training.momentum=1", "training.momentum=1 must be less than 1"),
        ("training.weight-decay=-1", "training.weight-decay=-1 must be greater than or equal to 0"),
        # Choices.
        ("secure-sum=open", "secure-sum='open' must be 'plain', 'masking' or 'homomorphic'"),
        ("average=mean", "average='mean' must be 'rbla', 'zero-pad' or 'fedavg'"),
        ("weights=3", "weights=3 must be"),
        ("task.data=cifar", "task.data='cifar' must be 'mnist-5k', 'mnist' or 'fashion-mnist'"),
        ("training.optimizer=ADAM", "training.optimizer='ADAM' must be 'sgd' or 'adam'"),
        # Tiers.
        ("tiers.lab.clients=3", "key 'tiers.lab.rank' is missing"),
        ("tiers.Lab_1.rank=3", "tiers.Lab_1='Lab_1' must match pattern"),
        ("tiers={}", "tiers={...} Dictionary should have at least 1 item"),
        # Overrides of what is no table.
        ("quantization.bits.x.y=3", "quantization.bits={...} must be a valid integer"),
    ],
)
def test_refusals_name_key_value_and_rule(override: str, message: str) -> None:
    """Every wrong key, type and value is refused by one line that says what stood where and what may stand there."""
    with pytest.raises(ConfigError) as refusal:
        load_config(None, [override])

    text = str(refusal.value)
    assert message in text
    assert "\n" not in text
    assert "pydantic" not in text


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("seed", (0, 2**63 - 1)),
        ("rounds", (1, 10**9)),
        ("gamma", (0, 4)),
        ("dropout-rate", (0, 0.999)),
        ("tiers.phone.rank", (1, 4096)),
        ("quantization.bits", (2, 32)),
        ("quantization.bound", (1e-9, 1e9)),
        ("clip-norm", (1e-9, 1e9)),
        ("server-learning-rate", (1e-300, 1e6)),
        ("privacy.min-clip", (0, 1e-9)),
        ("noise-multiplier", (0, 1e-6)),
    ],
)
def test_the_ends_of_a_range_are_in_it(key: str, values: tuple[float, float]) -> None:
    """The bounds that messages name are values that are taken; whole numbers are numbers."""
    configs = [load_config(None, [f"{key}={value}"]) for value in values]

    assert [at(config, key) for config in configs] == list(values)


def test_an_override_below_a_value_of_the_file_is_refused(tmp_path: Path) -> None:
    """A scalar has no keys below it."""
    path = write(tmp_path, "rounds = 3\n")

    with pytest.raises(ConfigError, match=r"key 'rounds.x' does not exist: 'rounds' is no table"):
        load_config(path, ["rounds.x=3"])


def test_two_faults_are_both_named(tmp_path: Path) -> None:
    """One reading finds everything that is wrong."""
    path = write(tmp_path, "rounds = 0\nroundz = 3\n")

    with pytest.raises(ConfigError, match=r"rounds=0 must .*; .*unknown key 'roundz'"):
        load_config(path)


def test_a_key_has_one_spelling() -> None:
    """Keys are kebab-case, and their Python names are unknown keys like any other."""
    with pytest.raises(ConfigError, match="unknown key 'min_holders'; did you mean 'min-holders'"):
        load_config(None, ["min_holders=4"])


def test_a_key_in_two_spellings_is_refused(tmp_path: Path) -> None:
    """Underscores do not slip in beside the kebab-case key."""
    path = write(tmp_path, "min-holders = 3\nmin_holders = 5\n")

    with pytest.raises(ConfigError, match="unknown key 'min_holders'"):
        load_config(path)


@pytest.mark.parametrize(
    "text", ["rounds = ", "rounds 3", "[tiers", "rounds = 3\nrounds = 4", 'a = "', "\x00", "[]"]
)
def test_broken_toml_is_refused(tmp_path: Path, text: str) -> None:
    """A file that is no TOML is named, with the place of the fault."""
    path = write(tmp_path, text)

    with pytest.raises(ConfigError, match=r"config=.*config\.toml is not a TOML file: .*"):
        load_config(path)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"# caf\xe9\n", "rounds = 3".encode("utf-16")])
def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path, data: bytes) -> None:
    """TOML is UTF-8, and other encodings are named rather than guessed."""
    path = write(tmp_path, data)

    with pytest.raises(ConfigError, match="is not a TOML file"):
        load_config(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A missing file and a folder are refused with the reason of the operating system."""
    with pytest.raises(ConfigError, match=r"config=.*missing\.toml cannot be read: No such file"):
        load_config(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory"):
        load_config(tmp_path)


@pytest.mark.parametrize("text", ["rounds = " + "1" * 5000, "x = " + "[" * 5000])
def test_a_file_beyond_the_parser_is_refused(tmp_path: Path, text: str) -> None:
    """Numbers and nesting that Python's own parser gives up on are a broken file like any other."""
    path = write(tmp_path, text)

    with pytest.raises(ConfigError):
        load_config(path)


@pytest.mark.parametrize("source", ["file", "override"])
def test_a_hexadecimal_number_beyond_the_parser_is_refused(tmp_path: Path, source: str) -> None:
    """A number whose decimal digits Python refuses to write is out of range like any other."""
    path = write(tmp_path, "rounds = 0x" + "f" * 5000) if source == "file" else None

    with pytest.raises(ConfigError):
        load_config(path, [] if path else ["rounds=0x" + "f" * 5000])


def test_an_override_that_is_not_utf8_is_refused_by_its_key() -> None:
    """Bytes of a command line that are no text are named by the key they were given for."""
    with pytest.raises(ConfigError) as refusal:
        load_config(None, ["task.root=\udcff"])

    assert str(refusal.value).startswith("task.root=")


@pytest.mark.parametrize("key", ["rounds", "tiers"])
def test_a_configuration_cannot_be_changed(key: str) -> None:
    """A configuration is frozen: a plan and its digest stay those of the file."""
    config = Config()

    with pytest.raises(ValueError, match="frozen"):
        setattr(config, key, None)


@PROPERTY
@given(text=st.text(max_size=40), key=st.sampled_from(sorted(OTHERS)) | st.text(max_size=12))
def test_no_override_ends_in_another_error(text: str, key: str) -> None:
    """Whatever stands on the command line, it is taken or refused by name."""
    override = f"{key}={text}"

    with contextlib.suppress(ConfigError):
        found = load_config(None, [override])
        assert isinstance(found, Config)


def test_tier_names_make_client_names() -> None:
    """A tier's name is lower case, digits and hyphens, and at most 32 characters."""
    good = ["a", "a-1", "z" * 32]
    bad = ["", "A", "1a", "-a", "a_b", "a.b", "a b", "z" * 33, "a\n", "ż"]

    for name, accepted in itertools.chain(((n, True) for n in good), ((n, False) for n in bad)):
        table = json.dumps({"tiers": {name: {"rank": 1, "clients": 3}}})
        if accepted:
            assert set(Config.model_validate_json(table).tiers) == {name}
        else:
            with pytest.raises(ValueError, match="String should match"):
                Config.model_validate_json(table)
