"""A test for every numbered claim of threat_model.md, under the claim's number."""

import ast
import math
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from protocols.errors import (
    BelowThresholdError,
    CapacityError,
    InputError,
    RosterError,
    SealError,
    StageError,
    WireError,
)
from protocols.interface import SegmentInput
from protocols.masking.client import create_masked_input, create_revealed_shares, create_sealed_shares
from protocols.masking.masks import SegmentMasks
from protocols.masking.messages import ShareDelivery
from protocols.masking.secure_sum import Masking, MaskingClient
from protocols.primitives import agreement, sealed, secret, shamir
from protocols.primitives.prg import UniformStream
from protocols.primitives.secret import Secret
from protocols.ring import centred, to_ring
from protocols.run import run_session
from protocols.session import Session
from rbla_secure.config import load_config
from rbla_secure.errors import RefusalError, UpdateError
from rbla_secure.federation.checkpoint import RunFolder
from rbla_secure.federation.coordinator import Coordinator
from rbla_secure.federation.exchange import Answer, Exchange
from rbla_secure.federation.messages import StageRequest, decode_answer
from rbla_secure.federation.participant import Participant
from rbla_secure.federation.plan import Plan
from rbla_secure.federation.round import run_round
from rbla_secure.lora.adapter import Adapter, AdapterLayout, LinearShape, Rows
from rbla_secure.lora.bands import pack, rank_bands
from rbla_secure.lora.update import BoundedUpdate, ClientUpdate
from rbla_secure.privacy.clipping import clip
from rbla_secure.privacy.quantize import Quantizer, quantize
from rbla_secure.stopwatch import Stopwatch
from tests.contracts.sessions import (
    MODEL,
    OTHER_MODEL,
    make_inputs,
    make_session,
    names,
    same_bindings,
    segment,
)
from tests.protocols.masking.parties import advertise, mask, reveal, share, survivor_list

ROOT = Path(__file__).parent.parent
LAYOUT = AdapterLayout(layers=(LinearShape(name="only", in_features=5, out_features=3),), scaling=2.0)


def claims() -> dict[int, str]:
    """The numbered claims of the document."""
    text = (ROOT / "threat_model.md").read_text(encoding="utf-8")
    section = text.split("## Claims")[1].split("\n## ")[0]
    return {
        int(number): claim for number, claim in re.findall(r"^(\d+)\. (.+)$", section, flags=re.MULTILINE)
    }


def looks_uniform(vector: npt.NDArray[np.uint32]) -> bool:
    """A chi-square test of the bytes of a ring vector, with a false alarm in about 1e-9 of all cases."""
    counts = np.bincount(vector.view(np.uint8), minlength=256)
    expected = counts.sum() / 256
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return abs(statistic - 255) < 6 * math.sqrt(2 * 255)


TIERS = "tiers={a={rank=2,clients=3},b={rank=4,clients=3}}"


def make_plan(*overrides: str) -> Plan:
    """Six clients of rank 2 and 4 on one tiny layer; no model and no data behind it."""
    config = load_config(None, [TIERS, "dropout-rate=0", "rounds=3", *overrides])
    return Plan.build(config, layout=LAYOUT, base_digest=bytes(32))


def steady(step: float) -> Callable[[Adapter, int], Rows]:
    """Training that moves every value by the same step."""
    return lambda adapter, _seed: adapter.rows + np.float32(step)


def participants(plan: Plan, *, step: float = 0.01) -> dict[str, Participant]:
    """Everyone enrolled, with made-up training."""
    return {name: Participant(name, plan=plan, train=steady(step), examples=10) for name in plan.ranks}


class Network(Exchange):
    """Calls participants in turn; some fall silent from a stage on, and requests may be altered on the way."""

    def __init__(
        self,
        people: Mapping[str, Participant],
        *,
        silent_from: Mapping[str, str] | None = None,
        alter: Callable[[str, str, bytes], bytes] = lambda _client, _stage, request: request,
    ) -> None:
        self._people = people
        self._silent_from = dict(silent_from or {})
        self._alter = alter
        self._gone: set[str] = set()

    def send(self, requests: Mapping[str, bytes], *, round_number: int, stage: str) -> Iterator[Answer]:
        """Deliver, skipping who has fallen silent."""
        self._gone |= {client for client, last in self._silent_from.items() if last == stage}
        for client, request in requests.items():
            if client not in self._gone:
                yield Answer(client, self._people[client].handle(self._alter(client, stage, request)))


def first_session(plan: Plan, *, round_number: int = 1, attempt: int = 1) -> Session:
    """The session of a round over everyone."""
    return plan.session(run=bytes(16), round_number=round_number, attempt=attempt, cohort=tuple(plan.ranks))


