"""A client's state folder: what it remembers survives any kill, serves one process and one client, and one plan per seed."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rbla_secure.errors import RefusalError
from rbla_secure.federation.client import state_folder
from rbla_secure.federation.client.memory import Memory
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.messages import StageRefusal, StageReply
from rbla_secure.federation.step_bound import step_limit
from rbla_secure.lora.adapter import Adapter, Rows
from tests.rbla_secure.federation.client.remembering import ME, Opener, answer, client, refusal
from tests.rbla_secure.federation.client.test_memory import moved, sent
from tests.rbla_secure.federation.test_attempts import (
    EVERY_PROFILE,
    VICTIM,
    attempt_at,
    difference,
    integers_of,
    masked,
    session_of,
)
from tests.support.federations import RUN, drift, make_adapter, make_plan
from tests.support.identities import client_sum

ROOT = Path(__file__).parents[4]


# What a restart remembers.


def test_a_restarted_client_remembers_what_it_gave(opened: Opener) -> None:
    """No round at or below the highest one is given again, whatever the attempt or the run."""
    plan = make_plan(rounds=9)
    assert isinstance(answer(plan, client(plan, opened(plan)), 3), StageReply)

    again = [
        type(answer(plan, client(plan, opened(plan)), number, run=run, attempt=attempt))
        for number, run, attempt in ((3, RUN, 2), (2, RUN, 1), (3, bytes(16), 1), (4, RUN, 1), (4, RUN, 2))
    ]

    assert again == [StageRefusal, StageRefusal, StageRefusal, StageReply, StageRefusal]


def test_without_a_state_folder_a_restart_forgets() -> None:
    """The control: a fresh memory gives the round once more."""
    plan = make_plan()

    found = [answer(plan, client(plan, Memory(plan)), 3) for _ in range(2)]

    assert [type(each) for each in found] == [StageReply, StageReply]


def test_a_restart_does_not_widen_what_is_believed(opened: Opener) -> None:
    """The last model that was accepted counts, whether its round had an input or not."""
    plan = make_plan(rounds=9, quantization={"bits": 16, "bound": 1.0})
    fifth, far = moved(plan, 0.5 * step_limit(plan)), moved(plan, 3 * step_limit(plan), seed=3)
    opened(plan).accept(sent(plan, fifth), 5)

    Memory(plan).accept(sent(plan, far), 6)
    with pytest.raises(RefusalError, match=r"has moved by .* in 1 rounds, more than"):
        opened(plan).accept(sent(plan, far), 6)


@pytest.mark.parametrize("run", [RUN, bytes(16)], ids=["the same run", "another run"])
def test_a_late_first_session_is_measured_from_the_last_model(opened: Opener, run: bytes) -> None:
    """Rounds that a client missed count as steps since the model that it accepted last, in whatever process and run."""
    plan = make_plan(rounds=9, quantization={"bits": 16, "bound": 1.0})
    third = moved(plan, 1.9 * step_limit(plan))
    back = moved(plan, 1.9 * step_limit(plan), seed=5)
    assert isinstance(answer(plan, client(plan, opened(plan)), 3, adapter=third), StageReply)

    fresh = answer(plan, client(plan, Memory(plan)), 5, adapter=back, run=run)
    found = answer(plan, client(plan, opened(plan)), 5, adapter=back, run=run)

    assert isinstance(fresh, StageReply)
    assert "in 2 rounds, more than" in refusal(found)


def test_a_model_of_a_round_that_failed_is_remembered(opened: Opener) -> None:
    """An input that the secure sum refused leaves the model behind: after a restart no other one begins the round."""
    plan = make_plan(rounds=9, quantization={"bits": 16, "bound": 1.0})
    one, other = (moved(plan, 0.3 * step_limit(plan), seed=seed) for seed in (1, 2))
    trained: list[Adapter] = []

    def train(adapter: Adapter, seed: int) -> Rows:
        trained.append(adapter)
        return drift(adapter, seed)

    broken = answer(
        plan, client(plan, opened(plan), train=train), 2, adapter=one, payload=b"no request of an upload"
    )
    again = answer(plan, client(plan, opened(plan), train=train), 2, adapter=other, attempt=2)
    same = answer(plan, client(plan, opened(plan), train=train), 2, adapter=one, attempt=2)

    assert isinstance(broken, StageRefusal)
    assert "round 2 began with another adapter" in refusal(again)
    assert isinstance(same, StageReply)
    assert len(trained) == 2


# Kills: in a process of its own, which ends itself without a chance to write anything.

_CHILD = """
import os, signal, sys
from pathlib import Path
from rbla_secure.federation.client.memory import Memory
from tests.rbla_secure.federation.client.test_state_folder import ME, answer, client
from tests.support.federations import drift, make_plan

folder, moment = Path(sys.argv[1]), sys.argv[2]
plan = make_plan()


def killed(*_arguments, **_more):
    os.kill(os.getpid(), signal.SIGKILL)


memory = Memory.in_folder(plan, folder, client=ME)
if moment == "hold":
    print("held", flush=True)
    sys.stdin.read()
me = client(plan, memory, train=killed if moment == "training" else drift)
if moment == "before giving":
    memory.give = killed
if moment == "before the reply":
    give = memory.give
    memory.give = lambda number: (give(number), killed())
