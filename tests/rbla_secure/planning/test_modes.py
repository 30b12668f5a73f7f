"""Modes: every secure sum is registered, says of itself what its implementation does, and nobody else asks which one it is."""

import ast
import time
from pathlib import Path

import pytest

from protocols.identity.trust import ThrowawayAuthority
from protocols.interface import SecureSum
from protocols.profiles import SEMI_HONEST
from rbla_secure.config.choices import SecureSumMode
from rbla_secure.errors import PlanError
from rbla_secure.planning.checks import check_config
from rbla_secure.planning.modes import IN_THE_CLEAR, MODES, mode_of
from rbla_secure.planning.promises import Promises
from rbla_secure.planning.warnings import warnings
from tests.support.federations import make_config

ROOT = Path(__file__).parents[3] / "rbla_secure"
NOW = int(time.time())
TRUST = ThrowawayAuthority.create({"one": 1}, now=NOW).trust(NOW)
EACH = pytest.mark.parametrize("choice", list(SecureSumMode))


def test_every_choice_is_registered() -> None:
    """A configuration that names one finds it."""
    assert set(MODES) == set(SecureSumMode)
    assert len({type(mode) for mode in MODES.values()}) == len(MODES)
    assert MODES[IN_THE_CLEAR].reads_uploads


@EACH
def test_what_a_mode_builds_is_called_as_it_is_chosen(choice: SecureSumMode) -> None:
    """The secure sum carries the name of the configuration."""
    config = make_config(secure_sum=choice)
    built = mode_of(config).build(
        Promises.build(config), screening=None, trust=TRUST, identity=None, roles=None
    )

    assert isinstance(built, SecureSum)
    assert built.name == choice


@EACH
def test_uploads_that_are_read_are_said_to_be_insecure(choice: SecureSumMode) -> None:
    """In the clear, and nowhere else."""
    config = make_config(secure_sum=choice)
    said = [text for text in warnings(Promises.build(config)) if text.startswith("INSECURE: secure-sum")]

    assert bool(said) == mode_of(config).reads_uploads
    assert bool(mode_of(config).claim(config)) != mode_of(config).reads_uploads


@EACH
def test_filters_over_single_updates_need_uploads_that_are_read(choice: SecureSumMode) -> None:
    """Elsewhere the refusal names what to use instead."""
    config = make_config(
        secure_sum=choice,
        tiers={"one": {"rank": 2, "clients": 12}},
        robustness={"filter": "trimmed-mean", "f": 1},
    )
    mode = mode_of(config)

    if mode.reads_uploads:
        check_config(config)
        assert not mode.instead_of_filters
        return
    with pytest.raises(PlanError) as refused:
        check_config(config)
    assert mode.instead_of_filters in str(refused.value)


@EACH
def test_noise_of_the_server_is_refused_where_it_may_not_follow(choice: SecureSumMode) -> None:
    """By the mode's own word."""
    config = make_config(secure_sum=choice, noise_multiplier=1.5, privacy={"mechanism": "central"})

    if mode_of(config).noise_may_follow:
        check_config(config)
        return
    with pytest.raises(PlanError, match="must be distributed"):
        check_config(config)


def test_a_profile_counts_where_it_is_one_of_masking() -> None:
    """Thresholds of the other sums are counted by the weakest."""
    for choice, mode in MODES.items():
        config = make_config(secure_sum=choice, masking={"profile": "consistency"})
        assert (mode.profile(config) is SEMI_HONEST) == (choice is not SecureSumMode.MASKING)
        assert mode.lists_may_differ(config) == mode.reads_uploads


def names_a_mode(text: str) -> bool:
    """Whether code asks for one mode by its name."""
    return any(
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "SecureSumMode"
        for node in ast.walk(ast.parse(text))
    )


def test_only_registry_and_configuration_name_a_mode() -> None:
    """Whoever asks which one it is would have to be found when one is added."""
    found = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        if names_a_mode(path.read_text(encoding="utf-8"))
    }

    assert found == {"planning/modes/__init__.py", "config/schema.py"}
    assert names_a_mode("if config.secure_sum is SecureSumMode.PLAIN: pass")
