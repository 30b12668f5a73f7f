"""A test for every numbered claim of threat_model.md, under the claim's number."""

import ast
import copy
import math
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from protocols.errors import (
    BelowThresholdError,
    CapacityError,
    CertificateError,
    ContextError,
    EnrolmentError,
    IdentityError,
    InputError,
    KeyFileError,
    ProtocolError,
    RevokedError,
    RosterError,
    SealError,
    SignatureError,
    StageError,
    WireError,
)
from protocols.identity.certificates import issue_certificate
from protocols.identity.revocations import issue_revocations
from protocols.identity.trust import Roster, RosterEntry, ThrowawayAuthority, TrustStore
from protocols.interface import SegmentInput
from protocols.masking import checks
from protocols.masking.client import (
    create_key_advertisement,
    create_masked_input,
    create_revealed_shares,
    create_sealed_shares,
    create_signed_survivors,
    reveal_agreed,
)
from protocols.masking.masks import SegmentMasks
from protocols.masking.messages import KeyAdvertisement, MaskedInput, SurvivorSignatures
from protocols.masking.secure_sum import Masking, MaskingClient
from protocols.masking.terms import Terms
from protocols.primitives import agreement, sealed, secret, shamir
from protocols.primitives.prg import UniformStream
from protocols.primitives.secret import Secret
from protocols.profiles import CONSISTENCY, ONE_ANSWER, SEMI_HONEST, MaskingProfile
from protocols.ring import RING_BITS, centred, to_ring
from protocols.run import run_session
from protocols.session import Session
from rbla_secure.config import load_config
from rbla_secure.errors import RefusalError, RunFolderError, UpdateError
from rbla_secure.federation.broadcast import Broadcast, band_digests
from rbla_secure.federation.client import memory
from rbla_secure.federation.client.memory import Memory
from rbla_secure.federation.client.participant import Participant
from rbla_secure.federation.coordinator import Coordinator
from rbla_secure.federation.exchange import Parcel
from rbla_secure.federation.messages import StageRequest, decode_answer
from rbla_secure.federation.round import RoundOutcome, prepare_round, run_round
from rbla_secure.federation.server.session_server import SessionServer, StageOfSession, exchange_stages
from rbla_secure.identities import authority
from rbla_secure.identities.folders import load_identity
from rbla_secure.lora.adapter import Adapter, AdapterLayout, LinearShape, Rows
from rbla_secure.lora.bands import pack, rank_bands
from rbla_secure.lora.update import BoundedUpdate, ClientUpdate, PackedUpdate
from rbla_secure.planning.modes import build_secure_sum
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.clipping import clip
from rbla_secure.privacy.quantize import Quantizer, quantize
from rbla_secure.run_folder.audit_log import AuditLog, Entry, EventKind
from rbla_secure.run_folder.folder import RunFolder
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
from tests.protocols.masking.parties import (
    AUTHORITY,
    TRUST,
    EveryonesMasking,
    advertise,
    agree,
    as_terms,
    directory_of,
    mask,
    reveal,
    share,
    signed_terms,
    survivor_list,
    with_sealed,
    without,
)
from tests.support.federations import InMemory, WhenSaved
from tests.support.identities import NOW, client_sum, make_authority, server_sum
from tests.support.reachable import secrets_of

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
    config = load_config(None, [TIERS, "dropout-rate=0", "rounds=4", *overrides])
    return Plan.build(config, layout=LAYOUT, base_digest=bytes(32))


def steady(step: float) -> Callable[[Adapter, int], Rows]:
    """Training that moves every value by the same step."""
    return lambda adapter, _seed: adapter.rows + np.float32(step)


def participants(plan: Plan, *, step: float = 0.01) -> dict[str, Participant]:
    """Everyone enrolled, with made-up training."""
    return {
        name: Participant(name, plan=plan, secure_sum=client_sum(plan, name), train=steady(step), examples=10)
        for name in plan.ranks
    }


def first_session(plan: Plan, *, round_number: int = 1, attempt: int = 1) -> Session:
    """The session of a round over everyone."""
    return plan.session(run=bytes(16), round_number=round_number, attempt=attempt, cohort=tuple(plan.ranks))


def initial(plan: Plan) -> Adapter:
    """The adapter before round 1."""
    return plan.initial_adapter


def play(plan: Plan, before: Adapter, network: InMemory) -> RoundOutcome:
    """The first round over everyone."""
    session_server = SessionServer(plan, first_session(plan), server_sum(plan))
    prepare_round(session_server, network)
    return run_round(plan, session_server, before, network)


def terms_of(session: Session, profile: MaskingProfile) -> Terms:
    """A session under a profile; everyone signs where it asks for signatures."""
    return as_terms(session) if profile is SEMI_HONEST else signed_terms(session, profile)


