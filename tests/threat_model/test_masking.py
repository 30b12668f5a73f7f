"""Claims on masked sums: threat_model.md, claims 1 to 8, 14, 16 and 17."""

import math
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from protocols.errors import (
    BelowThresholdError,
    CapacityError,
    InputError,
    RosterError,
    SealError,
    SignatureError,
    StageError,
    WireError,
)
from protocols.interface import SegmentInput
from protocols.masking.client import (
    create_masked_input,
    create_revealed_shares,
    create_signed_survivors,
    reveal_agreed,
)
from protocols.masking.masks import SegmentMasks
from protocols.masking.messages import MaskedInput, SurvivorSignatures
from protocols.masking.secure_sum import Masking
from protocols.masking.terms import MaskingTerms
from protocols.primitives import agreement, sealed, shamir
from protocols.primitives.secret import Secret
from protocols.profiles import CONSISTENCY, ONE_ANSWER, SEMI_HONEST, MaskingProfile
from protocols.ring import RING_BITS, centred, to_ring
from protocols.run import run_session
from protocols.session import Session
from rbla_secure.federation.client import memory
from rbla_secure.federation.exchange import Parcel
from rbla_secure.federation.messages import StageRequest
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
    EveryonesMasking,
    advertise,
    agree,
    as_terms,
    mask,
    reveal,
    share,
    signed_terms,
    survivor_list,
    with_sealed,
    without,
)
from tests.support.federations import InMemory
from tests.threat_model.six_clients import EVERY_PROFILE, initial, make_plan, participants, play


def looks_uniform(vector: npt.NDArray[np.uint32]) -> bool:
    """A chi-square test of the bytes of a ring vector, with a false alarm in about 1e-9 of all cases."""
    counts = np.bincount(vector.view(np.uint8), minlength=256)
    expected = counts.sum() / 256
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return abs(statistic - 255) < 6 * math.sqrt(2 * 255)


def terms_of(session: Session, profile: MaskingProfile) -> MaskingTerms:
    """A session under a profile; everyone signs where it asks for signatures."""
    return as_terms(session) if profile is SEMI_HONEST else signed_terms(session, profile)


# Profiles in which a client reveals shares for the first survivor list it is given; all of them.
AT_ONCE = pytest.mark.parametrize("profile", [SEMI_HONEST, ONE_ANSWER], ids=lambda profile: profile.name)


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
