"""Masking as a whole: exact sums whoever drops out, uploads that look uniform, and masks that cancel for equals only."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.errors import BelowThresholdError, RosterError, SessionError, ThresholdError
from protocols.identity.trust import ThrowawayAuthority
from protocols.interface import SegmentInput
from protocols.masking import client as masking_client
from protocols.masking.masks import SegmentMasks
from protocols.masking.messages import MaskedInput
from protocols.masking.secure_sum import Masking
from protocols.masking.server import opening
from protocols.masking.terms import MaskingTerms
from protocols.primitives.secret import Secret
from protocols.profiles import CONSISTENCY, ONE_ANSWER, SEMI_HONEST, MaskingProfile
from protocols.ring import RingVector
from protocols.run import run_session
from protocols.session import Session
from tests.contracts.sessions import (
    LARGEST_SUM,
    MODEL,
    OTHER_MODEL,
    PROPERTY,
    Inputs,
    Play,
    foretell,
    largest_sum,
    make_inputs,
    make_session,
    names,
    plain_sum,
    same_bindings,
    segment,
    sessions,
    silences,
)
from tests.protocols.masking.parties import (
    AUTHORITY,
    NOW,
    TRUST,
    EveryonesMasking,
    ReproducibleMasking,
    advertise,
    as_terms,
    mask,
    share,
    signed_terms,
    stream,
)

STAGES = Masking().stages
OTHER_AUTHORITY = ThrowawayAuthority.create(dict.fromkeys(names(4), 4), now=NOW)
STAY = "stay"
WORDS = 100_000

# 255 degrees of freedom: mean 255, standard deviation 22.6. Uniform bytes exceed this once in more than 10^9 draws.
UNIFORM_BELOW = 400.0


# Drop-outs.


@pytest.mark.parametrize("threshold", [3, 4])
@pytest.mark.parametrize("first", [STAY, *STAGES])
def test_every_pattern_of_drop_outs_of_four(first: str, threshold: int) -> None:
    """All 5^4 ways in which four clients stay or fall silent give the survivors' exact sums or end by name."""
    members = names(4)
    session = make_session(4, segment(0, 3, members, 3), segment(1, 2, members[1:], 3), threshold=threshold)
    inputs, bindings = make_inputs(session), same_bindings(session)
    for others in itertools.product((STAY, *STAGES), repeat=3):
        plan = dict(zip(members, (first, *others), strict=True))
        silent = {member: stage for member, stage in plan.items() if stage != STAY}
        # The rule, spelt out: enough answers at each stage, a sum over those who uploaded, a quorum per segment.
        present = [[m for m in members if m not in silent or STAGES.index(silent[m]) > at] for at in range(4)]
        uploaded = tuple(present[2])
        expected = {
            part.index: [
                sum(int(inputs[m][part.index].values[at]) for m in uploaded if m in part.members)
                for at in range(part.length)
            ]
            for part in session.segments
            if sum(m in part.members for m in uploaded) >= part.quorum
        }

        if min(map(len, present)) < threshold:
            with pytest.raises(BelowThresholdError):
                run_session(Masking(), session, inputs, bindings=bindings, silent_from=silent)
        else:
            result = run_session(Masking(), session, inputs, bindings=bindings, silent_from=silent)

            assert result.survivors == uploaded, plan
            assert {index: values.tolist() for index, values in result.sums.items()} == expected, plan
            assert set(result.refused) == {0, 1} - set(expected), plan


@settings(PROPERTY, max_examples=100)
@given(data=st.data(), session=sessions(max_members=9, max_segments=4), seed=st.integers(0, 2**32 - 1))
def test_drop_outs_of_up_to_nine(data: st.DataObject, session: Session, seed: int) -> None:
    """With segments and quorums of any shape, the outcome is the one worked out independently."""
    silent = data.draw(silences(session, STAGES))
    inputs, bindings = make_inputs(session, seed=seed), same_bindings(session)
    outcome = foretell(session, inputs, stages=STAGES, input_stage="mask_input", silent_from=silent)

    if outcome is None:
        with pytest.raises(BelowThresholdError):
            run_session(Masking(), session, inputs, bindings=bindings, silent_from=silent)
    else:
        result = run_session(Masking(), session, inputs, bindings=bindings, silent_from=silent)

        assert result.survivors == outcome.survivors
        assert {index: values.tolist() for index, values in result.sums.items()} == outcome.sums
        assert set(result.refused) == {s.index for s in session.segments} - set(outcome.open_segments)