# Profiles in which a client reveals shares for the first survivor list it is given; all of them.
AT_ONCE = pytest.mark.parametrize("profile", [SEMI_HONEST, ONE_ANSWER], ids=lambda profile: profile.name)
SIGNED = pytest.mark.parametrize("profile", [ONE_ANSWER, CONSISTENCY], ids=lambda profile: profile.name)
EVERY_PROFILE = pytest.mark.parametrize(
    "profile", [SEMI_HONEST, ONE_ANSWER, CONSISTENCY], ids=lambda profile: profile.name
)


def test_every_claim_has_a_test_and_every_test_a_claim() -> None:
    """A claim without a test is a promise; a test without a claim is a surprise."""
    files = sorted(Path(__file__).parent.glob("test_threat_model*.py"))
    tested = {
        int(number)
        for path in files
        for number in re.findall(
            r"^def test_claim_(\d+)_", path.read_text(encoding="utf-8"), flags=re.MULTILINE
        )
    }

    assert sorted(claims()) == list(range(1, len(claims()) + 1))
    assert tested == set(claims())


@AT_ONCE
def test_claim_01_an_upload_stays_uniform_beside_one_other_honest_client(profile: MaskingProfile) -> None:
    """With all masks removed that the server and n - 2 clients know, two honest uploads still look uniform."""
    length = 40_000
    session = make_session(5, segment(0, length, names(5)), threshold=4)
    inputs = make_inputs(session)
    terms = terms_of(session, profile)
    advertised, directory = advertise(terms)
    shared, deliveries = share(terms, advertised, directory)
    masked, uploads = mask(terms, shared, deliveries, inputs)
    signed = uploads if terms.trust is not None else None
    _, reveals = reveal(terms, masked, survivors=(1, 2, 3, 4, 5), uploads=signed)
    honest, colluding = (1, 2), (3, 4, 5)
    masks = SegmentMasks(context=terms.context, segment=0, binding=MODEL)
    recovery = shamir.Recovery.over((1, 2, 3, 4))
    residues = {}

    for me in honest:
        residue = uploads[me].segments[0].copy()
        seed = recovery.combine({h: reveals[h].self_mask_shares[me, 0] for h in (1, 2, 3, 4)})
        theirs = advertised[me].mask_keys[0].public
        known = {(peer, me): shared[peer].mask_keys[0].agree(theirs) for peer in colluding}
        masks.remove(residue, {me: seed}, known)
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


def test_claim_01_corrupt_members_may_all_be_in_one_band() -> None:
    """Two honest members of a band of 101, beside all 99 that 1000 members allow and more, mask with each other in every draw."""
    members = names(1000)
    session = make_session(1000, segment(0, 1, members[:101], 3), segment(1, 1, members, 3))
    terms = as_terms(session)

    for _ in range(20):
        nonces = {position: secrets.token_bytes(16) for position in range(1, 1001)}
        band, everyone = (terms.mask_graph(part, nonces) for part in session.segments)

        assert 101 in band[100]
        assert {len(peers) for peers in everyone.values()} == {48}


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


@EVERY_PROFILE
def test_claim_03_a_thin_band_stays_closed_at_server_and_clients(profile: MaskingProfile) -> None:
    """One holder too few: no client reveals a share of it, the server has no sum, the rows stay to the bit."""
    plan = make_plan(f"masking.profile={profile.name}")
    before = initial(plan)

    outcome = play(plan, before, InMemory(participants(plan), silent_from={"b-03": "mask_input"}))

    assert list(outcome.refused_bands) == [1]
    assert outcome.adapter.rows[2:].tobytes() == before.rows[2:].tobytes()
    assert outcome.adapter.rows[:2].tobytes() != before.rows[:2].tobytes()


@AT_ONCE
def test_claim_03_a_client_reveals_no_share_of_a_band_below_its_quorum(profile: MaskingProfile) -> None:
    """The client counts survivors itself, whatever the server would do with the shares."""
    session = make_session(4, segment(0, 3, names(4), quorum=3), segment(1, 3, names(4)[1:], quorum=3))
    terms = terms_of(session, profile)
    states, directory = advertise(terms)
    shared, deliveries = share(terms, states, directory)
    masked, uploads = mask(terms, shared, deliveries, make_inputs(session))
    signed = uploads if terms.trust is not None else None

    step = create_revealed_shares(masked[1], survivor_list(terms, (1, 2, 3), (4,), uploads=signed))

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
        wrong = with_sealed(deliveries[1], {2: blob})

        state, upload = create_masked_input(shared[1], wrong, inputs)

        assert upload.disputed == (2,)
        assert set(state.bundles) == {1, 3}


