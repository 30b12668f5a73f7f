"""Modes: every secure sum is found by its name, and says of itself what its implementation does (tests/test_architecture.py: nobody asks which one it is)."""

import time

import pytest

from protocols.identity.trust import ThrowawayAuthority
from protocols.interface import SecureSum
from protocols.profiles import SEMI_HONEST
from rbla_secure.config.choices import SecureSumMode
from rbla_secure.errors import PlanError
from rbla_secure.planning.checks import check_config
from rbla_secure.planning.disclosure import Opened
from rbla_secure.planning.modes import IN_THE_CLEAR, build_secure_sum, mode_named, mode_of, start_services
from rbla_secure.planning.modes.mode import Mode
from rbla_secure.planning.promises import Promises
from rbla_secure.planning.warnings import warnings
from tests.support.federations import make_config, make_plan

NOW = int(time.time())
TRUST = ThrowawayAuthority.create({"one": 1}, now=NOW).trust(NOW)
EACH = pytest.mark.parametrize("choice", list(SecureSumMode))


def test_every_choice_is_registered() -> None:
    """A configuration that names one finds it, in a file of its name."""
    modes = [mode_named(choice) for choice in SecureSumMode]

    assert all(isinstance(mode, Mode) for mode in modes)
    assert [type(mode).__module__.rpartition(".")[2] for mode in modes] == list(SecureSumMode)
    assert mode_named(IN_THE_CLEAR).reads_uploads


@EACH
def test_what_a_mode_builds_is_called_as_it_is_chosen(choice: SecureSumMode) -> None:
    """The secure sum carries the name of the configuration, and shares secrets exactly where the mode says so."""
    built = build_secure_sum(make_plan(secure_sum=choice), TRUST)

    assert isinstance(built, SecureSum)
    assert built.name == choice
    assert built.shares_secrets == mode_named(choice).shares_secrets


@EACH
def test_a_mode_that_needs_no_services_starts_none(choice: SecureSumMode) -> None:
    """Nobody else takes part, so that no process is started; the one that needs some starts them in its own tests."""
    if not mode_named(choice).needs_services:
        assert start_services(make_plan(secure_sum=choice)) is None


@EACH
def test_a_mode_says_what_the_server_learnt(choice: SecureSumMode) -> None:
    """First the server: everything where uploads are read, else sums, or that none was opened."""
    plan = make_plan(secure_sum=choice)
    for counts, words in (((), "no sum"), ((5, 4), "2 band sums, each over 4 clients or more")):
        server, *_ = plan.mode.learned(plan, Opened(counts=counts, kind=plan.segmentation.sums))

        assert server.party == "server"
        assert (words in server.saw) != plan.mode.reads_uploads
        assert ("every update" in server.saw) == plan.mode.reads_uploads


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
    for choice in SecureSumMode:
        mode = mode_named(choice)
        config = make_config(secure_sum=choice, masking={"profile": "consistency"})
        assert (mode.profile(config) is SEMI_HONEST) == (choice is not SecureSumMode.MASKING)
        assert mode.lists_may_differ(config) == mode.reads_uploads
