"""A client with a lifetime budget: what it joins, what it writes down and when, and what it tells the server."""

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from protocols.session import Session
from rbla_secure.errors import BudgetError, PrivacyError, RunFolderError
from rbla_secure.federation.client.budget_folder import BudgetFolder, look_at_budgets
from rbla_secure.federation.client.lifetime import Lifetime, join_all
from rbla_secure.federation.client.participant import LocalTraining, Participant
from rbla_secure.federation.messages import StageRefusal, StageReply, StageRequest, decode_answer
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.figures import exact, rounded_up
from rbla_secure.privacy.lifetime_ledger import LifetimeLedger
from rbla_secure.run_folder.budget_settings import FILE, BudgetSettings
from rbla_secure.run_folder.folder import RunFolder
from tests.rbla_secure.privacy.test_lifetime_ledger import of_gaussians
from tests.support.federations import RUN, drift, make_adapter, make_plan, make_session
from tests.support.identities import client_sum

ME = "small-01"
OTHER_RUN = bytes(16)
ROOT = Path(__file__).parents[4]
# Noise of the server: the same multiplier in every round, whoever drops out.
CENTRAL: dict[str, Any] = {
    "secure_sum": "masking",
    "noise_multiplier": 3.0,
    "rounds": 4,
    "privacy": {"mechanism": "central"},
    "masking": {"profile": "semi-honest"},
}
INSIDE: dict[str, Any] = {"sample_level": {"noise_multiplier": 1.0}, "training": {"steps": 4}}
FOUR = of_gaussians([3.0] * 4, 1e-5)
EIGHT = of_gaussians([3.0] * 8, 1e-5)


def noisy(**changes: Any) -> Plan:
    return make_plan(**{**CENTRAL, **changes})


def wanted(folder: Path, label: str = "ward", **limits: Any) -> BudgetSettings:
    return BudgetSettings.of(folder, label, **limits)


def join(
    plan: Plan, folder: Path, label: str = "ward", *, joining: dict[str, Any] | None = None, **limits: Any
) -> Lifetime:
    """A client that joins; the folder is let go of if it may not."""
    held = BudgetFolder(folder, client=ME)
    try:
        return Lifetime(plan, held, wanted(folder, label, **limits), **(joining or {}))
    except BaseException:
        held.close()
        raise


def ask(
    plan: Plan,
    me: Participant,
    number: int = 1,
    *,
    run: bytes = RUN,
    attempt: int = 1,
    payload: bytes = b"",
) -> StageReply | StageRefusal:
    """What a client answers when its input of a round is asked for; in plain mode that is its first stage."""
    session = make_session(plan, round_number=number, run=run, attempt=attempt)
    request = StageRequest(session=session.to_bytes(), payload=payload, adapter=make_adapter(plan).to_bytes())
    return decode_answer(me.handle(request.to_bytes()))


def person(plan: Plan, lifetime: Lifetime | None, train: LocalTraining = drift) -> Participant:
    before: Callable[[Session], None] = lifetime.spend if lifetime is not None else lambda _session: None
    return Participant(
        ME, plan=plan, secure_sum=client_sum(plan, ME), train=train, examples=10, before_training=before
    )


def take_part(
    plan: Plan, folder: Path | None, label: str = "ward", *, run: bytes = RUN, **limits: Any
) -> list[type[StageReply | StageRefusal]]:
    """A whole run of a client."""
    lifetime = join(plan, folder, label, **limits) if folder is not None else None
    try:
        me = person(plan, lifetime)
        return [type(ask(plan, me, number, run=run)) for number in range(1, plan.config.rounds + 1)]
    finally:
        if lifetime is not None:
            lifetime.close()


def in_the_clear(**changes: Any) -> Plan:
    """In which an input is asked for at once; its noise is the server's all the same."""
    return noisy(secure_sum="plain", **changes)


def ledger_of(folder: Path) -> LifetimeLedger:
    (found,) = look_at_budgets(folder).ledgers
    return found


# Over runs.