def test_claim_04_the_server_holds_no_key_that_opens_a_sealed_share() -> None:
    """Even the recovered mask key of a client does not open what was sealed to it: sealing keys are never shared."""
    session = make_session(3)
    states, directory = advertise(session)
    _, deliveries = share(session, states, directory)
    by_position = {entry.sender: entry for entry in directory.advertisements}

    for mine in (states[1].mask_keys[0], agreement.PrivateKey(Secret(bytes(32)))):
        for theirs in (by_position[2].mask_keys[0], by_position[2].sealing_key):
            shared_secret = mine.agree(theirs)
            for key in (Secret(shared_secret[:16]), Secret(shared_secret[16:])):
                with pytest.raises(SealError):
                    sealed.open_sealed(key, deliveries[1].sealed[2], context=as_terms(session).context)


@AT_ONCE
def test_claim_05_a_late_upload_is_refused_and_stays_hidden(profile: MaskingProfile) -> None:
    """With the pairwise masks of a dropped client removed, its upload is still uniform by its self mask."""
    length = 40_000
    session = make_session(4, segment(0, length, names(4)))
    terms = terms_of(session, profile)
    states, directory = advertise(terms)
    shared, deliveries = share(terms, states, directory)
    masked, uploads = mask(terms, shared, deliveries, make_inputs(session))
    signed = uploads if terms.trust is not None else None
    _, reveals = reveal(terms, masked, survivors=(1, 2, 3), uploads=signed)
    recovery = shamir.Recovery.over((1, 2, 3))
    key = agreement.PrivateKey(recovery.combine({h: reveals[h].mask_key_shares[4, 0] for h in (1, 2, 3)}))
    residue = uploads[4].segments[0].copy()
    masks = SegmentMasks(context=terms.context, segment=0, binding=MODEL)
    known = {(peer, 4): key.agree(states[peer].mask_keys[0].public) for peer in (1, 2, 3)}
    masks.remove(residue, {}, known)

    masking = EveryonesMasking(profile)
    server = masking.server(session)
    clients = {member: masking.client(session, member) for member in session.members}
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


def test_claim_05_the_masks_removed_above_were_the_right_ones() -> None:
    """With its self mask removed as well, the same upload is its input: it was hidden by that mask alone."""
    session = make_session(4, segment(0, 50, names(4)))
    inputs = make_inputs(session)
    states, directory = advertise(session)
    shared, deliveries = share(session, states, directory)
    _, uploads = mask(session, shared, deliveries, inputs)
    residue = uploads[4].segments[0].copy()
    masks = SegmentMasks(context=as_terms(session).context, segment=0, binding=MODEL)
    key = states[4].mask_keys[0]
    known = {(peer, 4): key.agree(states[peer].mask_keys[0].public) for peer in (1, 2, 3)}

    masks.remove(residue, {4: shared[4].seeds[0]}, known)

    assert np.array_equal(residue, to_ring(inputs["client-04"][0].values))


@AT_ONCE
def test_claim_06_no_reveal_holds_both_kinds_of_share_of_one_peer(profile: MaskingProfile) -> None:
    """A list that names a peer as survivor and as dropped is refused; a proper one yields one kind each."""
    session = make_session(4)
    terms = terms_of(session, profile)
    states, directory = advertise(terms)
    shared, deliveries = share(terms, states, directory)
    masked, uploads = mask(terms, shared, deliveries, make_inputs(session))
    signed = uploads if terms.trust is not None else None

    message = create_revealed_shares(masked[1], survivor_list(terms, (1, 2, 3), (4,), uploads=signed)).message

    assert set(message.mask_key_shares) == {(4, 0)}
    assert {peer for peer, _ in message.self_mask_shares} == {1, 2, 3}
    with pytest.raises(RosterError, match="both"):
        create_revealed_shares(masked[1], survivor_list(terms, (1, 2, 3, 4), (4,), uploads=signed))


@EVERY_PROFILE
def test_claim_06_a_client_answers_one_survivor_list_only(profile: MaskingProfile) -> None:
    """After its answer, another list gets nothing; the same one gets the same bytes."""
    session = make_session(4)
    masking = EveryonesMasking(profile)
    everyone = {member: masking.client(session, member) for member in names(4)}
    server = masking.server(session)
    for _ in range(2):
        for member, request in server.requests().items():
            server.receive(member, everyone[member].reply(request))
        server.close_stage()
    uploads = {
        session.position(member): MaskedInput.from_bytes(
            everyone[member].contribute(request, make_inputs(session)[member])
        )
        for member, request in server.requests().items()
    }
    terms = terms_of(session, profile)
    signed = uploads if terms.trust is not None else None
    first = survivor_list(terms, (1, 2, 3), (4,), uploads=signed).to_bytes()
    second = survivor_list(terms, (1, 2, 4), (3,), uploads=signed).to_bytes()
    client = everyone["client-01"]

    answer = client.reply(first)

    assert client.reply(first) == answer
    with pytest.raises((StageError, WireError)):
        client.reply(second)
    assert client.reply(first) == answer