answer(plan, me)
"""


def in_another_process(folder: Path, moment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(folder), moment],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("moment", ["training", "before giving"])
def test_a_kill_before_the_input_is_written_down(tmp_path: Path, opened: Opener, moment: str) -> None:
    """The model is remembered, and the round can still have the input: of that model alone."""
    plan = make_plan()
    with in_another_process(tmp_path, moment) as child:
        child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL

    memory = opened(plan)

    assert memory.given == 0
    assert memory._last is not None
    assert memory._last.adapter.to_bytes() == make_adapter(plan).to_bytes()
    assert isinstance(answer(plan, client(plan, memory), 1, attempt=2), StageReply)


def test_a_kill_between_writing_down_and_the_reply(tmp_path: Path, opened: Opener) -> None:
    """Whether the reply left nobody can know any more: the round has had its input."""
    plan = make_plan()
    with in_another_process(tmp_path, "before the reply") as child:
        child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL

    assert "round 1 has had this participant's input" in refusal(answer(plan, client(plan, opened(plan)), 1))


# One process, one client.


@pytest.mark.slow
def test_a_folder_in_use_is_refused_until_its_process_dies(tmp_path: Path, opened: Opener) -> None:
    """A second process cannot open it; after a kill it can."""
    plan = make_plan()
    with in_another_process(tmp_path, "hold") as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(RefusalError, match=r"state folder .* is in use by another process"):
            opened(plan)
        child.kill()

    assert isinstance(answer(plan, client(plan, opened(plan))), StageReply)


def test_without_the_lock_two_processes_give_one_round_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The control: both have read the folder before either writes to it."""
    plan = make_plan()
    monkeypatch.setattr(state_folder, "lock", lambda _folder: None)

    both = [client(plan, Memory.in_folder(plan, tmp_path, client=ME)) for _ in range(2)]

    assert [type(answer(plan, me)) for me in both] == [StageReply, StageReply]


def test_two_clients_of_one_process_need_two_folders(tmp_path: Path, opened: Opener) -> None:
    """While the first one is open the second is refused; later its file is another client's."""
    plan = make_plan()
    me = client(plan, opened(plan))
    with pytest.raises(RefusalError, match="give each client a folder of its own"):
        Memory.in_folder(plan, tmp_path, client="small-02")
    answer(plan, me)
    me.end()

    with pytest.raises(RefusalError, match="is that of small-01, not of small-02: give each client"):
        Memory.in_folder(plan, tmp_path, client="small-02")
    assert opened(plan).given == 1


def test_a_participant_takes_no_memory_of_another_client(opened: Opener) -> None:
    """Its name and the folder's must be the same."""
    plan = make_plan()

    with pytest.raises(RefusalError, match="that of small-02, not of small-01"):
        client(plan, opened(plan, client="small-02"))


def test_a_folder_that_was_let_go_of_takes_nothing(opened: Opener) -> None:
    """After the end of the run nothing is accepted, so that no other holder's file is replaced."""
    plan = make_plan()
    me = client(plan, opened(plan))
    me.end()

    assert "is closed in this process" in refusal(answer(plan, me))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_writes_nothing(opened: Opener) -> None:
    """It inherits the lock and not the right to use it: the process that opened the folder may go on meanwhile."""
    plan = make_plan()
    memory = opened(plan)
    child = os.fork()
    if not child:
        code = 1
        try:
            memory.accept(sent(plan, plan.initial_adapter), 1)
        except RefusalError:
            code = 0
        os._exit(code)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# One plan per seed.


def gone_on(
    profile: str, folder: Path, changed: Mapping[str, Any], *, keep: bool = True
) -> tuple[Any, Any, set[str]]:
    """Round 1 under one plan, then, restarted, under another one without the victim; the sums and what was refused."""
    first, second = masked(profile), masked(profile, **changed)
    found = []
    refused: set[str] = set()
    for plan, silent in ((first, {}), (second, {VICTIM: "mask_input"})):
        people = {}
        for name in plan.ranks:
            memory = None
            try:
                memory = Memory.in_folder(plan, folder / name, client=name) if keep else None
            except RefusalError as error:
                refused.add(str(error).partition("(")[0])
                return found[0], None, refused
            people[name] = Participant(
                name, plan=plan, secure_sum=client_sum(plan, name), train=drift, examples=10, memory=memory
            )
        result, _ = attempt_at(plan, people, session_of(plan, 1), silent_from=silent)
        found.append(result)
        for person in people.values():
            person.end()
    return found[0], found[1], refused


CHANGES = {"rounds": {"rounds": 10}, "time": {"stage_seconds": 77.0}, "aborts": {"max_aborted_rounds": 7}}


@EVERY_PROFILE
@pytest.mark.parametrize("changed", CHANGES)
def test_plans_of_one_seed_train_to_the_same_bits(profile: str, changed: str, tmp_path: Path) -> None:
    """The attack is real against clients that remember plan by plan: the difference of two sums is the victim's update."""
    whole, rest, _ = gone_on(profile, tmp_path, CHANGES[changed], keep=False)

    assert np.array_equal(difference(whole, rest, 0), integers_of(VICTIM)[0])


@EVERY_PROFILE
@pytest.mark.parametrize("changed", CHANGES)
def test_a_seed_that_has_given_a_round_serves_one_plan(profile: str, changed: str, tmp_path: Path) -> None:
    """Under any other plan of the seed no memory opens, and so no client takes part."""
    whole, rest, refused = gone_on(profile, tmp_path, CHANGES[changed])

    assert whole is not None
    assert rest is None
    assert refused == {"round 1 has had this client's input under seed=0 and another configuration "}


def test_a_seed_that_has_given_nothing_may_take_another_plan(opened: Opener) -> None:
    """What was only accepted is no adapter of the other plan; a new seed has a file of its own."""
    plan, longer, other = make_plan(), make_plan(rounds=10), make_plan(seed=1)
    opened(plan).accept(sent(plan, plan.initial_adapter), 1)

    assert isinstance(answer(longer, client(longer, opened(longer))), StageReply)
    assert isinstance(answer(other, client(other, opened(other))), StageReply)
    with pytest.raises(RefusalError, match=r"another configuration .* take a new seed"):
        opened(plan)
