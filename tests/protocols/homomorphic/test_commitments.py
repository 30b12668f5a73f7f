"""Ciphertexts can be computed with, so everybody commits before anybody uploads: what that stops, and what it does not."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from protocols.errors import (
    BelowThresholdError,
    CiphertextError,
    CommitmentError,
    ContextError,
    EnrolmentError,
    InputError,
    ProtocolError,
    QuorumError,
    RevokedError,
    StageError,
)
from protocols.homomorphic import checks, polynomials, scheme
from protocols.homomorphic.client import signed
from protocols.homomorphic.fields import to_slots
from protocols.homomorphic.messages import EncryptedInput, EncryptedSum, digest_of
from protocols.homomorphic.parameters import BFV_2X20
from protocols.homomorphic.receipts import CommittedInputs, FixedInputs, InputReceipt
from protocols.homomorphic.service_messages import Setup
from protocols.homomorphic.services import KeyedService, LocalChannel
from protocols.homomorphic.terms import Services
from protocols.identity import ThrowawayAuthority
from protocols.interface import SegmentInput
from protocols.primitives.revocations import issue_revocations
from protocols.session import Session
from tests.contracts.sessions import MODEL, OTHER_MODEL, make_session, names, same_bindings, segment
from tests.protocols.homomorphic.parties import (
    AUTHORITY,
    NOW,
    SERVICE_KEYS,
    TRUST,
    VERIFIED,
    Meeting,
    charge_for,
    make_decryptor,
    service_identity,
)

MEMBERS = names(4)
VICTIM, EVIL = MEMBERS[0], MEMBERS[3]
SESSION = make_session(4, segment(0, 40, MEMBERS, 3), segment(1, 20, MEMBERS, 3))
MODES = pytest.mark.parametrize("services", [Services(), VERIFIED], ids=["alone", "verified"])


def meeting(services: Services = VERIFIED, session: Session = SESSION, **charge: Any) -> Meeting:
    return Meeting.of(session, charge_for(services=services, **charge))


def cancelling(play: Meeting, others: list[EncryptedInput]) -> dict[int, bytes]:
    """An encryption of what keeps every field in range, less all of the others' ciphertexts but the victim's."""
    profile, moduli = BFV_2X20, BFV_2X20.ciphertext_moduli
    primes = np.array(moduli, dtype=np.uint64)[:, None]
    public = scheme.public_key(profile, play.key.key)
    found = {}
    for part in play.session.segments:
        places = profile.ciphertexts(part.length) * profile.values_per_ciphertext
        filling = np.full(places, 2 * profile.offset(4), dtype=np.int64)
        total = public.encrypt(to_slots(filling, profile, members=4))
        for other in others:
            pairs = polynomials.decode(
                other.ciphertexts[part.index], count=len(total), moduli=moduli, degree=profile.degree
            )
            polynomials.add(total, (primes - pairs) % primes, moduli)
        found[part.index] = polynomials.encode(total, moduli)
    return found


def evil_input(play: Meeting, ciphertexts: dict[int, bytes]) -> EncryptedInput:
    """Such ciphertexts with a receipt that is properly signed."""
    honest = play.made(EVIL).receipt
    receipt = replace(honest, digests={index: digest_of(data) for index, data in ciphertexts.items()})
    return EncryptedInput(receipt=signed(receipt, AUTHORITY.identity(EVIL)), ciphertexts=ciphertexts)


@MODES
def test_who_sees_the_others_ciphertexts_first_has_one_of_them_opened(services: Services) -> None:
    """The attack is real: in a session that commits to nothing in advance, the verified sum is the victim's update."""
    play = meeting(services)
    inputs = {member: play.made(member) for member in MEMBERS[:3]}
    inputs[EVIL] = evil_input(play, cancelling(play, [inputs[MEMBERS[1]], inputs[MEMBERS[2]]]))
    # Everybody's list is made when all ciphertexts are on the table: that is no commitment.
    for member in MEMBERS:
        play.server.receive(member, inputs[member].receipt.to_bytes())
    play.server.close_stage()
    play.server.requests()
    for member in MEMBERS:
        play.server.receive(member, inputs[member].to_bytes())

    sums = play.sums(same_bindings(SESSION))

    assert sums == {index: given.values.tolist() for index, given in play.inputs[VICTIM].items()}