@pytest.mark.parametrize(
    ("profile", "threshold", "stage"),
    [
        (profile, threshold, stage)
        for profile, threshold in ((SEMI_HONEST, 4), (ONE_ANSWER, 4), (CONSISTENCY, 5))
        for stage in Masking(profile).stages
    ],
)
def test_claim_07_below_the_threshold_nothing_opens_and_nothing_changes(
    profile: MaskingProfile, threshold: int, stage: str
) -> None:
    """Three of six silent at any stage: the round is aborted by name and the adapter is the one it was."""
    plan = make_plan(f"masking.profile={profile.name}")
    before = initial(plan)

    outcome = play(
        plan,
        before,
        InMemory(participants(plan), silent_from=dict.fromkeys(("a-01", "a-02", "b-01"), stage)),
    )

    assert f"threshold={threshold}" in outcome.aborted
    assert outcome.adapter is before
    assert not outcome.holders


@AT_ONCE
def test_claim_07_a_client_reveals_nothing_for_too_short_a_list(profile: MaskingProfile) -> None:
    """Clients hold the threshold too."""
    session = make_session(4)
    terms = terms_of(session, profile)
    states, directory = advertise(terms)
    shared, deliveries = share(terms, states, directory)
    masked, uploads = mask(terms, shared, deliveries, make_inputs(session))
    signed = uploads if terms.trust is not None else None

    with pytest.raises(BelowThresholdError, match="threshold=3"):
        create_revealed_shares(masked[1], survivor_list(terms, (1, 2), (3, 4), uploads=signed))


@EVERY_PROFILE
def test_claim_08_clients_of_different_models_do_not_cancel(
    monkeypatch: pytest.MonkeyPatch, profile: MaskingProfile
) -> None:
    """One client bound to another model turns the whole sum into noise, which the server notices."""
    session = make_session(4, segment(0, 40_000, names(4)))
    inputs = make_inputs(session)
    inputs["client-02"] = {0: SegmentInput(values=inputs["client-02"][0].values, binding=OTHER_MODEL)}

    server_sums: list[npt.NDArray[np.uint32]] = []
    monkeypatch.setattr(
        "protocols.masking.server.opening.centred",
        lambda total, *, bits: server_sums.append(total) or centred(total, bits=bits),
    )

    result = run_session(EveryonesMasking(profile), session, inputs, bindings=same_bindings(session))

    assert not result.sums
    assert "another model" in result.refused[0]
    assert looks_uniform(server_sums[0])


@EVERY_PROFILE
def test_claim_08_a_model_aimed_at_one_client_is_bound_into_its_masks(
    monkeypatch: pytest.MonkeyPatch, profile: MaskingProfile
) -> None:
    """One changed value in the adapter of one client: it refuses; if it believes it, all its bands stay closed."""
    plan = make_plan(f"masking.profile={profile.name}")
    taken: dict[str, bytes] = {}

    def alter(client: str, parcel: Parcel) -> bytes:
        if parcel.stage != "mask_input" or client != "a-01":
            return parcel.data
        message = StageRequest.from_bytes(parcel.data)
        adapter = bytearray(message.adapter)
        adapter[-4] ^= 1  # the last row of all, which it does not hold and only folds in
        taken[client] = bytes(adapter)
        return replace(message, adapter=bytes(adapter)).to_bytes()

    refused = play(plan, initial(plan), InMemory(participants(plan), requests=alter))
    # Whatever it is sent, it believes.
    monkeypatch.setattr(memory, "check_plausible", lambda *_arguments, **_more: None)
    honest = play(plan, initial(plan), InMemory(participants(plan)))
    attacked = play(plan, initial(plan), InMemory(participants(plan), requests=alter))

    assert taken
    assert "follows from the plan's seed" in refused.refusals["a-01"]
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


@pytest.mark.parametrize("bits", RING_BITS)
def test_claim_14_a_sum_that_could_wrap_is_refused(bits: int) -> None:
    """The largest bound that fits is summed exactly at its extremes; one more is refused, in every ring."""
    n = 4
    largest = (2 ** (bits - 2) - 1) // n
    session = make_session(n, input_bound=largest, ring_bits=bits)
    inputs = {
        m: {0: SegmentInput(values=np.full(5, largest, dtype=np.int64), binding=MODEL)}
        for m in session.members
    }

    result = run_session(Masking(), session, inputs, bindings=same_bindings(session))

    assert result.sums[0].tolist() == [n * largest] * 5
    with pytest.raises(CapacityError, match="more than half of the ring"):
        make_session(n, input_bound=largest + 1, ring_bits=bits)
    with pytest.raises(InputError, match="leaves"):
        run_session(
            Masking(), replace(session, input_bound=largest - 1), inputs, bindings=same_bindings(session)
        )


