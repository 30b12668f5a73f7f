"""Claims on what a client gives and refuses: threat_model.md, claims 9 to 13, 20 and 21."""

import ast
import copy
import math
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols.errors import (
    WireError,
)
from protocols.identity.trust import ThrowawayAuthority
from protocols.masking.client import (
    create_sealed_shares,
)
from protocols.masking.secure_sum import MaskingClient
from protocols.primitives import sealed, secret, shamir
from protocols.primitives.prg import UniformStream
from protocols.primitives.secret import Secret
from protocols.profiles import CONSISTENCY, MaskingProfile
from protocols.session import Session
from rbla_secure.errors import RefusalError, UpdateError
from rbla_secure.federation.broadcast import Broadcast, band_digests
from rbla_secure.federation.client.memory import Memory
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.coordinator import Coordinator
from rbla_secure.federation.messages import StageRequest, decode_answer
from rbla_secure.federation.round import prepare_round
from rbla_secure.federation.server.session_server import SessionServer, StageOfSession, exchange_stages
from rbla_secure.lora.bands import pack, rank_bands
from rbla_secure.lora.update import BoundedUpdate, ClientUpdate, PackedUpdate
from rbla_secure.planning.modes import build_secure_sum
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.clipping import clip
from rbla_secure.privacy.quantize import Quantizer, quantize
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.stopwatch import Stopwatch
from tests.contracts.sessions import (
    make_inputs,
    make_session,
    segment,
)
from tests.protocols.masking.parties import (
    advertise,
    agree,
    mask,
    share,
    signed_terms,
    survivor_list,
)
from tests.support.federations import InMemory, WhenSaved
from tests.support.identities import NOW, client_sum, server_sum
from tests.support.reachable import secrets_of
from tests.threat_model.six_clients import (
    EVERY_PROFILE,
    LAYOUT,
    ROOT,
    first_session,
    initial,
    make_plan,
    participants,
    play,
    steady,
)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_claim_09_one_clients_integers_have_a_bounded_norm(scale: float) -> None:
    """Present or zeroed out, a client moves the sum by no more than the stated norm, however large its update."""
    quantizer = Quantizer(bits=16, bound=0.06)
    rows = np.random.default_rng(0).normal(size=(4, LAYOUT.row_length)) * scale
    bounded = clip(ClientUpdate(rows=rows, weight=1.0), clip_norm=0.5)
    packed = pack(bounded, rank_bands([2, 4]))

    integers = quantize(packed, quantizer, UniformStream(secrets.token_bytes(16)))

    values = np.concatenate([vector[:-1] for vector in integers.values()])
    assert np.linalg.norm(values) <= quantizer.rounded_norm_bound(0.5, rows.size)
    assert np.linalg.norm(values) <= 0.5 * quantizer.scale + math.sqrt(rows.size)
    everything = np.concatenate(list(integers.values()))
    assert np.linalg.norm(everything) <= quantizer.whole_norm_bound(0.5, rows.size, statistics=2)


def test_claim_09_weights_above_one_and_unclipped_updates_cannot_be_built() -> None:
    """The types refuse what would break the bound."""
    rows = np.ones((1, 4))

    with pytest.raises(UpdateError, match="weight"):
        ClientUpdate(rows=rows, weight=1.5)
    with pytest.raises(UpdateError, match="clip_norm"):
        BoundedUpdate(rows=rows, weight=1.0, clip_norm=1.0)
    with pytest.raises(UpdateError, match="weight"):
        PackedUpdate(bands={0: rows[0]}, weight=2.0, norm_bound=2.0)
    with pytest.raises(UpdateError, match="packed bands"):
        PackedUpdate(bands={0: rows[0]}, weight=1.0, norm_bound=1.0)
    with pytest.raises(ValueError, match="read-only"):
        clip(ClientUpdate(rows=rows, weight=1.0), clip_norm=1.0).rows[0, 0] = 9.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_claim_10_an_update_that_is_not_finite_stays_with_its_client(bad: float) -> None:
    """The client refuses by name, the round goes on without it."""
    plan = make_plan()
    people = participants(plan)
    people["a-01"] = Participant(
        "a-01", plan=plan, secure_sum=client_sum(plan, "a-01"), train=steady(bad), examples=10
    )

    outcome = play(plan, initial(plan), InMemory(people))

    assert outcome.dropped == {"a-01": "mask_input"}
    assert "UpdateError" in outcome.refusals["a-01"]
    assert "a-01" not in outcome.survivors
    assert np.isfinite(outcome.adapter.rows).all()