@pytest.mark.parametrize(("gone", "opens"), [(0, True), (1, True), (2, False)])
def test_a_client_against_one_answer_servers_wants_more_than_the_quorum(
    gone: int,
    opens: bool,  # noqa: FBT001
) -> None:
    """With eleven members, one of them corrupt, a segment of four holders and quorum two opens over three, not two.

    By hand: t = 7, and the list must show more than 1 + 3 * (11 - 7) / (11 - 1) = 2.2 holders.
    """
    members = names(11)
    part = segment(1, 4, members[:6], 2, holders=members[:4])
    session = make_session(11, segment(0, 3, members, 2), part, threshold=7)
    inputs, silent = make_inputs(session), dict.fromkeys(members[:gone], "mask_input")

    result = run_session(
        EveryonesMasking(ONE_ANSWER), session, inputs, bindings=same_bindings(session), silent_from=silent
    )

    expected = {index: plain_sum(inputs, session.segments[index], members[gone:]) for index in (0, 1)}
    if not opens:
        del expected[1]
        assert "2 surviving holders, quorum 3" in result.refused[1]
    assert {index: values.tolist() for index, values in result.sums.items()} == expected


@pytest.mark.parametrize("profile", [ONE_ANSWER, CONSISTENCY], ids=lambda profile: profile.name)
def test_profiles_against_malicious_servers_need_identities(profile: MaskingProfile) -> None:
    """Without anybody to vouch for signatures neither a server nor a client of such a profile can be made."""
    session, masking = make_session(threshold=4), Masking(profile)

    for make in (lambda: masking.server(session), lambda: masking.client(session, "client-01")):
        with pytest.raises(SessionError, match="identities"):
            make()