def doubted(*, revoked: bool = False, expired: bool = False, enrolled: bool = True) -> TrustStore:
    """What everyone knows a little later, when something has happened to client-02."""
    two = AUTHORITY.identity("client-02")
    brief = issue_certificate(
        AUTHORITY.key,
        AUTHORITY.certificate,
        client="client-02",
        rank=4,
        public_key=two.key.public,
        now=NOW,
        valid_for=60,
    )
    entries = [entry for entry in TRUST.roster.entries if entry.client != "client-02" or not expired]
    entries = [entry for entry in entries if entry.client != "client-02" or enrolled]
    certificates = [brief] if expired else []
    if expired:
        entries = sorted([*entries, RosterEntry.of(brief)], key=lambda entry: entry.client)
    return TRUST.updated(
        now=NOW + 61,
        roster=Roster.issue(
            AUTHORITY.key,
            number=2,
            least_revocations=2,
            issued_at=NOW,
            expires_at=NOW + 1000,
            entries=tuple(entries),
        ),
        revocations=issue_revocations(
            AUTHORITY.key,
            AUTHORITY.certificate,
            serials=[two.certificate.serial] if revoked else [],
            number=2,
            now=NOW,
            valid_for=1000,
        ),
        certificates=certificates,
    )


@SIGNED
@pytest.mark.parametrize(
    ("doubt", "error"),
    [
        ({"revoked": True}, RevokedError),
        ({"expired": True}, CertificateError),
        ({"enrolled": False}, EnrolmentError),
    ],
)
def test_claim_15_a_peer_that_the_authority_does_not_vouch_for_gets_no_share(
    profile: MaskingProfile, doubt: dict[str, bool], error: type[IdentityError]
) -> None:
    """A revoked, expired or unknown peer in the directory stops a client before it shares anything."""
    session = make_session(4)
    terms = Terms(session=session, profile=profile, trust=doubted(**doubt))
    states, directory = advertise(terms)

    with pytest.raises(error, match="client-02"):
        create_sealed_shares(states[1], directory)
    fine = Terms(session=session, profile=profile, trust=doubted())
    states, directory = advertise(fine)
    assert create_sealed_shares(states[1], directory).message.sealed


def _forged_advertisements(terms: Terms) -> dict[str, tuple[KeyAdvertisement, type[ProtocolError]]]:
    """What a server may put in the place of client-02's advertisement, and what stops it."""
    stranger = ThrowawayAuthority.create(dict.fromkeys(names(4), 4), now=NOW).identity("client-02")
    neighbour, own = AUTHORITY.identity("client-03"), AUTHORITY.identity("client-02")
    again = replace(terms, session=replace(terms.session, attempt=2))
    old = create_key_advertisement(again, "client-02", own).message
    genuine = create_key_advertisement(terms, "client-02", own).message
    other = create_key_advertisement(terms, "client-02", own).message
    return {
        "of another authority": (
            create_key_advertisement(terms, "client-02", stranger).message,
            SignatureError,
        ),
        "signed by another client": (
            create_key_advertisement(terms, "client-02", neighbour).message,
            SignatureError,
        ),
        "unsigned": (create_key_advertisement(terms, "client-02").message, SignatureError),
        "with another mask key": (replace(genuine, mask_keys=other.mask_keys), SignatureError),
        "with another sealing key": (replace(genuine, sealing_key=other.sealing_key), SignatureError),
        "replayed": (old, ContextError),
        "replayed under this session": (replace(old, context=terms.context), SignatureError),
    }


@SIGNED
@pytest.mark.parametrize(
    "forgery", list(_forged_advertisements(signed_terms(make_session(4, threshold=3), ONE_ANSWER)))
)
def test_claim_15_keys_that_a_peer_did_not_sign_for_this_session_are_refused(
    profile: MaskingProfile, forgery: str
) -> None:
    """Substituted and replayed keys reach no client, whoever put them into the directory."""
    terms = signed_terms(make_session(4), profile)
    states, directory = advertise(terms)
    forged, error = _forged_advertisements(terms)[forgery]
    entries = [forged if entry.sender == 2 else entry for entry in directory.advertisements]

    with pytest.raises(error):
        create_sealed_shares(states[1], directory_of(terms, entries))


@SIGNED
def test_claim_15_keys_that_two_peers_advertise_are_refused(profile: MaskingProfile) -> None:
    """A peer that signs another one's key as its own is noticed."""
    terms = signed_terms(make_session(4), profile)
    states, directory = advertise(terms)
    second, third = directory.advertisements[1:3]
    copied = replace(second, mask_keys=third.mask_keys)
    signature = AUTHORITY.identity("client-02").sign(checks.ADVERTISEMENT, copied.signed_part())
    entries = [replace(copied, signature=signature) if e.sender == 2 else e for e in directory.advertisements]

    with pytest.raises(RosterError, match="key twice"):
        create_sealed_shares(states[1], directory_of(terms, entries))