def initial(plan: Plan) -> Adapter:
    """The adapter before round 1."""
    return Adapter.initial(plan.layout, rank=plan.max_rank, seed=1)


def test_every_claim_has_a_test_and_every_test_a_claim() -> None:
    """A claim without a test is a promise; a test without a claim is a surprise."""
    tested = {
        int(match.group(1))
        for name in globals()
        if (match := re.match(r"test_claim_(\d+)_", name)) is not None
    }

    assert sorted(claims()) == list(range(1, len(claims()) + 1))
    assert tested == set(claims())


def test_claim_01_an_upload_stays_uniform_beside_one_other_honest_client() -> None:
    """With all masks removed that the server and n - 2 clients know, two honest uploads still look uniform."""
    length = 40_000
    session = make_session(5, segment(0, length, names(5)), threshold=4)
    inputs = make_inputs(session)
    advertised, directory = advertise(session)
    shared, deliveries = share(session, advertised, directory)
    masked, uploads = mask(session, shared, deliveries, inputs)
    _, reveals = reveal(session, masked, survivors=(1, 2, 3, 4, 5))
    honest, colluding = (1, 2), (3, 4, 5)
    masks = SegmentMasks(context=session.context, segment=0, binding=MODEL)
    recovery = shamir.Recovery.over((1, 2, 3, 4))
    residues = {}

    for me in honest:
        residue = uploads[me].segments[0].copy()
        seed = recovery.combine({h: reveals[h].self_mask_shares[me, 0] for h in (1, 2, 3, 4)})
        masks.remove_self(residue, seed, owner=me)
        for peer in colluding:
            known = shared[peer].mask_key.agree(advertised[me].mask_key.public)
            masks.add_pairwise(residue, known, owner=peer, peer=me)
        residues[me] = residue

    assert all(looks_uniform(upload.segments[0]) for upload in uploads.values())
    assert all(looks_uniform(residue) for residue in residues.values())
    honest_sum = inputs["client-01"][0].values + inputs["client-02"][0].values
    assert np.array_equal(residues[1] + residues[2], to_ring(honest_sum)), (
        "the masks removed were the right ones"
    )


def test_claim_01_the_check_of_uniformity_rejects_an_unmasked_upload() -> None:
    """The statistic used above can fail."""
    inputs = make_inputs(make_session(2, segment(0, 40_000, names(2))))

    assert not looks_uniform(to_ring(inputs["client-01"][0].values))


def test_claim_02_fewer_shares_than_the_threshold_fit_every_secret() -> None:
    """For t - 1 shares and any other secret there is a polynomial through all of them."""
    secret_value, other = Secret(bytes([7]) * 32), Secret(bytes([200]) * 32)
    shares = shamir.split(secret_value, threshold=3, abscissas=[1, 2, 3, 4])
    known = {x: int.from_bytes(shares[x], "big") for x in (2, 4)}

    def through(points: Mapping[int, int], x: int) -> int:
        total = 0
        for a, value in points.items():
            term = value
            for b in points:
                if b != a:
                    term = term * (x - b) * pow(a - b, -1, shamir.FIELD) % shamir.FIELD
            total += term
        return total % shamir.FIELD

    forged = through({0: int.from_bytes(other, "big"), **known}, 1).to_bytes(shamir.SHARE_SIZE, "big")

    assert shamir.Recovery.over([1, 2, 4]).combine({1: forged, 2: shares[2], 4: shares[4]}) == other
    assert shamir.Recovery.over([1, 2, 4]).combine(shares) == secret_value


def test_claim_03_a_thin_band_stays_closed_at_server_and_clients() -> None:
    """One holder too few: no client reveals a share of it, the server has no sum, the rows stay to the bit."""
    plan = make_plan()
    before = initial(plan)

    outcome = run_round(
        plan, first_session(plan), before, Network(participants(plan), silent_from={"b-03": "mask_input"})
    )

    assert list(outcome.refused_bands) == [1]
    assert outcome.adapter.rows[2:].tobytes() == before.rows[2:].tobytes()
    assert outcome.adapter.rows[:2].tobytes() != before.rows[:2].tobytes()


def test_claim_03_a_client_reveals_no_share_of_a_band_below_its_quorum() -> None:
    """The client counts survivors itself, whatever the server would do with the shares."""
    session = make_session(4, segment(0, 3, names(4), quorum=3), segment(1, 3, names(4)[1:], quorum=3))
    states, directory = advertise(session)
    shared, deliveries = share(session, states, directory)
    masked, _ = mask(session, shared, deliveries, make_inputs(session))

    step = create_revealed_shares(masked[1], survivor_list(session, (1, 2, 3), (4,)))

    assert step.state.refused == (1,)
    assert {index for _, index in step.message.self_mask_shares} == {0}