def _other_sessions(plan: Plan) -> dict[str, Session]:
    """Sessions that differ from the plan's in one term each."""
    terms = first_session(plan)
    wider = replace(terms.segments[0], length=terms.segments[0].length + 1)
    laxer = replace(terms.segments[1], quorum=1)
    rest = terms.segments[1].members[1:]
    fewer = replace(terms.segments[1], members=rest, holders=rest, quorum=2)
    padded = replace(terms.segments[1], members=terms.members)
    return {
        "threshold": replace(terms, threshold=5),
        "length": replace(terms, segments=(wider, terms.segments[1])),
        "quorum": replace(terms, segments=(terms.segments[0], laxer)),
        "members of a band": replace(terms, segments=(terms.segments[0], fewer)),
        "holders of a band": replace(terms, segments=(terms.segments[0], padded)),
        "ring": replace(terms, ring_bits=24),
        "bound": replace(terms, input_bound=terms.input_bound - 1),
        "plan": replace(terms, config_digest=bytes(32)),
    }


@pytest.mark.parametrize("term", list(_other_sessions(make_plan())))
def test_claim_11_a_client_refuses_other_terms_than_its_plans(term: str) -> None:
    """Whatever the server changes in the session, no key is advertised for it."""
    plan = make_plan()
    client = participants(plan)["b-01"]
    request = StageRequest(session=_other_sessions(plan)[term].to_bytes(), payload=b"")

    with pytest.raises(RefusalError, match="plan"):
        client.answer(request.to_bytes())


def test_claim_11_a_client_refuses_strangers_its_own_absence_and_the_past() -> None:
    """Rosters are checked against the plan; rounds and attempts only go forward."""
    plan = make_plan()
    client = participants(plan)["b-01"]

    def ask(session: Session) -> bytes:
        return client.answer(StageRequest(session=session.to_bytes(), payload=b"").to_bytes())

    def over(*cohort: str) -> Session:
        terms = first_session(plan)
        ranks = tuple(plan.ranks.get(member, 2) for member in cohort)
        return replace(
            terms,
            members=cohort,
            ranks=ranks,
            segments=(segment(0, 5, cohort),),
            threshold=len(cohort) // 2 + 1,
        )

    for cohort in (("a-01", "b-01", "puppet"), ("a-01", "a-02", "b-02"), tuple(plan.ranks)[:-1]):
        with pytest.raises(RefusalError, match="the cohort of round 1 is not the plan's"):
            ask(over(*cohort))
    with pytest.raises(RefusalError, match="rounds of the plan"):
        ask(replace(first_session(plan), round=5))
    ask(first_session(plan, round_number=2, attempt=2))
    for number, attempt in ((1, 3), (2, 1)):
        with pytest.raises(RefusalError, match="must come after"):
            ask(first_session(plan, round_number=number, attempt=attempt))


def test_claim_12_secrets_are_fresh_from_the_system_and_reach_neither_text_nor_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every byte string that the system's generator gave is looked for in the run folder and in the output."""
    drawn: list[bytes] = []
    genuine = secrets.token_bytes

    def watched(size: int | None = None) -> bytes:
        drawn.append(genuine(size))
        return drawn[-1]

    for function in (Secret.random.__func__, sealed.seal, shamir.split, create_sealed_shares):
        _watch(function, watched, monkeypatch)
    monkeypatch.setattr("protocols.masking.secure_sum.Masking.client", _watched_client(watched))
    plan = make_plan()
    authority = ThrowawayAuthority.create(plan.ranks, now=NOW, random_bytes=watched)
    people = {
        name: Participant(
            name,
            plan=plan,
            secure_sum=build_secure_sum(plan, authority.view, authority.identity(name)),
            train=steady(0.01),
            examples=10,
        )
        for name in plan.ranks
    }
    folder = RunFolder.create(tmp_path / "run", plan.config)
    stopwatch = Stopwatch()
    coordinator = Coordinator(
        plan=plan,
        secure_sum=build_secure_sum(plan, authority.view),
        folder=folder,
        exchange=InMemory(people),
        evaluate=lambda _adapter: (0.0, 0.0),
        stopwatch=stopwatch,
        observers=[WhenSaved(print)],
    )

    coordinator.run(folder.load(plan))
    folder.close()

    written = b"".join(path.read_bytes() for path in folder.path.rglob("*") if path.is_file())
    printed = capsys.readouterr().out
    long_enough = [value for value in drawn if len(value) >= 32]
    # Per client and round: a private key and a seed per band, another private key, polynomials.
    assert len(long_enough) >= 3 * 6 * 4
    assert len(set(drawn)) == len(drawn)
    for value in long_enough:
        assert value not in written
        assert bytes(value).hex().encode() not in written
        assert bytes(value).hex() not in printed
        assert repr(value) not in printed


