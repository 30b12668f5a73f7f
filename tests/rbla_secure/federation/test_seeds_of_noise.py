"""Terms and seeds of noise that is made good: who has them, who gives them out, and what is refused."""

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from protocols.errors import InputError
from protocols.plain import Plain
from protocols.session import ClientId, ExtraReveal, Session
from rbla_secure.errors import PlanError
from rbla_secure.federation.client import participant
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.coordinator import Coordinator
from rbla_secure.federation.exchange import Answer
from rbla_secure.federation.messages import StageRefusal, StageRequest, decode_answer
from rbla_secure.federation.noise_components import Seeds, component_seeds
from rbla_secure.lora.adapter import Adapter, Rows
from rbla_secure.planning.modes import build_secure_sum
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.shares import BandShares
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.stopwatch import Stopwatch
from tests.rbla_secure.federation.recovering import LAYOUT, Watch, make_plan, mechanism_of, play, still
from tests.support.federations import (
    InMemory,
    make_adapter,
    make_participants,
    make_session,
    play_round,
)
from tests.support.identities import server_sum


def test_the_seeds_of_a_closed_band_stay_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A band below its quorum is not opened, and nothing of its noise is given out."""
    watch, plan = Watch(monkeypatch), make_plan(min_holders=4)

    _, outcome = play(plan, silent_from={"large-01": "mask_input"})

    assert list(outcome.refused_bands) == [1]
    assert {index for _, index, _ in watch.revealed} == {0}


# --- terms and secrets ---


def test_the_session_has_room_for_the_seeds() -> None:
    """As many secrets as drop-outs are made good, under the rule that gives out those that are not needed."""
    segments = make_session(make_plan(recovered=0.2)).segments

    assert [(s.extra_secrets, s.extra_reveal) for s in segments] == [
        (1, ExtraReveal.BEYOND_MISSING),
        (0, ExtraReveal.NOTHING),
    ]
    assert make_plan(recovered=0.2).mechanism != make_plan(recovered=0.25).mechanism


@pytest.mark.parametrize("changes", [{"extra_secrets": 1}, {"extra_reveal": ExtraReveal.NOTHING}])
def test_a_client_refuses_other_terms_of_removal(changes: dict[str, Any]) -> None:
    """How much noise can be removed is in the client's own plan."""
    plan = make_plan()
    session = make_session(plan)
    first, *others = session.segments
    bent = replace(session, segments=(replace(first, **changes), *others))
    asked = StageRequest(session=bent.to_bytes(), payload=b"", adapter=b"").to_bytes()

    answer = decode_answer(make_participants(plan)["small-01"].handle(asked))

    assert isinstance(answer, StageRefusal)
    assert "not the plan's" in answer.reason


def test_seeds_travel_under_masking_alone() -> None:
    """A participant whose secure sum does not share seeds refuses the session."""
    plan = make_plan()
    me = Participant("small-01", plan=plan, secure_sum=Plain(), train=still, examples=1)
    asked = StageRequest(session=make_session(plan).to_bytes(), payload=b"", adapter=b"").to_bytes()

    answer = decode_answer(me.handle(asked))

    assert isinstance(answer, StageRefusal)
    assert "secure sum plain shares no extra secrets" in answer.reason


def test_seeds_come_from_the_system_and_do_not_print() -> None:
    """Fresh in every session, of the seed only in simulations, and not in any text form."""
    real, simulated = make_plan(privacy={"simulation": False}), make_plan()
    session = make_session(real)

    drawn = [component_seeds(real, session, "large-01") for _ in range(3)]
    again = [component_seeds(simulated, make_session(simulated), "large-01") for _ in range(3)]

    assert len({seed for seeds in drawn for own in seeds.values() for seed in own}) == 9
    assert len({seed for seeds in again for own in seeds.values() for seed in own}) == 3
    assert again[0] != component_seeds(simulated, make_session(simulated, round_number=2), "large-01")
    assert "<Secret of 32 bytes>" in repr(drawn[0])
    assert not _shows(repr(drawn[0]).encode(), drawn[0])
    assert _shows(bytes(drawn[0][1][0]).hex().encode(), drawn[0])