def test_a_run_that_fits_is_counted_round_by_round(tmp_path: Path) -> None:
    """The figure of two runs is that of all their rounds, composed by hand."""
    for run in (RUN, OTHER_RUN):
        found = take_part(in_the_clear(), tmp_path, run=run, max_epsilon=1.01 * EIGHT)
        assert found == [StageReply] * 4

    ledger = ledger_of(tmp_path)
    assert ledger.epsilon() == pytest.approx(EIGHT, rel=1e-4)
    assert [(entry.run, entry.round) for entry in ledger.entries] == [
        (run.hex(), number) for run in (RUN, OTHER_RUN) for number in (1, 2, 3, 4)
    ]


def test_a_run_that_would_exceed_the_budget_is_not_joined(tmp_path: Path) -> None:
    """Named by label, spent, would-be and limit; and what was counted stays as it is to the byte."""
    take_part(in_the_clear(), tmp_path, max_epsilon=0.99 * EIGHT)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(BudgetError) as refused:
        take_part(in_the_clear(), tmp_path, run=OTHER_RUN)

    text = str(refused.value)
    assert (
        f"data 'ward' of {ME}: the 4 rounds of this run would take the epsilon of all runs at client level"
        in text
    )
    assert (
        f"from {rounded_up(FOUR)} to {rounded_up(EIGHT)}, above the lifetime limit of {exact(0.99 * EIGHT)} at delta=1e-05"
        in text
    )
    assert "nothing was trained" in text
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_without_a_budget_the_second_run_goes_through() -> None:
    """The control: together they spend what the limit above would have refused."""
    for run in (RUN, OTHER_RUN):
        assert take_part(in_the_clear(), None, run=run) == [StageReply] * 4


def test_what_the_refusal_says_would_do_does(tmp_path: Path) -> None:
    """As many rounds as it says, and not one more; so many times the noise, and not a hundredth less."""
    take_part(in_the_clear(), tmp_path, max_epsilon=0.95 * EIGHT)
    with pytest.raises(BudgetError) as refused:
        join(in_the_clear(), tmp_path)
    found = re.search(
        r"(\d+) of its rounds would fit, or all of them with ([\d.]+) times the noise-multiplier",
        str(refused.value),
    )
    assert found is not None
    rounds, factor = int(found[1]), float(found[2])
    assert 1 <= rounds < 4

    join(in_the_clear(rounds=rounds), tmp_path).close()
    join(in_the_clear(noise_multiplier=3.0 * (factor + 0.005)), tmp_path).close()
    with pytest.raises(BudgetError):
        join(in_the_clear(rounds=rounds + 1), tmp_path)
    with pytest.raises(BudgetError):
        join(in_the_clear(noise_multiplier=3.0 * factor * 0.99), tmp_path)


def test_another_label_starts_anew(tmp_path: Path) -> None:
    """Other data, other limits; a label is a promise of the client to itself that nobody can check."""
    take_part(in_the_clear(), tmp_path, max_epsilon=1.01 * FOUR)
    with pytest.raises(BudgetError):
        join(in_the_clear(), tmp_path)

    join(in_the_clear(), tmp_path, "clinic", max_epsilon=1.01 * FOUR).close()


def test_only_rounds_that_the_client_is_drawn_for_count(tmp_path: Path) -> None:
    """Cohorts of half the clients: the forecast knows them from the plan's seed."""
    tiers = {"large": {"rank": 3, "clients": 3}, "small": {"rank": 1, "clients": 6, "cohort": 3}}
    plan = in_the_clear(rounds=12, tiers=tiers)
    drawn = sum(ME in plan.cohort(number) for number in range(1, 13))
    assert 1 < drawn < 12
    limit = of_gaussians([3.0] * drawn, 1e-5)

    join(plan, tmp_path, max_epsilon=1.01 * limit).close()
    with pytest.raises(BudgetError, match=f"the {drawn} rounds of this run"):
        join(plan, tmp_path, max_epsilon=0.99 * limit)


