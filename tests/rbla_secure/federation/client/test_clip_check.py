"""A client believes a clip norm that counts can have led to, whatever they were, and no other."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbla_secure.errors import RefusalError
from rbla_secure.federation.client import memory as memory_module
from rbla_secure.federation.client.clip_check import check_clip_norm
from rbla_secure.federation.client.memory import Memory
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.client.plausibility import Sent
from rbla_secure.federation.messages import StageRefusal, StageReply, StageRequest, decode_answer
from rbla_secure.federation.server.sessions import clip_norm
from rbla_secure.planning.noise import counts_before
from rbla_secure.planning.plan import Plan
from rbla_secure.planning.promises import CLIP_STEPS_PER_OCTAVE
from tests.rbla_secure.federation.client.test_memory import sent
from tests.support.federations import RUN, drift, make_plan
from tests.support.identities import client_sum

ME = "small-01"
ROUNDS = 12


def adaptive_plan(**privacy: Any) -> Plan:
    return make_plan(
        noise_multiplier=0.3, privacy={"clipping": "adaptive", "simulation": True, **privacy}, rounds=ROUNDS
    )


def accepts(plan: Plan, norm: float, number: int, last: Sent | None = None) -> bool:
    try:
        check_clip_norm(plan, norm, round_number=number, last=last)
    except RefusalError:
        return False
    return True


def was_sent(plan: Plan, number: int, norm: float) -> Sent:
    return Sent(round=number, adapter=plan.initial_adapter, clip_norm=norm)


def norms_of(plan: Plan, shares: list[float | None]) -> dict[int, float]:
    """By round: the norm that a server names which follows the protocol."""
    return {n: clip_norm(plan, shares[: counts_before(n)]) for n in range(1, len(shares) + 2)}


TERMS = st.fixed_dictionaries(
    {"quantile": st.floats(0.01, 0.99), "clip_rate": st.floats(1e-3, 5.0)},
    optional={"min_clip": st.floats(0.3, 1.0), "max_clip": st.floats(1.0, 3.0)},
)
# Noisy shares leave [0, 1]; a round that was aborted has none.
SHARES = st.lists(st.none() | st.floats(-2, 3), min_size=ROUNDS - 1, max_size=ROUNDS - 1)


@given(terms=TERMS, shares=SHARES, seen=st.sets(st.integers(1, ROUNDS)))
def test_every_norm_that_counts_lead_to_is_believed(
    terms: dict[str, float], shares: list[float | None], seen: set[int]
) -> None:
    """By a client that was in all rounds, in some of them or in none."""
    plan = adaptive_plan(**terms)
    norms = norms_of(plan, shares)

    last = None
    for number, norm in norms.items():
        assert accepts(plan, norm, number)
        assert accepts(plan, norm, number, last)
        if number in seen:
            last = was_sent(plan, number, norm)


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("number", [3, 4, 7])
def test_the_range_is_tight(share: float, number: int) -> None:
    """Counts of everybody or of nobody reach its ends, and a rung beyond is refused by name."""
    plan = adaptive_plan(clip_rate=0.1)
    norms, ladder = norms_of(plan, [share] * (ROUNDS - 1)), plan.clip_norms
    beyond = ladder[ladder.index(norms[number]) + (1 if share else -1)]

    assert accepts(plan, norms[number], number)
    with pytest.raises(RefusalError, match=rf"clip norm {beyond:.6g} of round {number} must lie in"):
        check_clip_norm(plan, beyond, round_number=number, last=None)


def test_what_was_accepted_last_narrows_the_range() -> None:
    """From one round to the next a norm moves by one count, and by rounding to the ladder: from there, not from the first."""
    plan = adaptive_plan(clip_rate=0.5)
    ladder, sixth = plan.clip_norms, norms_of(plan, [0.0] * (ROUNDS - 1))[6]
    at = ladder.index(sixth)
    rungs = math.floor(0.5 * 0.5 / (math.log(2) / CLIP_STEPS_PER_OCTAVE)) + 1

    believed = [
        index for index, norm in enumerate(ladder) if accepts(plan, norm, 7, was_sent(plan, 6, sixth))
    ]

    assert believed == list(range(max(0, at - rungs), at + rungs + 1))
    assert sum(accepts(plan, norm, 7) for norm in ladder) > 2 * len(believed)


@pytest.mark.parametrize(("before", "number"), [(1, 2), (5, 5)])
def test_no_count_in_between_leaves_the_norm_as_it_is(before: int, number: int) -> None:
    """Rounds 1 and 2 have heard none; another attempt at a round has heard the same."""
    plan = adaptive_plan()
    norm = norms_of(plan, [1.0] * (ROUNDS - 1))[before]
    last = was_sent(plan, before, norm)

    assert [each for each in plan.clip_norms if accepts(plan, each, number, last)] == [norm]


def test_a_ladder_of_one_norm_has_nothing_to_check() -> None:
    """Without adaptive clipping the plan gives the norm."""
    assert accepts(make_plan(), 1.0, 5)


# The attack: a server that names a norm of its choice.


def believed(plan: Plan, number: int, memory: Memory | None = None) -> list[float]:
    """The norms of the ladder at which a client uploads."""
    found = []
    for norm in plan.clip_norms:
        me = Participant(
            ME,
            plan=plan,
            secure_sum=client_sum(plan, ME),
            train=drift,
            examples=10,
            memory=memory if memory is not None else Memory(plan),
        )
        session = plan.session(run=RUN, round_number=number, attempt=1, clip_norm=norm)
        rows = plan.initial_adapter.to_bytes()
        request = StageRequest(session=session.to_bytes(), payload=b"", adapter=rows)
        answer = decode_answer(me.handle(request.to_bytes()))
        assert isinstance(answer, StageReply) or "clip norm" in answer.reason
        found += [norm] if isinstance(answer, StageReply) else []
    return found


@pytest.mark.parametrize("number", [1, 2])
def test_without_the_check_any_norm_of_the_ladder_is_taken(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The control: a server that wants more of an update names four times the norm, or a sixteenth to silence it."""
    plan = adaptive_plan()
    monkeypatch.setattr(memory_module, "check_clip_norm", lambda *_arguments, **_more: None)

    assert believed(plan, number) == list(plan.clip_norms)