def test_claim_04_a_sealed_share_opens_only_where_it_belongs() -> None:
    """Another key, another session, another direction and any changed byte are refused."""
    session = make_session(3)
    states, directory = advertise(session)
    shared, deliveries = share(session, states, directory)
    inputs = make_inputs(session)["client-01"]
    genuine = deliveries[1].sealed[2]
    for blob in (
        deliveries[3].sealed[2],  # sealed by the same client for somebody else
        deliveries[2].sealed[1],  # this client's own bundle, reflected
        genuine[:-1] + bytes((genuine[-1] ^ 1,)),
    ):
        wrong = ShareDelivery(context=session.context, recipient=1, sealed={**deliveries[1].sealed, 2: blob})

        with pytest.raises(SealError, match="client-02"):
            create_masked_input(shared[1], wrong, inputs)


def test_claim_04_the_server_holds_no_key_that_opens_a_sealed_share() -> None:
    """Even the recovered mask key of a client does not open what was sealed to it: sealing keys are never shared."""
    session = make_session(3)
    states, directory = advertise(session)
    _, deliveries = share(session, states, directory)
    by_position = {entry.sender: entry for entry in directory.advertisements}

    for mine in (states[1].mask_key, agreement.PrivateKey(Secret(bytes(32)))):
        for theirs in (by_position[2].mask_key, by_position[2].sealing_key):
            shared_secret = mine.agree(theirs)
            for key in (Secret(shared_secret[:16]), Secret(shared_secret[16:])):
                with pytest.raises(SealError):
                    sealed.open_sealed(key, deliveries[1].sealed[2], context=session.context)


def test_claim_05_a_late_upload_is_refused_and_stays_hidden() -> None:
    """With the pairwise masks of a dropped client removed, its upload is still uniform by its self mask."""
    length = 40_000
    session = make_session(4, segment(0, length, names(4)))
    states, directory = advertise(session)
    shared, deliveries = share(session, states, directory)
    masked, uploads = mask(session, shared, deliveries, make_inputs(session))
    _, reveals = reveal(session, masked, survivors=(1, 2, 3))
    recovery = shamir.Recovery.over((1, 2, 3))
    key = agreement.PrivateKey(recovery.combine({h: reveals[h].mask_key_shares[4] for h in (1, 2, 3)}))
    residue = uploads[4].segments[0].copy()
    masks = SegmentMasks(context=session.context, segment=0, binding=MODEL)
    for peer in (1, 2, 3):
        masks.add_pairwise(residue, key.agree(states[peer].mask_key.public), owner=peer, peer=4)

    server = Masking().server(session)
    clients = {member: Masking().client(session, member) for member in session.members}
    for _ in range(2):
        for member, request in server.requests().items():
            server.receive(member, clients[member].reply(request))
        server.close_stage()
    late = {m: clients[m].contribute(r, make_inputs(session)[m]) for m, r in server.requests().items()}
    for member in names(4)[:3]:
        server.receive(member, late[member])
    server.close_stage()

    assert looks_uniform(residue)
    with pytest.raises(StageError, match="client-04"):
        server.receive("client-04", late["client-04"])


def test_claim_06_no_reveal_holds_both_kinds_of_share_of_one_peer() -> None:
    """A list that names a peer as survivor and as dropped is refused; a proper one yields one kind each."""
    session = make_session(4)
    states, directory = advertise(session)
    shared, deliveries = share(session, states, directory)
    masked, _ = mask(session, shared, deliveries, make_inputs(session))

    message = create_revealed_shares(masked[1], survivor_list(session, (1, 2, 3), (4,))).message

    assert set(message.mask_key_shares) == {4}
    assert {peer for peer, _ in message.self_mask_shares} == {1, 2, 3}
    with pytest.raises(RosterError, match="both"):
        create_revealed_shares(masked[1], survivor_list(session, (1, 2, 3, 4), (4,)))


