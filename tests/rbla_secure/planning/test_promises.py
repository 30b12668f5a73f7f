"""The record of what a configuration promises: worked out once, whoever reads it, and right."""

import io
import sys
from collections import Counter
from dataclasses import FrozenInstanceError
from types import FrameType
from typing import Any

import pytest
from rich.console import Console

from protocols import profiles
from rbla_secure.config import Config
from rbla_secure.config.choices import Profile
from rbla_secure.errors import PlanError
from rbla_secure.federation.step_bound import average_limits, step_limit
from rbla_secure.planning import plan as plans
from rbla_secure.planning.checks import check_config
from rbla_secure.planning.forecast import forecast
from rbla_secure.planning.plan import Plan
from rbla_secure.planning.promises import Promises
from rbla_secure.planning.round_costs import round_costs
from rbla_secure.privacy.ledger import Observer, Shown
from rbla_secure.report.checked import checked_object, tell_checked
from rbla_secure.report.console import ConsoleReport
from rbla_secure.report.disclosure import what_each_party_learned
from tests.support.federations import BASE, LAYOUT, make_config, make_plan, make_session

NOISY = {"noise_multiplier": 2.0, "privacy": {"colluders": 0}, "secure_sum": "masking"}
# Half of what it was when each check worked out for itself what it needed.
FEWER_THAN = 16


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations of which a record was built, in order."""
    found: list[Config] = []
    honest = Promises.build.__func__  # type: ignore[attr-defined]  # of a class method

    def counting(cls: type[Promises], config: Config) -> Promises:
        found.append(config)
        return honest(cls, config)  # type: ignore[no-any-return]

    monkeypatch.setattr(Promises, "build", classmethod(counting))
    return found


def test_a_check_builds_the_record_once_and_gives_it_back(built: list[Config]) -> None:
    """Every check reads the same one, and so does what is printed of it."""
    config = make_config(**NOISY)

    promises = check_config(config)

    checked_object(promises)
    tell_checked(ConsoleReport(Console(file=io.StringIO()), config), promises)
    assert built == [config]


def test_a_plan_builds_the_record_once(built: list[Config]) -> None:
    """Sessions, limits, forecast, costs and the table of parties read the plan's own."""
    plan = make_plan(**NOISY)
    assert plan.mechanism is not None

    make_session(plan)
    make_session(plan, round_number=2)
    average_limits(plan)
    step_limit(plan)
    forecast(plan, plan.mechanism)
    round_costs(plan)
    what_each_party_learned(plan, [])

    assert built == [plan.config]