def test_examples_have_a_limit_of_their_own(tmp_path: Path) -> None:
    """A run with noise inside clients alone: at the level of examples it fits once and not twice; no limit of clients is asked."""
    plan = make_plan(rounds=4, **INSIDE)
    once = take_part(plan, tmp_path, max_sample_epsilon=3.0)

    assert once == [StageReply] * 4
    ledger = ledger_of(tmp_path)
    assert 1.0 < ledger.fixed_sample_epsilon() < ledger.sample_epsilon() <= 3.0
    assert ledger.epsilon() == float("inf")
    with pytest.raises(
        BudgetError, match=r"level of single examples .* times the sample-level\.noise-multiplier"
    ):
        join(make_plan(rounds=400, **INSIDE), tmp_path)


@pytest.mark.parametrize(
    ("changes", "limits", "words"),
    [
        (
            {"noise_multiplier": 0.0},
            {"max_epsilon": 50.0},
            "the run has no noise at client level: noise-multiplier must be above 0",
        ),
        (
            {},
            {"max_sample_epsilon": 50.0},
            r"no noise at the level of single examples: sample-level\.noise-multiplier",
        ),
        (
            {"privacy": {"mechanism": "central", "simulation": True}},
            {"max_epsilon": 50.0},
            "noise that follows from the seed",
        ),
        (
            {
                "secure_sum": "masking",
                "tiers": {"large": {"rank": 3, "clients": 4}, "small": {"rank": 1, "clients": 4}},
                "privacy": {"colluders": 3},
                "masking": {"profile": "one-answer"},
            },
            {"max_epsilon": 50.0},
            "a sum of this run may open over 3 clients, and 3 who pool what they know leave too little noise",
        ),
    ],
)
def test_what_nothing_bounds_is_refused_with_its_reason(
    tmp_path: Path, changes: dict[str, Any], limits: dict[str, float], words: str
) -> None:
    """By whoever has a limit of that level; a client without limits counts it as everything."""
    plan = in_the_clear(**changes) if "secure_sum" not in changes else noisy(**changes)

    with pytest.raises(BudgetError, match=words):
        join(plan, tmp_path, **limits)
    join(plan, tmp_path, "open", max_epsilon=0.0).close()


def test_a_budget_that_is_used_up_says_so(tmp_path: Path) -> None:
    """Not even a thousand times the noise helps any more."""
    take_part(in_the_clear(), tmp_path, "open", max_epsilon=0.0)
    exact = ledger_of(tmp_path).epsilon()
    take_part(in_the_clear(), tmp_path, max_epsilon=exact)

    with pytest.raises(BudgetError, match="earlier runs have used it up: not even 1000 times the noise"):
        join(in_the_clear(), tmp_path)


# Limits.


def test_limits_are_fixed_by_the_first_run(tmp_path: Path) -> None:
    """A limit that moves limits nothing. One that was refused has fixed nothing."""
    with pytest.raises(BudgetError):
        join(in_the_clear(), tmp_path, max_epsilon=0.5 * FOUR)
    take_part(in_the_clear(), tmp_path, max_epsilon=2 * EIGHT)

    for change in ({"max_epsilon": 3 * EIGHT}, {"max_sample_epsilon": 1.0}, {"delta": 1e-6}):
        with pytest.raises(PrivacyError, match=r"fixed it at .* and a limit that moves limits nothing"):
            join(in_the_clear(), tmp_path, **change)
    join(in_the_clear(), tmp_path, max_epsilon=2 * EIGHT, delta=1e-5).close()


def test_a_new_label_says_its_limit(tmp_path: Path) -> None:
    """Forgotten, it would be none; none at all has to be said."""
    with pytest.raises(
        PrivacyError,
        match="its limit must be said: lifetime-epsilon or lifetime-sample-epsilon, where 0 is none",
    ):
        join(in_the_clear(), tmp_path)
    join(in_the_clear(), tmp_path, max_epsilon=0.0).close()


# In rounds.