def _watch(function: object, watched: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the default source of a function."""
    defaults = [watched if d is secret.SYSTEM_RANDOM else d for d in function.__defaults__ or ()]
    monkeypatch.setattr(function, "__defaults__", tuple(defaults) or None)
    keywords = {
        k: watched if d is secret.SYSTEM_RANDOM else d for k, d in (function.__kwdefaults__ or {}).items()
    }
    monkeypatch.setattr(function, "__kwdefaults__", keywords or None)


def _watched_client(watched: Callable[[int], bytes]) -> Callable[..., MaskingClient]:
    return lambda self, session, me, extra_secrets: MaskingClient(
        self.terms(session), me, self._identity, watched, extra_secrets=extra_secrets
    )


def test_claim_12_the_default_source_is_the_operating_systems() -> None:
    """Outside of tests nobody passes another one, and protocols imports no other generator."""
    assert secret.SYSTEM_RANDOM is secrets.token_bytes
    for path in (ROOT / "protocols").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import random" not in text, path
        assert "np.random" not in text, path


def test_claim_12_secrets_do_not_print() -> None:
    """The text of every client state shows neither keys nor seeds nor shares."""
    session = make_session(3, threshold=3)
    terms = signed_terms(session, CONSISTENCY)
    states, directory = advertise(terms)
    shared, deliveries = share(terms, states, directory)
    masked, uploads = mask(terms, shared, deliveries, make_inputs(session))
    agreed, _ = agree(terms, masked, survivor_list(terms, (1, 2, 3), uploads=uploads))
    hidden = [key.secret for key in states[1].mask_keys.values()]
    hidden += [states[1].sealing_key.secret, *shared[1].seeds.values(), *shared[1].sealing_secrets.values()]
    entrusted = [part for bundle in masked[1].bundles.values() for part in bundle.segments.values()]
    hidden += [share for part in entrusted for share in (part.mask_key, part.self_mask)]

    seen = (states[1], shared[1], masked[1], agreed[1])
    text = "".join(repr(state) + str(state) for state in seen)

    for value in hidden:
        assert bytes(value).hex() not in text
        assert bytes(value).__repr__()[2:-1] not in text


@pytest.mark.parametrize("read", [int, float, list, np.array, copy.copy, Secret.__getnewargs__])
def test_claim_12_what_python_makes_of_a_secret_unasked_shows_nothing(
    read: Callable[[Secret], object],
) -> None:
    """Numbers, lists, arrays and pickles are refused by an error without the bytes; a copy is the secret itself."""
    hidden = Secret(b"1e5 never print me")

    try:
        text = f"{read(hidden)}"
    except TypeError as error:
        text = f"{error}"

    assert "never" not in text


FORBIDDEN = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}


def _calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def test_claim_13_nothing_is_unpickled_loaded_by_torch_or_evaluated() -> None:
    """No source file imports a pickler or calls eval, exec, torch.load or numpy's loader with pickles."""
    sources = [*(ROOT / "protocols").rglob("*.py"), *(ROOT / "rbla_secure").rglob("*.py")]

    for path in sources:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {
            name.split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [str(node.module)])
        }
        assert not imported & FORBIDDEN, path
        assert not {"eval", "exec", "torch.load"} & set(_calls(tree)), path
        assert "allow_pickle=True" not in ast.unparse(tree), path