@MODES
def test_who_has_committed_cannot_cancel_the_others(services: Services) -> None:
    """What was computed from the others' ciphertexts is not what was committed to: refused, and the sum is the honest one."""
    play = meeting(services)
    play.fix()
    uploads = {member: EncryptedInput.from_bytes(play.upload(member)) for member in MEMBERS}
    play.take(*MEMBERS[:3])
    forged = cancelling_after(play, [uploads[MEMBERS[1]], uploads[MEMBERS[2]]])

    for odd in (
        replace(uploads[EVIL], ciphertexts=forged),
        replace(uploads[EVIL], ciphertexts=uploads[VICTIM].ciphertexts),
        resigned(uploads[EVIL], forged),
    ):
        with pytest.raises((CiphertextError, CommitmentError)):
            play.server.receive(EVIL, odd.to_bytes())

    sums = play.sums(same_bindings(SESSION))
    honest = {i: sum(play.inputs[m][i].values for m in MEMBERS[:3]).tolist() for i in (0, 1)}
    assert sums == honest


def cancelling_after(play: Meeting, others: list[EncryptedInput]) -> dict[int, bytes]:
    """The same, once the round key is not asked for any more: the services' key is what it is."""
    twin = meeting(play.charge.services)
    return cancelling(twin, others)


def resigned(honest: EncryptedInput, ciphertexts: dict[int, bytes]) -> EncryptedInput:
    receipt = replace(honest.receipt, digests={index: digest_of(data) for index, data in ciphertexts.items()})
    return EncryptedInput(receipt=signed(receipt, AUTHORITY.identity(EVIL)), ciphertexts=ciphertexts)


def test_the_verifier_adds_only_what_was_committed_to() -> None:
    """An aggregator that takes other ciphertexts does not get them past the verifier."""
    play = meeting()
    play.fix()
    upload = EncryptedInput.from_bytes(play.upload(EVIL))
    other = replace(upload, ciphertexts=EncryptedInput.from_bytes(play.upload(VICTIM)).ciphertexts)
    assert play.roles.verifier is not None

    with pytest.raises(ProtocolError):
        play.roles.verifier.call(other.to_bytes())


@MODES
def test_copies_of_ciphertexts_are_on_no_list(services: Services) -> None:
    """One update that several clients repeat would be counted several times: neither aggregator nor decryptor fixes it."""
    play = meeting(services)
    victim = play.made(VICTIM)
    copied = evil_input(play, dict(victim.ciphertexts))
    receipts = (victim.receipt, *(play.made(m).receipt for m in MEMBERS[1:3]), copied.receipt)
    listed = CommittedInputs(
        context=victim.receipt.context,
        key_id=victim.receipt.key_id,
        receipts=tuple(sorted(receipts, key=lambda r: r.sender)),
    )

    with pytest.raises(CommitmentError, match="listed twice"):
        play.roles.decryptor.call(listed.to_bytes())
    play.server.receive(VICTIM, victim.receipt.to_bytes())
    with pytest.raises(CommitmentError):
        play.server.receive(EVIL, copied.receipt.to_bytes())


def committed(play: Meeting, members: tuple[str, ...] = MEMBERS) -> CommittedInputs:
    receipts = [
        InputReceipt.from_bytes(play.client(m).contribute(play.server.requests()[m], play.inputs[m]))
        for m in members
    ]
    return CommittedInputs(context=receipts[0].context, key_id=receipts[0].key_id, receipts=tuple(receipts))


def test_a_list_is_fixed_once() -> None:
    """Another, longer, shorter or changed list is refused by the decryptor, and so is another key for that round."""
    play = meeting(Services())
    play.server.requests()
    whole = committed(play)
    play.roles.decryptor.call(whole.to_bytes())

    for other in (replace(whole, receipts=whole.receipts[:3]), replace(whole, receipts=whole.receipts[1:])):
        with pytest.raises(CommitmentError, match="another list"):
            play.roles.decryptor.call(other.to_bytes())
    play.roles.decryptor.call(whole.to_bytes())


def test_a_list_of_two_models_is_not_fixed() -> None:
    """All receipts of a list name one model; a client whose segments name two makes none."""
    play = meeting(Services())
    play.server.requests()
    whole = committed(play)
    other = replace(whole.receipts[3], binding=OTHER_MODEL)
    odd = replace(whole, receipts=(*whole.receipts[:3], signed(other, AUTHORITY.identity(EVIL))))

    with pytest.raises(InputError, match="different models"):
        play.roles.decryptor.call(odd.to_bytes())

    mixed = {
        0: play.inputs[VICTIM][0],
        1: SegmentInput(values=play.inputs[VICTIM][1].values, binding=OTHER_MODEL),
    }
    fresh = meeting(Services())
    with pytest.raises(InputError, match="bound to 2 models"):
        fresh.client(VICTIM).contribute(fresh.server.requests()[VICTIM], mixed)