def test_seeds_are_dropped_with_the_input_and_appear_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept from the keys to the input; never printed by their holder, never in a file of the run."""
    made: list[Seeds] = []
    held: list[bool] = []
    everyone: list[Participant] = []

    def watched(plan: Plan, session: Session, client: ClientId) -> Seeds:
        made.append(component_seeds(plan, session, client))
        return made[-1]

    class Watched(InMemory):
        def send(self, messages: Any) -> Any:
            yield from super().send(messages)
            for one in everyone:
                text = repr(one._open) + repr(vars(one))
                assert not any(_shows(text.encode(), seeds) for seeds in made)
                held.extend(opened.seeds is not None for opened in one._open.values())

    monkeypatch.setattr(participant, "component_seeds", watched)
    plan = make_plan(rounds=2, privacy={"simulation": False})
    folder = RunFolder.create(tmp_path / "run", plan.config)
    exchange = Watched(make_participants(plan, train=dict.fromkeys(plan.ranks, still)))
    everyone += exchange._participants.values()
    Coordinator(
        plan=plan,
        secure_sum=server_sum(plan),
        folder=folder,
        exchange=exchange,
        evaluate=lambda _: (0.5, 1.0),
        stopwatch=Stopwatch(),
    ).run(folder.load(plan))

    assert len(made) == 18
    assert set(held) == {True, False}
    assert all(opened.seeds is None for one in everyone for opened in one._open.values())
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(_shows(data, seeds) for seeds in made)
    for one in everyone:
        one.end()
        assert one._open == {}


def _shows(data: bytes, seeds: Seeds) -> bool:
    """Whether a seed is in some bytes, plain, in hexadecimal digits, in base 64 or as Python shows bytes."""
    return any(
        form in data
        for own in seeds.values()
        for seed in own
        for form in (
            bytes(seed),
            bytes(seed).hex().encode(),
            base64.b64encode(seed)[:40],
            bytes.__repr__(seed)[2:-1].encode(),
        )
    )


def test_an_input_is_repeated_without_its_seeds() -> None:
    """The request of the input, sent again after the reveal, gets the identical answer; nothing is trained for it."""
    plan = make_plan()
    trained: list[int] = []

    def train(adapter: Adapter, seed: int) -> Rows:
        trained.append(seed)
        return adapter.rows.copy()

    participants = make_participants(plan, train=dict.fromkeys(plan.ranks, train))
    answers: list[bytes] = []

    def keep(client: ClientId, parcel: Any) -> list[Any]:
        if (client, parcel.stage) == ("small-01", "mask_input"):
            answers.append(parcel.data)
        return [Answer(client=client, parcel=parcel)]

    exchange = InMemory(participants, answers=keep)
    play_round(plan, make_adapter(plan), exchange)
    (asked,) = [data for stage, name, data in exchange.seen if (stage, name) == ("mask_input", "small-01")]

    again = participants["small-01"].handle(asked)

    assert again == answers[0]
    assert len(trained) == 9


def test_a_secure_sum_wants_every_seed() -> None:
    """Fewer seeds than the segment has room for are refused where the client's side of the session is made."""
    plan = make_plan()
    session = make_session(plan)
    seeds = component_seeds(plan, session, "large-01")

    with pytest.raises(InputError, match="1 extra secrets must be 2"):
        build_secure_sum(plan).client(session, "large-01", extra_secrets={**seeds, 0: seeds[0][:1]})


# --- refusals ---


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"privacy": {"mechanism": "central"}},
        "privacy.recovered-dropout=0.25 needs privacy.mechanism=distributed, not central",
    ),
    ({"secure_sum": "plain"}, "privacy.recovered-dropout=0.25 needs secure-sum=masking, not plain"),
    (
        {"secure_sum": "homomorphic"},
        "privacy.recovered-dropout=0.25 needs secure-sum=masking, not homomorphic",
    ),
    (
        {"profile": "one-answer"},
        "privacy.recovered-dropout=0.25 needs masking.profile=consistency or semi-honest, not one-answer",
    ),
    (
        {"privacy": {"expected_dropout": 0.1}},
        "privacy.recovered-dropout=0.25 needs privacy.expected-dropout=0, not 0.1",
    ),
    ({"noise_multiplier": 0.0}, "privacy.recovered-dropout=0.25 must be 0 without noise-multiplier above 0"),
    (
        {"recovered": 0.99},
        "makes good 8 of the 9 uploaders of rows 1-1, and must be fewer than the 8 whose noise the server does not know",
    ),
    ({"recovered": 0.05}, "makes good not one client of any band: it must be 0, or at least 1/9"),
    (
        {"tiers": {"all": {"rank": 1, "clients": 600}}, "recovered": 0.5},
        "makes good 300 of the 600 uploaders of rows 1-1, and at most 255 can be: use 0.425 or less",
    ),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_cannot_be_made_good_is_refused(changes: dict[str, Any], message: str) -> None:
    """Before anything is trained, with the argument, its value, the rule and what to do."""
    known = {"colluders": 1} if changes.get("recovered") == 0.99 else {}
    changes = {**changes, "privacy": {**changes.get("privacy", {}), **known}}

    with pytest.raises(PlanError) as refusal:
        make_plan(**changes)

    assert message in str(refusal.value)


def test_the_share_is_taken_as_it_is_written() -> None:
    """0.29 of a hundred uploaders are twenty-nine, although 0.29 * 100 is less in floating point."""
    plan = make_plan(tiers={"all": {"rank": 1, "clients": 100}}, recovered=0.29)

    assert mechanism_of(plan).bands == (
        BandShares(length=LAYOUT.row_length, uploaders=100, counted=100, recovered=29),
    )