@pytest.mark.parametrize("profile", ["one-answer", "consistency"])
def test_claim_15_a_revoked_client_costs_the_federation_nobody_else(profile: str) -> None:
    """The server refuses it at its keys, and the round goes on among the others."""
    plan = make_plan(f"masking.profile={profile}")
    authority = make_authority(plan)
    serial = authority.identity("a-03").certificate.serial
    trust = authority.view.updated(
        now=NOW,
        revocations=issue_revocations(
            authority.key, authority.certificate, serials=[serial], number=2, now=NOW, valid_for=1000
        ),
    )
    people = {
        name: Participant(
            name,
            plan=plan,
            secure_sum=build_secure_sum(plan, trust, authority.identity(name)),
            train=steady(0.01),
            examples=10,
        )
        for name in plan.ranks
    }
    session_server = SessionServer(plan, first_session(plan), build_secure_sum(plan, trust))
    network = InMemory(people)
    prepare_round(session_server, network)

    outcome = run_round(plan, session_server, initial(plan), network)

    assert outcome.dropped == {"a-03": "advertise_keys"}
    assert outcome.refusals["a-03"].startswith("RevokedError: ")
    assert outcome.survivors == ("a-01", "a-02", "b-01", "b-02", "b-03")


# Nine clients, threshold 5, quorum 3: a server that wants the sum over clients 1 and 2 alone must show every other one
# as dropped to five clients.
VICTIMS, OTHERS = (1, 2), (3, 4, 5, 6, 7, 8, 9)


def _left_out(me: int, count: int) -> list[int]:
    """Whom a client is told to have dropped: so many others, spread evenly."""
    start = OTHERS.index(me) + 1 if me in OTHERS else count * VICTIMS.index(me)
    return sorted(OTHERS[(start + step) % len(OTHERS)] for step in range(count))


def _split_lists(profile: MaskingProfile, left_out: int) -> tuple[Any, ...]:
    """Everyone's answer to a survivor list of its own."""
    session = make_session(9, segment(0, 50, names(9), quorum=3))
    terms = terms_of(session, profile)
    states, directory = advertise(terms)
    shared, deliveries = share(terms, states, directory)
    inputs = make_inputs(session)
    masked, uploads = mask(terms, shared, deliveries, inputs)
    signed = uploads if terms.trust is not None else None
    steps = {}
    for me, state in masked.items():
        gone = _left_out(me, left_out)
        listed = survivor_list(terms, sorted(set(masked) - set(gone)), gone, uploads=signed)
        steps[me] = create_revealed_shares(state, listed)
    return terms, states, uploads, inputs, steps


def test_claim_16_without_a_reveal_quorum_split_lists_open_a_small_sum() -> None:
    """The attack is real: clients that trust the server's list give away the sum of two, where three are the quorum."""
    terms, states, uploads, inputs, steps = _split_lists(SEMI_HONEST, left_out=4)
    revealed = {me: step.message for me, step in steps.items()}

    def recovered(kind: str, owner: int) -> Secret:
        shares = {
            me: getattr(m, kind)[owner, 0] for me, m in revealed.items() if (owner, 0) in getattr(m, kind)
        }
        helpers = sorted(shares)[:5]
        return shamir.Recovery.over(helpers).combine({me: shares[me] for me in helpers})

    keys = {gone: agreement.PrivateKey(recovered("mask_key_shares", gone)) for gone in OTHERS}
    known = {
        (gone, me): key.agree(states[me].mask_keys[0].public) for gone, key in keys.items() for me in VICTIMS
    }
    opened = uploads[1].segments[0] + uploads[2].segments[0]
    masks = SegmentMasks(context=terms.context, segment=0, binding=MODEL)
    masks.remove(opened, {me: recovered("self_mask_shares", me) for me in VICTIMS}, known)

    assert np.array_equal(opened, to_ring(inputs["client-01"][0].values + inputs["client-02"][0].values))


def test_claim_16_with_a_reveal_quorum_such_lists_open_nothing() -> None:
    """Each of the same lists has three holders and five survivors, but clients want to see more before they reveal."""
    terms, _, _, _, steps = _split_lists(ONE_ANSWER, left_out=4)

    assert terms.quorum(terms.session.segments[0]) == 6
    for step in steps.values():
        assert step.state.refused == (0,)
        assert not step.message.mask_key_shares
        assert not step.message.self_mask_shares