@pytest.mark.parametrize(
    ("profile", "count", "threshold"),
    [(SEMI_HONEST, 4, 3), (ONE_ANSWER, 11, 7), (CONSISTENCY, 5, 4), (CONSISTENCY, 9, 7)],
    ids=lambda value: value.name if isinstance(value, MaskingProfile) else None,
)
def test_a_session_meets_the_threshold_of_its_profile(
    profile: MaskingProfile, count: int, threshold: int
) -> None:
    """The profile's threshold is accepted; the least that a session allows below it raises ThresholdError."""
    good, low = (make_session(count, threshold=t) for t in (threshold, count // 2 + 1))

    assert EveryonesMasking(profile).server(good).requests()
    if low.threshold < threshold:
        with pytest.raises(ThresholdError, match=profile.name):
            EveryonesMasking(profile).server(low)
        with pytest.raises(ThresholdError, match=profile.name):
            EveryonesMasking(profile).client(low, "client-01")


@pytest.mark.parametrize("identity", [None, "client-02"])
def test_a_client_signs_as_itself_or_not_at_all(identity: str | None) -> None:
    """Where messages are signed, a client without an identity, or with another's, raises RosterError."""
    masking = Masking(ONE_ANSWER, trust=TRUST, identity=AUTHORITY.identity(identity) if identity else None)

    with pytest.raises(RosterError, match="client-01"):
        masking.client(make_session(), "client-01")


def test_the_stages_are_those_of_the_profile() -> None:
    """Only a signed survivor list takes a fifth stage, between the inputs and the shares."""
    four = ("advertise_keys", "share_keys", "mask_input", "reveal_shares")

    assert Masking().stages == EveryonesMasking(ONE_ANSWER).stages == four
    assert EveryonesMasking(CONSISTENCY).stages == (*four[:3], "agree_survivors", four[3])


def test_profiles_and_rosters_do_not_mix() -> None:
    """Clients of one session under other profiles or rosters are in different contexts, so nothing of theirs counts."""
    session = make_session()
    terms = [
        as_terms(session),
        signed_terms(session, SEMI_HONEST),
        signed_terms(session, ONE_ANSWER),
        signed_terms(session, CONSISTENCY),
        MaskingTerms(session=session, profile=CONSISTENCY, trust=OTHER_AUTHORITY.view),
        MaskingTerms(session=replace(session, attempt=2), profile=CONSISTENCY, trust=TRUST),
    ]

    contexts = {each.context for each in terms}

    assert len(contexts) == len(terms)
    assert session.context not in contexts


# What an upload looks like.


def chi_squares(vector: RingVector) -> list[float]:
    """How far each of the four bytes of the words is from uniform."""
    lanes = vector.astype("<u4").view(np.uint8).reshape(-1, 4).T
    expected = len(vector) / 256
    return [float(((np.bincount(lane, minlength=256) - expected) ** 2 / expected).sum()) for lane in lanes]


def wide_session(**terms: Any) -> Session:
    """Two clients, one long segment, the largest bound."""
    members = names(2)
    return make_session(2, segment(0, WORDS, members), input_bound=LARGEST_SUM // 2, **terms)


def constant_inputs(session: Session, value: int, binding: bytes = MODEL) -> Inputs:
    """The same value everywhere."""
    return {
        member: {
            part.index: SegmentInput(values=np.full(part.length, value, dtype=np.int64), binding=binding)
            for part in session.segments_of(member)
        }
        for member in session.members
    }


def uploads(session: Session, inputs: Inputs, seed: str = "") -> dict[str, MaskedInput]:
    """What each client uploads when its keys and seeds come from a stream."""
    play = Play(ReproducibleMasking(seed), session, inputs)
    play.play_before("mask_input")
    return {member: MaskedInput.from_bytes(reply) for member, reply in play.answers("mask_input").items()}


@pytest.mark.parametrize("value", [0, LARGEST_SUM // 2, -(LARGEST_SUM // 2)])
@pytest.mark.parametrize("member", names(2))
def test_a_masked_vector_looks_uniform(member: str, value: int) -> None:
    """Every byte of an upload is uniform, be the input all zero or all extreme."""
    session = wide_session()

    vector = uploads(session, constant_inputs(session, value))[member].segments[0]

    assert max(chi_squares(vector)) < UNIFORM_BELOW


@pytest.mark.parametrize("bits", [16, 20, 24])
@pytest.mark.parametrize("sign", [0, 1, -1])
def test_a_masked_vector_looks_uniform_in_a_narrow_ring(sign: int, bits: int) -> None:
    """The lowest and the highest eight bits of a packed upload are uniform, and nothing above the ring travels."""
    bound = largest_sum(bits) // 2
    session = make_session(2, segment(0, WORDS, names(2)), input_bound=bound, ring_bits=bits)

    vector = uploads(session, constant_inputs(session, sign * bound))["client-01"].segments[0]

    for lane in (vector & np.uint32(0xFF), vector >> np.uint32(bits - 8)):
        counts = np.bincount(lane, minlength=256)
        assert len(counts) == 256
        assert float(((counts - WORDS / 256) ** 2).sum()) / (WORDS / 256) < UNIFORM_BELOW


@pytest.mark.parametrize(
    "biased",
    [
        np.zeros(WORDS, dtype=np.uint32),
        np.arange(WORDS, dtype=np.uint32),
        np.random.default_rng(0).integers(0, 2**31, WORDS, dtype=np.uint32),
        np.random.default_rng(0).integers(0, 2**32 - 2**26, WORDS, dtype=np.uint32),
    ],
    ids=["zeros", "small", "half of the ring", "all but the top sixty-fourth"],
)
def test_the_check_of_uniformity_sees_what_is_not(biased: RingVector) -> None:
    """Unmasked values, and masks that do not reach the top of the ring, fail the same threshold by far."""
    assert max(chi_squares(biased)) > 2 * UNIFORM_BELOW


DIFFERENT: dict[str, tuple[dict[str, Any], bytes]] = {
    "attempt": ({"attempt": 2}, MODEL),
    "round": ({"round": 2}, MODEL),
    "run": ({"run": bytes(16)}, MODEL),
    "configuration": ({"config_digest": bytes(32)}, MODEL),
    "model": ({}, OTHER_MODEL),
}


@pytest.mark.parametrize("what", DIFFERENT)
@pytest.mark.parametrize("member", names(2))
def test_uploads_of_two_sessions_are_unrelated(member: str, what: str) -> None:
    """The same input under the same keys and seeds is masked afresh when session or model differ: no difference leaks."""
    terms, binding = DIFFERENT[what]
    one, other = wide_session(), wide_session(**terms)

    first = uploads(one, constant_inputs(one, 7))[member].segments[0]
    second = uploads(other, constant_inputs(other, 7, binding))[member].segments[0]

    assert max(chi_squares(first - second)) < UNIFORM_BELOW
    assert np.count_nonzero(first == second) <= 3


def test_the_same_session_gives_the_same_upload() -> None:
    """With everything equal the uploads are equal, so the test above sees the difference it is about."""
    session = wide_session()

    first, second = (uploads(session, constant_inputs(session, 7)) for _ in range(2))

    assert all((first[m].segments[0] == second[m].segments[0]).all() for m in session.members)


def test_segments_of_one_upload_are_unrelated() -> None:
    """Equal values in two segments are masked by different streams, even where the seeds were equal."""
    members = names(2)
    session = make_session(2, segment(0, WORDS, members), segment(1, WORDS, members))

    upload = uploads(session, constant_inputs(session, 7))["client-01"].segments

    assert max(chi_squares(upload[0] - upload[1])) < UNIFORM_BELOW


def test_self_masks_of_two_segments_differ_for_one_seed() -> None:
    """One seed expands to unrelated masks under another segment, owner, session or model."""
    seed = Secret(bytes(32))
    masks = SegmentMasks(context=bytes(32), segment=0, binding=MODEL)
    variants = [
        (masks, 1),
        (masks, 2),
        (replace(masks, segment=1), 1),
        (replace(masks, context=b"\x01" * 32), 1),
        (replace(masks, binding=OTHER_MODEL), 1),
    ]
    vectors = [np.zeros(1000, dtype=np.uint32) for _ in variants]

    for vector, (source, owner) in zip(vectors, variants, strict=True):
        source.hide(vector, seed, {}, owner=owner)

    for one, other in itertools.combinations(vectors, 2):
        assert np.count_nonzero(one == other) <= 1


def pairwise(masks: SegmentMasks, secret: Secret, *, owner: int, peer: int, length: int = 1000) -> RingVector:
    """What the owner adds towards one peer, alone."""
    with_peer, without = np.zeros(length, dtype=np.uint32), np.zeros(length, dtype=np.uint32)
    masks.hide(with_peer, Secret(bytes(32)), {peer: secret}, owner=owner)
    masks.hide(without, Secret(bytes(32)), {}, owner=owner)
    return with_peer - without


def test_pairwise_masks_cancel_between_the_two() -> None:
    """What the earlier client adds towards the later one, the later one takes away, and nobody else does."""
    secret = Secret(bytes(range(32)))
    masks = SegmentMasks(context=bytes(32), segment=0, binding=MODEL)

    mine = pairwise(masks, secret, owner=3, peer=8)
    theirs = pairwise(masks, secret, owner=8, peer=3)
    third = pairwise(masks, secret, owner=3, peer=9)

    assert np.count_nonzero(mine) > 990
    assert not (mine + theirs).any()
    assert np.count_nonzero(third + theirs) > 990


@PROPERTY
@given(data=st.data(), count=st.integers(1, 5), seed=st.integers(0, 2**32 - 1))
def test_what_is_removed_is_what_did_not_cancel(data: st.DataObject, count: int, seed: int) -> None:
    """Whoever of some clients drops out, removing the survivors' self masks and half pairs leaves their inputs."""
    everyone = range(1, count + 1)
    gone = data.draw(st.sets(st.sampled_from(everyone), max_size=count - 1))
    draw = stream(str(seed))
    masks = SegmentMasks(context=draw(32), segment=3, binding=draw(32))
    seeds = {me: Secret(draw(32)) for me in everyone}
    secrets = {frozenset(pair): Secret(draw(32)) for pair in itertools.combinations(everyone, 2)}
    total = np.zeros(7, dtype=np.uint32)
    for me in sorted(set(everyone) - gone):
        upload = np.full(7, me, dtype=np.uint32)
        partners = {peer: secrets[frozenset((me, peer))] for peer in everyone if peer != me}
        masks.hide(upload, seeds[me], partners, owner=me)
        total += upload

    alive = sorted(set(everyone) - gone)
    uncancelled = {(lost, me): secrets[frozenset((lost, me))] for lost in gone for me in alive}
    masks.remove(total, {me: seeds[me] for me in alive}, uncancelled)

    assert total.tolist() == [sum(alive)] * 7


# What does not cancel.


@pytest.mark.parametrize("odd", names(3))
def test_clients_bound_to_different_models_do_not_cancel(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One client that was given another model turns the sum into noise, as a server sees that does not refuse it."""
    monkeypatch.setattr(opening, "reason_to_reject", lambda *_args, **_terms: "")
    session = make_session(3, segment(0, WORDS, names(3)), input_bound=LARGEST_SUM // 3)
    inputs = constant_inputs(session, 5)
    inputs[odd] = constant_inputs(session, 5, OTHER_MODEL)[odd]

    result = run_session(ReproducibleMasking(), session, inputs, bindings=same_bindings(session))

    assert max(chi_squares(result.sums[0].astype(np.uint32))) < UNIFORM_BELOW
    assert np.count_nonzero(result.sums[0] == 15) <= 3


@pytest.mark.parametrize("odd", names(3))
def test_noise_is_refused_where_the_bound_leaves_room(odd: str) -> None:
    """A sum that did not cancel is recognised up to the largest bound: the segment stays closed and says why."""
    for bound in (1000, LARGEST_SUM // 3):
        session = make_session(3, segment(0, 64, names(3)), segment(1, 10, names(3)), input_bound=bound)
        inputs = constant_inputs(session, 5)
        inputs[odd][0] = constant_inputs(session, 5, OTHER_MODEL)[odd][0]

        result = run_session(Masking(), session, inputs, bindings=same_bindings(session))

        assert result.sums[1].tolist() == [15] * 10
        assert f"leaves [-{3 * bound}, {3 * bound}]" in result.refused[0]


@pytest.mark.parametrize("edge", [0, 2, 2**14 - 1, 2**14, 2**15 - 1, 2**15, -(2**14), -(2**15)])
def test_where_noise_follows_a_sum_opens_wherever_it_was_put(
    edge: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one client changes of it is its input at most, on every side of every edge of the ring; nothing is refused."""
    monkeypatch.setattr(masking_client, "check_inputs", lambda *_: None)
    session = make_session(3, segment(0, 1, names(3)), input_bound=1, ring_bits=16)

    def opened(move: int) -> int:
        inputs = constant_inputs(session, 0)
        for client, value in zip(names(3), (edge, move, 0), strict=True):
            inputs[client][0] = replace(inputs[client][0], values=np.array([value], dtype=np.int64))
        result = run_session(Masking(noise_follows=True), session, inputs, bindings=same_bindings(session))
        return int(result.sums[0][0])

    sums = [opened(move) for move in (-1, 0, 1)]

    assert max(abs(sums[0] - sums[1]), abs(sums[1] - sums[2])) <= 1
    assert sums[1] == (edge if abs(edge) <= 2**14 else 2**15 - edge if edge > 0 else -(2**15) - edge)


def test_what_the_server_holds_of_a_refused_segment_is_not_its_sum() -> None:
    """The accumulator of a segment that stays closed keeps its masks: it is uniform and not the plain sum."""
    session = make_session(4, segment(0, WORDS, names(4), 3), segment(1, WORDS, names(3), 3))
    inputs = constant_inputs(session, 5)
    play = Play(ReproducibleMasking(), session, inputs)
    play.play_before("mask_input")
    play.play("mask_input", ["client-02"])
    held = play.server._stage._masked.sums  # type: ignore[attr-defined]
    play.play_after("mask_input")

    result = play.server.result(same_bindings(session))

    assert result.sums[0].tolist() == plain_sum(
        inputs, session.segments[0], ("client-01", "client-03", "client-04")
    )
    assert set(result.refused) == {1}
    assert max(chi_squares(held[1])) < UNIFORM_BELOW
    assert np.count_nonzero(held[1] == 10) <= 3


def test_a_late_upload_stays_hidden_though_its_key_is_recovered() -> None:
    """Without its pairwise masks a late upload is still uniform; only its self mask, never revealed, gives the input."""
    session = make_session(3, segment(0, WORDS, names(3)))
    inputs = constant_inputs(session, 5)
    advertised, directory = advertise(session)
    shared, deliveries = share(session, advertised, directory)
    late = mask(session, shared, deliveries, inputs)[1][2].segments[0].copy()
    masks = SegmentMasks(context=as_terms(session).context, segment=0, binding=MODEL)

    uncancelled = {
        (2, peer): advertised[2].mask_keys[0].agree(advertised[peer].mask_keys[0].public) for peer in (1, 3)
    }
    for peer in (1, 3):
        late += pairwise(masks, uncancelled[2, peer], owner=peer, peer=2, length=WORDS)
    without_pairwise = late.copy()
    masks.remove(late, {2: shared[2].seeds[0]}, {})

    assert max(chi_squares(without_pairwise)) < UNIFORM_BELOW
    assert late.tolist() == [5] * WORDS


def test_one_honest_peer_hides_an_upload() -> None:
    """With the self mask and all pairwise masks but one removed, an upload is still uniform."""
    session = make_session(3, segment(0, WORDS, names(3)))
    advertised, directory = advertise(session)
    shared, deliveries = share(session, advertised, directory)
    upload = mask(session, shared, deliveries, constant_inputs(session, 5))[1][2].segments[0].copy()
    masks = SegmentMasks(context=as_terms(session).context, segment=0, binding=MODEL)

    masks.remove(upload, {2: shared[2].seeds[0]}, {})
    secret = advertised[2].mask_keys[0].agree(advertised[1].mask_keys[0].public)
    upload += pairwise(masks, secret, owner=1, peer=2, length=WORDS)

    assert max(chi_squares(upload)) < UNIFORM_BELOW