def test_another_model_than_the_servers_is_refused_when_it_commits() -> None:
    """Whose model is another is out of the round before anything is fixed; the others go on."""
    play = meeting()
    play.server.expect(same_bindings(SESSION, MODEL))
    play.inputs[EVIL] = {i: replace(given, binding=OTHER_MODEL) for i, given in play.inputs[EVIL].items()}

    with pytest.raises(ProtocolError, match="model"):
        play.commit(EVIL)
    play.commit(*MEMBERS[:3])
    play.server.close_stage()
    play.server.requests()
    play.fixed = True
    play.take(*MEMBERS[:3])

    assert play.sums(same_bindings(SESSION)) == {
        i: sum(play.inputs[m][i].values for m in MEMBERS[:3]).tolist() for i in (0, 1)
    }


@MODES
def test_a_client_uploads_only_for_a_list_that_is_fixed_and_has_it(services: Services) -> None:
    """Without the services' signatures, or with a list that lacks or changes its receipt, no ciphertext leaves it."""
    play = meeting(services)
    play.fix()
    genuine = FixedInputs.from_bytes(play.server.requests()[VICTIM])
    position = SESSION.position(VICTIM)
    changed = {**genuine.receipts, position: bytes(32)}
    lacking = {other: digest for other, digest in genuine.receipts.items() if other != position}

    for odd in (
        replace(genuine, decryptor=bytes(64)),
        replace(genuine, receipts=changed),
        replace(genuine, receipts=lacking),
        replace(genuine, context=bytes(32)),
        *([replace(genuine, verifier=b"")] if services.verifier else []),
    ):
        with pytest.raises(ProtocolError):
            play.client(VICTIM).reply(odd.to_bytes())
    assert play.client(VICTIM).reply(genuine.to_bytes())
    with pytest.raises(StageError):
        play.client(VICTIM).reply(replace(genuine, receipts=changed).to_bytes())


def test_late_receipts_do_not_count() -> None:
    """Who has not committed in time uploads nothing."""
    play = meeting()
    late = play.made(EVIL)
    play.fix(*MEMBERS[:3])

    with pytest.raises(ProtocolError):
        play.server.receive(EVIL, late.to_bytes())


def test_without_a_verifier_one_request_opens_as_many_clients_as_there_are_bands() -> None:
    """The stated limit: the decryptor cannot see whether what it is sent for a band is a sum."""
    play = meeting(Services())
    play.fix()
    inputs = {member: EncryptedInput.from_bytes(play.upload(member)) for member in MEMBERS}
    fixed = FixedInputs.from_bytes(play.server.requests()[VICTIM])
    lie = EncryptedSum(
        context=fixed.context,
        key_id=fixed.key_id,
        inputs_digest=fixed.digest,
        contributors=(1, 2, 3, 4),
        ciphertexts={0: inputs[MEMBERS[0]].ciphertexts[0], 1: inputs[MEMBERS[1]].ciphertexts[1]},
    )
    decryptor = play.roles.decryptor
    assert isinstance(decryptor, LocalChannel)
    opened = decryptor_of(decryptor).decrypt(lie)

    for index, member in ((0, MEMBERS[0]), (1, MEMBERS[1])):
        values = opened.integers(index)[: SESSION.segments[index].length] + 3 * BFV_2X20.offset(4)
        assert values.tolist() == play.inputs[member][index].values.tolist()


def decryptor_of(channel: LocalChannel) -> Any:
    """The decryptor behind a local channel."""
    service = next(value for value in vars_of(channel) if isinstance(value, KeyedService))
    return next(value for value in vars_of(service) if hasattr(value, "decrypt"))


def vars_of(thing: object) -> list[Any]:
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    return [*getattr(thing, "__dict__", {}).values(), *(getattr(thing, name, None) for name in slots)]


# Classes of view.

RANKED = ThrowawayAuthority.create(
    {**dict.fromkeys(names(7)[:3], 2), **dict.fromkeys(names(7)[3:], 8)},
    now=NOW,
    services={name: key.public for name, key in SERVICE_KEYS.items()},
)