def test_claim_16_lists_that_satisfy_the_reveal_quorum_recover_no_mask_key() -> None:
    """With the shortest lists that clients answer, no other client is left out often enough to be taken off."""
    _, _, _, _, steps = _split_lists(ONE_ANSWER, left_out=3)

    given = [owner for step in steps.values() for owner, _ in step.message.mask_key_shares]
    assert all(step.state.refused == () for step in steps.values())
    assert max(given.count(owner) for owner in OTHERS) < 5


def test_claim_16_two_survivor_lists_cannot_both_be_signed_by_enough() -> None:
    """Under a signed list nobody reveals for a list that fewer than t signed, nor for signatures of another one."""
    session = make_session(9, segment(0, 5, names(9), quorum=3), threshold=7)
    terms = signed_terms(session, CONSISTENCY)
    states, directory = advertise(terms)
    shared, deliveries = share(terms, states, directory)
    masked, uploads = mask(terms, shared, deliveries, make_inputs(session))
    first = survivor_list(terms, range(1, 9), (9,), uploads=uploads)
    second = survivor_list(terms, (*range(1, 8), 9), (8,), uploads=uploads)
    halves = ((first, (1, 2, 3, 4, 8)), (second, (5, 6, 7, 9)))
    agreed: dict[int, Any] = {}
    signatures: dict[int, bytes] = {}
    for shown, told in halves:
        after, signed = agree(terms, masked, shown)
        agreed |= {me: after[me] for me in told}
        signatures |= {me: signed[me].signature for me in told}

    for shown, told in halves:
        own = {me: signatures[me] for me in told}
        every = {me: signature for me, signature in signatures.items() if me in shown.survivors}
        for me in told:
            with pytest.raises(BelowThresholdError, match="threshold=7"):
                reveal_agreed(agreed[me], SurvivorSignatures(context=terms.context, signatures=own))
            with pytest.raises(SignatureError):
                reveal_agreed(agreed[me], SurvivorSignatures(context=terms.context, signatures=every))


@EVERY_PROFILE
def test_claim_17_nobody_reveals_for_an_upload_of_another_view(profile: MaskingProfile) -> None:
    """A victim that was told of few participants has masked towards these alone; the others notice by its signature."""
    session = make_session(9, threshold=7)
    terms = terms_of(session, profile)
    states, directory = advertise(terms)
    shared, deliveries = share(terms, states, directory)
    # Seven are enough for the victim to go on.
    deliveries[1] = without(deliveries[1], 8, 9)
    masked, uploads = mask(terms, shared, deliveries, make_inputs(session))
    signed = uploads if terms.trust is not None else None
    everyone = survivor_list(terms, range(1, 10), uploads=signed)
    few = survivor_list(terms, range(1, 8), uploads=signed)

    if profile is SEMI_HONEST:
        # Who trusts the server's list cannot tell.
        assert create_revealed_shares(masked[2], everyone).message.self_mask_shares
        return
    for me in range(2, 10):
        with pytest.raises(SignatureError, match="client-01"):
            create_revealed_shares(masked[me], everyone)
        with pytest.raises(SignatureError, match="client-01"):
            create_signed_survivors(masked[me], everyone, AUTHORITY.identity(session.client_at(me)))
    with pytest.raises(RosterError):
        create_revealed_shares(masked[1], everyone)
    with pytest.raises(SignatureError, match="client-02"):
        create_revealed_shares(masked[1], few)


def test_claim_18_older_lists_than_the_known_ones_are_refused() -> None:
    """After a revocation nobody can be led back to the roster or the revocation list from before it.

    Nor can whoever sees the newest roster for the first time: it names the list that it must be used with.
    """
    known = doubted(revoked=True)

    with pytest.raises(EnrolmentError, match="roster number 1 is older than number 2"):
        known.updated(now=known.now, roster=TRUST.roster)
    with pytest.raises(EnrolmentError, match="revocation list number 1 is older than number 2"):
        known.updated(now=known.now, revocations=TRUST.revocations)
    with pytest.raises(EnrolmentError, match="two different revocation lists with number 2"):
        known.updated(now=known.now, revocations=doubted().revocations)
    with pytest.raises(
        EnrolmentError, match="must be used with revocation list 2 or a newer one, not with 1"
    ):
        TRUST.updated(now=known.now, roster=known.roster)
    assert known.updated(now=known.now + 1, roster=known.roster).roster == known.roster