def test_a_second_record_is_counted(built: list[Config], monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a plan that works its promises out after they were checked builds two."""

    def again(config: Config) -> Promises:
        check_config(config)
        return Promises.build(config)

    monkeypatch.setattr(plans, "check_config", again)
    plan = make_plan(**NOISY)

    assert built == [plan.config] * 2


def test_a_run_that_begins_builds_it_before_there_is_a_plan(built: list[Config]) -> None:
    """Once for all that is printed then."""
    config = make_config(**NOISY)

    ConsoleReport(Console(file=io.StringIO()), config).begin("run")

    assert built == [config]


def test_the_record_is_frozen() -> None:
    """Neither the record nor what a plan works out of it can be set again."""
    plan = make_plan()

    with pytest.raises(FrozenInstanceError):
        plan.promises.threshold = 1  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        plan.promises.bands[0].holders = 1  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        plan.mechanism = None  # type: ignore[misc]


def test_the_default_job_worked_out_by_hand() -> None:
    """Ten clients of ranks 2, 4, 8 and 16: two, two, two and four of them; one in ten may collude."""
    found = Promises.build(Config())

    assert found.members == 10
    assert found.clients_of_ranks == {2: 2, 4: 2, 8: 2, 16: 4}
    assert [(str(each.band), each.holders) for each in found.bands] == [
        ("rows 1-2", 10),
        ("rows 3-4", 8),
        ("rows 5-8", 6),
        ("rows 9-16", 4),
    ]
    for each in found.bands:
        assert each.voters == each.uploaders == each.counted == each.holders
        assert (each.groups, each.recovered, each.opens) == ((), 0, True)
    # One-answer: 2t > n + c with c = 1.
    assert (found.threshold, found.row_quorum, found.hostile_quorum, found.class_quorum) == (6, 3, 3, 0)
    assert (found.noisy, found.noise_follows, found.whoever_is_there, found.adaptive) == (False,) * 4
    assert (found.clip_norms, found.colluders, found.grid_is_chosen) == ((1.5,), 0, False)


def test_the_bands_of_padded_noise_worked_out_by_hand() -> None:
    """Everybody uploads: of six shares one is expected to drop out and one is known; a quarter of six is one."""
    found = Promises.build(
        make_config(
            noise_multiplier=1.0,
            upload="padded",
            privacy={"colluders": 1, "expected_dropout": 0.1, "recovered_dropout": 0.25},
        )
    )

    assert [(each.holders, each.uploaders, each.counted, each.recovered) for each in found.bands] == [
        (6, 6, 4, 1),
        (3, 6, 4, 1),
    ]


def test_votes_and_groups_worked_out_by_hand() -> None:
    """Seven and five clients: buckets of two are four and three; groups of three have three and four, and five members."""
    tiers = {"low": {"rank": 1, "clients": 7}, "high": {"rank": 2, "clients": 5}}
    bucketing = {"filter": "trimmed-mean", "pre_step": "bucketing", "bucket_size": 2, "f": 1}

    votes = Promises.build(make_config(tiers=tiers, robustness=bucketing))
    groups = Promises.build(make_config(tiers=tiers, robustness={"group_size": 3}))

    assert [each.voters for each in votes.bands] == [4 + 3, 3]
    assert [each.groups for each in groups.bands] == [(4, 3, 5), (5,)]


@pytest.mark.parametrize(
    ("changes", "shown", "at_once", "claimed"),
    [
        ({"secure_sum": "masking"}, [Shown.SUMS], [Shown.UPLOADS], list(Observer)),
        ({"secure_sum": "plain"}, [Shown.UPLOADS, Shown.SUMS], [Shown.UPLOADS], list(Observer)),
        (
            {"secure_sum": "plain", "privacy": {"mechanism": "central", "adjacency": "add-or-remove"}},
            [Shown.SUMS],
            [Shown.UPLOADS, Shown.SUMS],
            [Observer.PUBLIC, Observer.PARTICIPANT],
        ),
    ],
)
def test_what_is_counted_when_and_against_whom(
    changes: dict[str, Any], shown: list[Shown], at_once: list[Shown], claimed: list[Observer]
) -> None:
    """Uploads where they are read under distributed noise; a server that adds the noise is not claimed against."""
    found = Promises.build(make_config(noise_multiplier=1.0, **changes))

    assert (list(found.shown), found.shown_at_once, list(found.claimed)) == (
        shown,
        frozenset(at_once),
        claimed,
    )


@pytest.mark.parametrize(
    "privacy", [{"recovered_dropout": 0.25}, {"max_epsilon": 8.0}, {"clipping": "adaptive"}]
)
def test_what_only_noise_gives_a_meaning_is_refused_without(privacy: dict[str, Any]) -> None:
    """Each on its own."""
    with pytest.raises(PlanError, match=r"noise-multiplier(=0\.0 must be)? above 0"):
        check_config(make_config(privacy=privacy))


def test_no_session_has_so_few_clients() -> None:
    """It is said before anything is worked out of their number."""
    with pytest.raises(PlanError, match=r"tiers: 1 clients per round must be 2\.\."):
        Promises.build(make_config(tiers={"one": {"rank": 1, "clients": 1}}))


@pytest.mark.parametrize("profile", Profile)
def test_a_threshold_that_follows_from_a_profile_needs_no_check(profile: Profile) -> None:
    """It is in the range of every secure sum, so that only a configured one is checked."""
    for members in range(2, 2000):
        threshold = profiles.by_name(profile.value).threshold(members)
        assert profiles.SEMI_HONEST.threshold(members) <= threshold <= members


def test_a_default_configuration_is_accepted_in_few_functions() -> None:
    """Checks of what is not set are not visited; benchmarks/journey.py prints the same count, and that of a round."""
    visited: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _argument: object) -> None:
        package = frame.f_globals.get("__name__", "").split(".")[0]
        if event == "call" and package in {"protocols", "rbla_secure"} and frame.f_lineno > 0:
            body = frame.f_code
            if not body.co_name.startswith("<") and not body.co_filename.startswith("<"):
                visited[f"{body.co_filename}:{body.co_firstlineno}"] += 1

    config = Config()
    check_config(config)
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        check_config(config)
    finally:
        sys.setprofile(before)

    assert 0 < len(visited) < FEWER_THAN, sorted(visited)


def test_a_plan_of_the_same_terms_is_equal() -> None:
    """What a plan works out is no part of what it is compared by."""
    config = make_config()

    assert Plan.build(config, layout=LAYOUT, base_digest=BASE) == Plan.build(
        config, layout=LAYOUT, base_digest=BASE
    )