def test_a_round_is_counted_before_it_is_trained(tmp_path: Path) -> None:
    """On the disk when training begins; and counted although training fails and nothing of the round is ever opened."""
    plan, seen = in_the_clear(), []

    def train(_adapter: Adapter, _seed: int) -> Rows:
        seen.append(len(ledger_of(tmp_path).entries))
        raise MemoryError

    lifetime = join(plan, tmp_path, max_epsilon=50.0)
    ask(plan, person(plan, lifetime, train))
    lifetime.close()

    assert seen == [1]
    assert len(ledger_of(tmp_path).entries) == 1


def test_a_second_attempt_counts_again(tmp_path: Path) -> None:
    """What became of the first one the client cannot know."""
    plan = in_the_clear()
    lifetime = join(plan, tmp_path, max_epsilon=50.0)
    me = person(plan, lifetime)

    assert isinstance(ask(plan, me, payload=b"no request of an upload"), StageRefusal)
    assert isinstance(ask(plan, me, attempt=2), StageReply)
    assert isinstance(ask(plan, me, attempt=2), StageReply)  # the same answer once more
    assert isinstance(ask(plan, me, attempt=3), StageRefusal)  # the round has its input
    lifetime.close()

    assert [(entry.round, entry.attempt) for entry in ledger_of(tmp_path).entries] == [(1, 1), (1, 2)]