def test_claim_06_a_client_answers_one_survivor_list_only() -> None:
    """After a reveal, another list gets nothing; the same one gets the same bytes."""
    session = make_session(4)
    client = Masking().client(session, "client-01")
    others = {m: Masking().client(session, m) for m in names(4)[1:]}
    server = Masking().server(session)
    everyone = {"client-01": client, **others}
    for _ in range(2):
        for member, request in server.requests().items():
            server.receive(member, everyone[member].reply(request))
        server.close_stage()
    for member, request in server.requests().items():
        server.receive(member, everyone[member].contribute(request, make_inputs(session)[member]))
    first = survivor_list(session, (1, 2, 3), (4,)).to_bytes()
    second = survivor_list(session, (1, 2, 4), (3,)).to_bytes()

    answer = client.reply(first)

    assert client.reply(first) == answer
    with pytest.raises(StageError):
        client.reply(second)


@pytest.mark.parametrize("stage", Masking.stages)
def test_claim_07_below_the_threshold_nothing_opens_and_nothing_changes(stage: str) -> None:
    """Three of six silent at any stage: the round is aborted by name and the adapter is the one it was."""
    plan = make_plan()
    before = initial(plan)

    outcome = run_round(
        plan,
        first_session(plan),
        before,
        Network(participants(plan), silent_from=dict.fromkeys(("a-01", "a-02", "b-01"), stage)),
    )

    assert "threshold=4" in outcome.aborted
    assert outcome.adapter is before
    assert not outcome.holders


def test_claim_07_a_client_reveals_nothing_for_too_short_a_list() -> None:
    """Clients hold the threshold too."""
    session = make_session(4)
    states, directory = advertise(session)
    shared, deliveries = share(session, states, directory)
    masked, _ = mask(session, shared, deliveries, make_inputs(session))

    with pytest.raises(BelowThresholdError, match="threshold=3"):
        create_revealed_shares(masked[1], survivor_list(session, (1, 2), (3, 4)))


def test_claim_08_clients_of_different_models_do_not_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    """One client bound to another model turns the whole sum into noise, which the server notices."""
    session = make_session(4, segment(0, 40_000, names(4)))
    inputs = make_inputs(session)
    inputs["client-02"] = {0: SegmentInput(values=inputs["client-02"][0].values, binding=OTHER_MODEL)}

    server_sums: list[npt.NDArray[np.uint32]] = []
    monkeypatch.setattr(
        "protocols.masking.server.centred", lambda total: server_sums.append(total) or centred(total)
    )

    result = run_session(Masking(), session, inputs, bindings=same_bindings(session))

    assert not result.sums
    assert "another model" in result.refused[0]
    assert looks_uniform(server_sums[0])


def test_claim_08_a_model_aimed_at_one_client_is_bound_into_its_masks() -> None:
    """One changed value in the adapter that one client is sent: its bands stay closed, the others open."""
    plan = make_plan()
    taken: dict[str, bytes] = {}

    def alter(client: str, stage: str, request: bytes) -> bytes:
        if stage != "mask_input" or client != "a-01":
            return request
        message = StageRequest.from_bytes(request)
        adapter = bytearray(message.adapter)
        adapter[0] ^= 1
        taken[client] = bytes(adapter)
        return replace(message, adapter=bytes(adapter)).to_bytes()

    honest = run_round(plan, first_session(plan), initial(plan), Network(participants(plan)))
    attacked = run_round(plan, first_session(plan), initial(plan), Network(participants(plan), alter=alter))

    assert taken
    assert "another model" in attacked.refused_bands[0]
    assert attacked.adapter.rows[:2].tobytes() == initial(plan).rows[:2].tobytes()
    assert attacked.adapter.rows[2:].tobytes() == honest.adapter.rows[2:].tobytes()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_claim_09_one_clients_integers_have_a_bounded_norm(scale: float) -> None:
    """Present or zeroed out, a client moves the sum by no more than the stated norm, however large its update."""
    quantizer = Quantizer(bits=16, bound=0.06)
    rows = np.random.default_rng(0).normal(size=(4, LAYOUT.row_length)) * scale
    bounded = clip(ClientUpdate(rows=rows, weight=1.0), clip_norm=0.5)
    packed = pack(bounded, rank_bands([2, 4]))

    integers = quantize(packed, quantizer, UniformStream(secrets.token_bytes(16)))

    values = np.concatenate([vector[:-2] for vector in integers.values()])
    assert np.linalg.norm(values) <= quantizer.rounded_norm_bound(0.5, rows.size)
    assert np.linalg.norm(values) <= 0.5 * quantizer.scale + math.sqrt(rows.size)