def test_claim_13_another_encoding_of_a_message_is_refused() -> None:
    """One byte more, less or changed in the head is no message; a set out of order is none either."""
    session = make_session(3)
    _, directory = advertise(session)
    data = directory.to_bytes()
    kind = type(directory)

    for wrong in (data + b"\x00", data[:-1], b"X" + data[1:], data[:2] + b"\x01" + data[3:]):
        with pytest.raises(WireError):
            kind.from_bytes(wrong)
    shuffled = replace(directory, advertisements=directory.advertisements[::-1])
    with pytest.raises(WireError, match="order"):
        kind.from_bytes(shuffled.to_bytes())
    assert kind.from_bytes(data) == directory


def test_claim_13_random_bytes_never_crash_a_participant() -> None:
    """Whatever arrives, the answer is a refusal with a name."""
    client = participants(make_plan())["a-01"]
    generator = np.random.default_rng(0)

    for size in range(200):
        answer = decode_answer(client.handle(generator.bytes(size)))

        assert answer.error in {"WireError", "SessionError"}


@EVERY_PROFILE
def test_claim_20_a_sessions_secrets_are_gone_when_it_is_over(profile: MaskingProfile) -> None:
    """When a session is finished, ended or replaced, no key, seed or share of it can be reached from its client."""
    plan = make_plan(f"masking.profile={profile.name}")
    people = participants(plan)
    network, me = InMemory(people), people["b-01"]
    lasting = secrets_of(me)

    def begin(number: int) -> set[Secret]:
        before = secrets_of(me)
        session = first_session(plan, round_number=number)
        prepare_round(SessionServer(plan, session, server_sum(plan)), network)
        return secrets_of(me) - before

    play(plan, initial(plan), network)
    assert secrets_of(me) == lasting, "finished"
    replaced = begin(2)
    assert len(replaced) >= 13
    ended = begin(4)
    assert secrets_of(me) == lasting | ended, "replaced"
    me.end()
    assert secrets_of(me) == lasting, "ended"


def _sums_of(plan: Plan, people: Mapping[str, Participant], attempt: int, *, without: str = "") -> Any:
    """The sums of the bands in one attempt at round 1, in which one client is not asked for its input."""
    session_server = SessionServer(plan, first_session(plan, attempt=attempt), server_sum(plan))
    network = InMemory(people, silent_from={without: "mask_input"} if without else {})
    prepare_round(session_server, network)
    stages = session_server.stages
    for stage in stages[stages.index("mask_input") :]:
        adapter = initial(plan) if stage == "mask_input" else None
        exchange_stages(
            network, [StageOfSession(session_server=session_server, stage=stage, adapter=adapter)]
        )
    return session_server.result(initial(plan)), session_server


@EVERY_PROFILE
def test_claim_21_a_round_is_not_summed_twice_over_different_survivors(profile: MaskingProfile) -> None:
    """After one sum of a round all its clients refuse another attempt by name, and nothing is opened."""
    plan = make_plan(f"masking.profile={profile.name}")
    people = participants(plan)
    first, _ = _sums_of(plan, people, 1)

    second, session_server = _sums_of(plan, people, 2, without="a-01")

    assert first.survivors == tuple(plan.ranks)
    assert second is None
    assert set(session_server.refusals) == set(plan.ranks)
    assert all(why.startswith("RefusalError: round 1 has had") for why in session_server.refusals.values())


@EVERY_PROFILE
def test_claim_21_without_that_rule_the_difference_is_one_clients_update(
    monkeypatch: pytest.MonkeyPatch, profile: MaskingProfile
) -> None:
    """The attack is real: two sums of one round that differ by one client differ by its integers, to the bit."""
    monkeypatch.setattr(Memory, "check_not_given", lambda *_arguments: None)
    plan = make_plan(f"masking.profile={profile.name}")
    people = participants(plan)

    first, _ = _sums_of(plan, people, 1)
    second, _ = _sums_of(plan, people, 2, without="a-01")

    victim = people["a-01"]
    model = Broadcast(adapter=initial(plan), digests=band_digests(plan, initial(plan)))
    alone = victim._inputs(first_session(plan), model)
    assert np.array_equal(first.sums[0] - second.sums[0], alone[0].values)
    assert np.array_equal(first.sums[1], second.sums[1])