def test_attempts_beyond_the_forecast_are_refused_without_figures(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that repeats rounds ends at the limit: nothing is trained, and it hears nothing of other runs."""
    plan, trained = in_the_clear(), []

    def train(adapter: Adapter, seed: int) -> Rows:
        trained.append(seed)
        return drift(adapter, seed)

    lifetime = join(plan, tmp_path, max_epsilon=1.01 * FOUR)
    me = person(plan, lifetime, train)
    with caplog.at_level(logging.ERROR):
        found = [ask(plan, me, attempt=number, payload=b"no request of an upload") for number in range(1, 7)]
    lifetime.close()

    assert len(trained) == 4
    assert len(ledger_of(tmp_path).entries) == 4
    last = found[-1]
    assert isinstance(last, StageRefusal)
    assert last.error == "RefusalError"
    assert (
        last.reason
        == "this client's lifetime budget does not allow it to train for the round, or cannot be written"
    )
    assert f"above the lifetime limit of {exact(1.01 * FOUR)}" in caplog.text


def test_what_cannot_be_written_is_not_trained(tmp_path: Path) -> None:
    """The server hears nothing of where the folder is."""
    plan, trained = in_the_clear(), []

    def train(adapter: Adapter, seed: int) -> Rows:
        trained.append(seed)
        return drift(adapter, seed)

    lifetime = join(plan, tmp_path, max_epsilon=50.0)
    (tmp_path / ".data-ward.json.tmp").mkdir()
    found = ask(plan, person(plan, lifetime, train))
    lifetime.close()

    assert isinstance(found, StageRefusal)
    assert str(tmp_path) not in found.reason
    assert not trained


_CHILD = """
import os, signal, sys
from pathlib import Path
from tests.rbla_secure.federation.client.test_lifetime import ask, in_the_clear, join, person

plan = in_the_clear()
lifetime = join(plan, Path(sys.argv[1]), max_epsilon=50.0)


def killed(*_arguments):
    os.kill(os.getpid(), signal.SIGKILL)


me = person(plan, lifetime, killed if sys.argv[2] == "training" else (lambda adapter, _seed: adapter.rows))
if sys.argv[2] == "before the reply":
    me._memory.give = killed
ask(plan, me)
"""


@pytest.mark.parametrize("moment", ["training", "before the reply"])
def test_a_client_that_is_killed_has_counted(tmp_path: Path, moment: str) -> None:
    """Between the entry and the reply: restarted, it has counted the attempt, and counts the next one beside it."""
    arguments = [sys.executable, "-c", _CHILD, str(tmp_path), moment]
    child = subprocess.run(arguments, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert child.returncode == -signal.SIGKILL
    assert len(ledger_of(tmp_path).entries) == 1

    plan = in_the_clear()
    lifetime = join(plan, tmp_path)
    ask(plan, person(plan, lifetime), attempt=2)
    lifetime.close()

    assert ledger_of(tmp_path).epsilon() == pytest.approx(of_gaussians([3.0, 3.0], 1e-5), rel=1e-4)


# Going on with a run.


def test_whoever_goes_on_needs_room_for_the_rest_alone(tmp_path: Path) -> None:
    """Two of four rounds are over and counted: the limit of four is enough, and for three more it is not."""
    plan = in_the_clear()
    lifetime = join(plan, tmp_path, max_epsilon=1.01 * FOUR)
    me = person(plan, lifetime)
    for number in (1, 2):
        ask(plan, me, number)
    lifetime.close()

    join(plan, tmp_path, joining={"run": RUN.hex(), "done": 2, "given": (1, 2)}).close()
    with pytest.raises(BudgetError, match="the 3 rounds of this run"):
        join(plan, tmp_path, joining={"run": RUN.hex(), "done": 1, "given": (1,)})


def test_a_round_that_had_an_input_must_have_been_counted(tmp_path: Path) -> None:
    """A folder that does not know this run is another one, or an older copy: it is refused."""
    plan = in_the_clear()
    take_part(plan, tmp_path, max_epsilon=50.0)

    join(plan, tmp_path, joining={"run": RUN.hex(), "done": 4, "given": (1, 4)}).close()
    with pytest.raises(PrivacyError, match="lacks round 1 of this run, which had the input of small-01"):
        join(plan, tmp_path, joining={"run": OTHER_RUN.hex(), "done": 1, "given": (1,)})


def test_all_may_join_or_nobody(tmp_path: Path) -> None:
    """One client of six has spent: the run is refused by its name, and every folder is let go of."""
    plan = in_the_clear()
    take_part(plan, tmp_path / ME, max_epsilon=1.01 * FOUR)
    asked = wanted(tmp_path, max_epsilon=1.01 * FOUR)

    with pytest.raises(BudgetError, match=f"data 'ward' of {ME}"):
        join_all(plan, asked)
    joined = join_all(in_the_clear(noise_multiplier=100.0), asked.model_copy(update={"label": "clinic"}))

    assert set(joined) == set(plan.ranks)
    for each in joined.values():
        each.close()


def test_where_a_run_counts_is_not_to_be_changed(tmp_path: Path) -> None:
    """The file beside the configuration is the one that the audit log names, or the run does not go on."""
    asked = wanted(tmp_path / "budgets", max_epsilon=4.0)
    (tmp_path / FILE).write_text(asked.text())

    assert BudgetSettings.read(tmp_path, asked.digest()) == asked
    with pytest.raises(RunFolderError, match="is not in the run's events: remove it"):
        BudgetSettings.read(tmp_path, "")
    (tmp_path / FILE).write_text(asked.text().replace("4.0", "9.0"))
    with pytest.raises(RunFolderError, match="its clients would count nothing"):
        BudgetSettings.read(tmp_path, asked.digest())
    (tmp_path / FILE).unlink()
    with pytest.raises(RunFolderError, match="is missing or not the one"):
        BudgetSettings.read(tmp_path, asked.digest())
    assert BudgetSettings.read(tmp_path, "") is None


@pytest.mark.parametrize("again", [True, False])
def test_what_a_creation_that_was_cut_short_asked_for_is_forgotten(tmp_path: Path, *, again: bool) -> None:
    """The run folder is filled anew: it has the budgets that are asked for now, or none."""
    left, asked = (wanted(tmp_path / "budgets", label, max_epsilon=4.0) for label in ("clinic", "ward"))
    run = tmp_path / "run"
    run.mkdir()
    (run / FILE).write_text(left.text())

    folder = RunFolder.create(run, make_plan().config, budgets=asked if again else None)

    folder.close()
    assert folder.budgets == (asked if again else None)
    opened = RunFolder.open(run)
    opened.close()
    assert opened.budgets == folder.budgets
    if again:
        assert (run / FILE).stat().st_mode & 0o777 == 0o600