def test_claim_09_weights_above_one_and_unclipped_updates_cannot_be_built() -> None:
    """The types refuse what would break the bound."""
    rows = np.ones((1, 4))

    with pytest.raises(UpdateError, match="weight"):
        ClientUpdate(rows=rows, weight=1.5)
    with pytest.raises(UpdateError, match="clip_norm"):
        BoundedUpdate(rows=rows, weight=1.0, clip_norm=1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_claim_10_an_update_that_is_not_finite_stays_with_its_client(bad: float) -> None:
    """The client refuses by name, the round goes on without it."""
    plan = make_plan()
    people = participants(plan)
    people["a-01"] = Participant("a-01", plan=plan, train=steady(bad), examples=10)

    outcome = run_round(plan, first_session(plan), initial(plan), Network(people))

    assert outcome.dropped == {"a-01": "mask_input"}
    assert "UpdateError" in outcome.refusals["a-01"]
    assert "a-01" not in outcome.survivors
    assert np.isfinite(outcome.adapter.rows).all()


def _other_sessions(plan: Plan) -> dict[str, Session]:
    """Sessions that differ from the plan's in one term each."""
    terms = first_session(plan)
    wider = replace(terms.segments[0], length=terms.segments[0].length + 1)
    laxer = replace(terms.segments[1], quorum=1)
    fewer = replace(terms.segments[1], members=terms.segments[1].members[1:], quorum=2)
    return {
        "threshold": replace(terms, threshold=5),
        "length": replace(terms, segments=(wider, terms.segments[1])),
        "quorum": replace(terms, segments=(terms.segments[0], laxer)),
        "members of a band": replace(terms, segments=(terms.segments[0], fewer)),
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
        return replace(first_session(plan), members=cohort, segments=(segment(0, 5, cohort),), threshold=2)

    with pytest.raises(RefusalError, match="enrolled"):
        ask(over("a-01", "b-01", "puppet"))
    with pytest.raises(RefusalError, match="lacks"):
        ask(over("a-01", "a-02", "b-02"))
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
    folder = RunFolder.create(tmp_path / "run", plan.config)
    stopwatch = Stopwatch()
    coordinator = Coordinator(
        plan=plan,
        folder=folder,
        exchange=Network(participants(plan)),
        evaluate=lambda _adapter: (0.0, 0.0),
        stopwatch=stopwatch,
        observe=print,
    )

    coordinator.run(folder.load(plan))
    folder.close()

    written = b"".join(path.read_bytes() for path in folder.path.rglob("*") if path.is_file())
    printed = capsys.readouterr().out
    long_enough = [value for value in drawn if len(value) >= 32]
    # Per client and round: two private keys, a seed per band, polynomials.
    assert len(long_enough) >= 3 * 6 * 4
    assert len(set(drawn)) == len(drawn)
    for value in long_enough:
        assert value not in written
        assert value.hex().encode() not in written
        assert value.hex() not in printed
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
    return lambda _self, session, me: MaskingClient(session, me, watched)


def test_claim_12_the_default_source_is_the_operating_systems() -> None:
    """Outside of tests nobody passes another one, and protocols imports no other generator."""
    assert secret.SYSTEM_RANDOM is secrets.token_bytes
    for path in (ROOT / "protocols").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import random" not in text, path
        assert "np.random" not in text, path


def test_claim_12_secrets_do_not_print() -> None:
    """The text of every client state shows neither keys nor seeds nor shares."""
    session = make_session(3)
    states, directory = advertise(session)
    shared, deliveries = share(session, states, directory)
    masked, _ = mask(session, shared, deliveries, make_inputs(session))
    hidden = [states[1].mask_key.secret, states[1].sealing_key.secret, *shared[1].seeds.values()]
    hidden += [bundle.mask_key_share for bundle in masked[1].bundles.values()]

    text = "".join(repr(state) + str(state) for state in (states[1], shared[1], masked[1]))

    for value in hidden:
        assert value.hex() not in text
        assert bytes(value).__repr__()[2:-1] not in text


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

    for wrong in (data + b"\x00", data[:-1], b"X" + data[1:], data[:2] + b"\x02" + data[3:]):
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


def test_claim_14_a_sum_that_could_wrap_is_refused() -> None:
    """The largest bound that fits is summed exactly at its extremes; one more is refused."""
    n = 4
    largest = (2**31 - 1) // n
    session = make_session(n, input_bound=largest)
    inputs = {
        m: {0: SegmentInput(values=np.full(5, largest, dtype=np.int64), binding=MODEL)}
        for m in session.members
    }

    result = run_session(Masking(), session, inputs, bindings=same_bindings(session))

    assert result.sums[0].tolist() == [n * largest] * 5
    with pytest.raises(CapacityError, match="wrap"):
        make_session(n, input_bound=largest + 1)
    with pytest.raises(InputError, match="leaves"):
        run_session(
            Masking(), replace(session, input_bound=largest - 1), inputs, bindings=same_bindings(session)
        )