def test_claim_18_the_authority_signs_nothing_beside_an_older_list(tmp_path: Path) -> None:
    """The list from before a revocation is put back into the authority's folder: no command goes on from it."""
    office, common = tmp_path / "office", {"passphrase": None, "now": NOW}
    authority.create_authority(office, name="test", days=30, **common)
    for client in ("a-01", "a-02"):
        authority.enrol(office, client=client, rank=2, days=10, out=None, client_passphrase=None, **common)
    older = (office / "revocations.crl").read_bytes()
    authority.revoke(office, client="a-01", **common)
    newest = (office / "revocations.crl").read_bytes()

    (office / "revocations.crl").write_bytes(older)
    with pytest.raises(EnrolmentError, match=r"revocations\.crl is revocation list 1, and roster 4"):
        authority.renew_lists(office, **common)
    (office / "revocations.crl").write_bytes(newest)
    (office / "certificates" / "a-02.pem").write_bytes((office / "certificates" / "a-01.pem").read_bytes())
    with pytest.raises(EnrolmentError, match=r"a-02\.pem, of client 'a-01'"):
        authority.revoke(office, client="a-02", **common)


@pytest.mark.parametrize("passphrase", [None, Secret(b"correct horse battery staple")], ids=repr)
def test_claim_19_a_private_key_is_its_owners_alone(tmp_path: Path, passphrase: Secret | None) -> None:
    """Its file has mode 0600 and is encrypted if a passphrase was given; one that others can open is not read."""
    office, folder = tmp_path / "office", tmp_path / "client"
    authority.create_authority(office, name="test", days=30, passphrase=passphrase, now=NOW)
    authority.enrol(
        office,
        client="a-01",
        rank=2,
        days=10,
        out=folder,
        passphrase=passphrase,
        client_passphrase=passphrase,
        now=NOW,
    )
    path = folder / "client.key"

    identity = load_identity(folder, passphrase=passphrase)

    assert identity.client == "a-01"
    for private in (path, *office.glob("*.key")):
        assert private.stat().st_mode & 0o777 == 0o600
        assert (b"ENCRYPTED" in private.read_bytes()) == (passphrase is not None)
        assert bytes(identity.key.secret) not in private.read_bytes()
    with pytest.raises(KeyFileError, match="passphrase"):
        load_identity(folder, passphrase=Secret(b"wrong"))
    for mode in (0o640, 0o604, 0o660, 0o602):
        path.chmod(mode)
        with pytest.raises(KeyFileError, match=f"mode 0{mode:o} opens the private key to others"):
            load_identity(folder, passphrase=passphrase)


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


def _a_logged_run(folder: Path) -> list[str]:
    """A run folder whose events are those of one session; its lines."""
    plan = make_plan()
    made = RunFolder.create(folder, plan.config)
    session_server = SessionServer(plan, first_session(plan), server_sum(plan), log=made.log)
    prepare_round(session_server, InMemory(participants(plan), silent_from={"a-01": "share_keys"}))
    made.log.append(Entry.of_run(EventKind.STEP_CHECKED, reason="scaled"))
    made.close()
    return (folder / "events.jsonl").read_text().splitlines()


def test_claim_22_a_changed_line_of_the_log_is_noticed(tmp_path: Path) -> None:
    """Each line but the last, changed in a character, left out, or exchanged with the next, is named on opening."""
    folder = tmp_path / "run"
    lines = _a_logged_run(folder)
    assert len(lines) == 3

    for number in range(len(lines) - 1):
        before, line, after = lines[:number], lines[number], lines[number + 1 :]
        for tampered in (
            [*before, line.replace('"number":', '"number": '), *after],
            [*before, line.replace('"time":1', '"time":2'), *after],
            [*before, *after],
            [*before, after[0], line, *after[1:]],
            [*before, line, line, *after],
        ):
            (folder / "events.jsonl").write_text("".join(each + "\n" for each in tampered))

            with pytest.raises(RunFolderError, match=rf"events\.jsonl line {number + 1}|line {number + 2}"):
                RunFolder.open(folder)


def test_claim_22_a_torn_line_is_no_tampering(tmp_path: Path) -> None:
    """What a crash left of the last line goes, and everything before it stays."""
    folder = tmp_path / "run"
    lines = _a_logged_run(folder)
    (folder / "events.jsonl").write_text("".join(line + "\n" for line in lines[:-1]) + lines[-1][:50])

    opened = RunFolder.open(folder)
    opened.log.append(Entry.of_run(EventKind.RUN_FINISHED, rounds=0, adapter_file="ab" * 32))
    opened.close()

    assert (folder / "events.jsonl").read_text().splitlines()[:-1] == lines[:-1]


def test_claim_22_the_head_is_what_a_rewritten_chain_cannot_have(tmp_path: Path) -> None:
    """The limit is true: a chain that was written anew opens, and only a head that is known elsewhere tells."""
    folder = tmp_path / "run"
    lines = _a_logged_run(folder)
    opened = RunFolder.open(folder)
    known = opened.log.head
    named = {"run": opened.run_id.hex(), "config": opened.config.digest().hex()}
    opened.close()

    AuditLog.create(folder / "events.jsonl", Entry.of_run(EventKind.RUN_CREATED, **named))
    again = RunFolder.open(folder)

    assert len(again.log) < len(lines)
    assert again.log.head != known