@pytest.mark.parametrize("number", [1, 2])
def test_rounds_that_have_heard_no_count_clip_to_the_plans_first_norm(number: int) -> None:
    """It follows from the plan, and every other one is refused when the session opens."""
    plan = adaptive_plan()

    assert believed(plan, number) == [plan.first_clip_norm] == [plan.config.clip_norm]
    other = plan.session(run=RUN, round_number=number, attempt=1, clip_norm=plan.clip_norms[0])
    with pytest.raises(RefusalError, match=f"of round {number} must lie in 1..1:"):
        Participant(ME, plan=plan, secure_sum=client_sum(plan, ME), train=drift, examples=10)._enter(
            other.to_bytes()
        )


def test_a_session_that_was_opened_early_is_checked_again_at_its_input() -> None:
    """What was accepted between its opening and its input counts."""
    plan = adaptive_plan(clip_rate=0.5)
    me = Participant(ME, plan=plan, secure_sum=client_sum(plan, ME), train=drift, examples=10)
    rows = plan.initial_adapter.to_bytes()
    high, low = (
        plan.clip_norms[plan.clip_norms.index(1.0) - 30],
        plan.clip_norms[plan.clip_norms.index(1.0) + 30],
    )
    sessions = {
        number: plan.session(run=RUN, round_number=number, attempt=1, clip_norm=norm)
        for number, norm in ((6, high), (7, low))
    }
    for session in sessions.values():
        me._enter(session.to_bytes())

    answers = [
        decode_answer(me.handle(StageRequest(session=each.to_bytes(), payload=b"", adapter=rows).to_bytes()))
        for each in sessions.values()
    ]

    assert isinstance(answers[0], StageReply)
    assert isinstance(answers[1], StageRefusal)
    assert "of round 7 must lie in" in answers[1].reason


def test_a_restarted_client_remembers_the_norm(tmp_path: Path) -> None:
    """With a state folder what was accepted last narrows the range across restarts."""
    plan = adaptive_plan()
    first = Memory.in_folder(plan, tmp_path, client=ME)
    far = norms_of(plan, [0.0] * (ROUNDS - 1))[8]
    first.accept(sent(plan, plan.initial_adapter), 8, far)
    first.close()

    again = Memory.in_folder(plan, tmp_path, client=ME)

    Memory(plan).check_clip_norm(9, plan.first_clip_norm)
    with pytest.raises(RefusalError, match="of round 9 must lie in"):
        again.check_clip_norm(9, plan.first_clip_norm)
    again.close()


def test_honest_norms_of_neighbouring_rounds_are_one_count_apart() -> None:
    """What the check rests on: the norm of round n has heard the rounds up to n - 2."""
    assert [counts_before(number) for number in range(1, 6)] == [0, 0, 1, 2, 3]
    plan = adaptive_plan(clip_rate=math.log(2) / CLIP_STEPS_PER_OCTAVE)
    norms = list(norms_of(plan, [0.5, 1.0, 1.0, 1.0]).values())
    indices = [plan.clip_norms.index(norm) for norm in norms]

    assert indices[:3] == [indices[0]] * 3
    assert sum(after - before for before, after in pairwise(indices)) == 1