def test_the_decryptor_opens_no_sum_over_a_thin_class() -> None:
    """Every set of contributors of seven clients in two classes: refused just if a class has one or two of its members."""
    members = names(7)
    ranks = (2, 2, 2, 8, 8, 8, 8)
    session = make_session(7, segment(0, 8, members), ranks=ranks, class_quorum=3, threshold=4)
    terms = charge_for(class_quorum=3).terms(session, RANKED.view)
    for size in range(1, 8):
        for present in itertools.combinations(range(1, 8), size):
            counts = [sum(ranks[p - 1] == rank for p in present) for rank in (2, 8)]
            if any(0 < count < 3 for count in counts):
                with pytest.raises(QuorumError, match="class_quorum=3"):
                    checks.check_classes(terms, frozenset(present))
            else:
                checks.check_classes(terms, frozenset(present))


def test_a_session_without_the_class_quorum_gets_no_key() -> None:
    """The decryptor's own charge says how many of a class there must be."""
    decryptor = make_decryptor(charge_for(class_quorum=3))

    with pytest.raises(QuorumError, match="class_quorum=0 must be >= 3"):
        decryptor.create_round_key(SESSION)


@pytest.mark.parametrize("ranks", [(5, 4, 4, 4), (4, 4, 4, 9)])
def test_the_ranks_of_a_session_are_the_certified_ones(ranks: tuple[int, ...]) -> None:
    """Clients and decryptor refuse a session that gives a member another rank than its certificate."""
    with pytest.raises(EnrolmentError, match="is enrolled with rank 4"):
        make_decryptor().create_round_key(replace(SESSION, ranks=ranks))


# Revocation.


def revoking(member: str) -> Any:
    """The authority's next list, on which a member stands."""
    serial = TRUST.certificates[member].serial
    newer = issue_revocations(
        AUTHORITY.key, AUTHORITY.certificate, serials=[serial], number=2, now=NOW + 10, valid_for=1000
    )
    return TRUST.updated(now=NOW + 20, revocations=newer)


def test_a_revoked_member_is_in_no_opened_sum() -> None:
    """With the decryptor's own new list no key is made for a session with it; with an old one, honest clients see another session."""
    new = revoking(EVIL)
    decryptor = make_decryptor()
    decryptor.believe(new)
    with pytest.raises(RevokedError):
        decryptor.create_round_key(SESSION)

    old = charge_for().terms(SESSION, TRUST)
    without = replace(SESSION, members=MEMBERS[:3], threshold=2, segments=(segment(0, 40, MEMBERS[:3], 3),))
    fresh = charge_for().terms(without, new)
    stale = charge_for().terms(without, TRUST)
    assert old.context != stale.context != fresh.context


def test_the_aggregator_sets_up_no_service() -> None:
    """Whom a service believes its own operator says: a set-up that comes over the aggregator's line is refused."""
    service = KeyedService("decryptor", SERVICE_KEYS["decryptor"])
    service.set_up(Setup(charge=charge_for(), trust=revoking(EVIL)))

    with pytest.raises(ProtocolError):
        service.answer(Setup(charge=charge_for(), trust=TRUST).to_bytes())


def test_a_member_that_a_client_does_not_believe_ends_its_part() -> None:
    """A client checks everybody in the session, not only itself."""
    with pytest.raises(RevokedError):
        charge_for().terms(SESSION, revoking(EVIL))


def test_below_the_threshold_nothing_is_fixed() -> None:
    """A list that is too short is refused by the aggregator and by the decryptor."""
    play = meeting(Services())
    play.server.requests()
    short = committed(play, MEMBERS[:2])

    with pytest.raises(BelowThresholdError):
        play.roles.decryptor.call(short.to_bytes())
    play2 = meeting(Services())
    play2.commit(*MEMBERS[:2])
    with pytest.raises(BelowThresholdError):
        play2.server.close_stage()


def test_a_list_of_another_session_is_refused() -> None:
    """Context and key are the session's own."""
    play, other = meeting(Services()), meeting(Services(), make_session(4, *SESSION.segments, attempt=2))
    play.server.requests()
    other.server.requests()

    with pytest.raises(ContextError):
        play.roles.decryptor.call(committed(other).to_bytes())


def test_services_are_enrolled_as_such() -> None:
    """The identities of the tests' services are what they claim."""
    assert service_identity("decryptor").certificate.rank == 0
