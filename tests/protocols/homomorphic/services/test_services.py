"""Services answer bytes with bytes, name what they refuse, and let no secret key out."""

from contextlib import nullcontext
from dataclasses import replace

import pytest

from protocols.errors import (
    BelowThresholdError,
    ContextError,
    EnrolmentError,
    KeyUseError,
    ProtocolError,
    ServiceError,
    SessionError,
    StageError,
    WireError,
)
from protocols.homomorphic.messages import DecryptedSums, EncryptedInput, RoundKey
from protocols.homomorphic.parties.decryptor import Decryptor
from protocols.homomorphic.parties.guarded_adder import GuardedAdder
from protocols.homomorphic.scheme import bfv, seal_form
from protocols.homomorphic.screening.screening import Screening
from protocols.homomorphic.secure_sum import Homomorphic
from protocols.homomorphic.services.calls import Roles
from protocols.homomorphic.services.messages import HELLO, Answer, SessionRequest, Setup, StoredSums
from protocols.homomorphic.services.services import Channel, KeyedService, LocalChannel, Worker
from protocols.homomorphic.terms import Services
from protocols.wire import MessageType, Writer
from tests.contracts.sessions import make_session, names, plain_sum, same_bindings, segment
from tests.protocols.homomorphic.meeting import (
    ALONE,
    AUTHORITY,
    SERVICE_KEYS,
    TRUST,
    VERIFIED,
    Meeting,
    Recorder,
    charge_for,
    client_of,
    local_roles,
    server_of,
    terms_of,
)
from tests.support.reachable import _walk, secrets_of

FIRST, SECOND, THIRD, LAST = MEMBERS = names(4)
SESSION = make_session(4, segment(0, 20, MEMBERS, 3), segment(1, 7, (FIRST, SECOND, THIRD), 2))


def recorded(charge_services: Services) -> tuple[Meeting, dict[str, Recorder], Decryptor]:
    """A session of which every byte to and from the services is kept."""
    charge = charge_for(services=charge_services)
    roles = local_roles(charge)
    recorders = {"decryptor": Recorder(roles.decryptor), "worker": Recorder(roles.worker)}
    if roles.verifier is not None:
        recorders["verifier"] = Recorder(roles.verifier)
    heard = Roles(
        decryptor=recorders["decryptor"],
        worker=recorders["worker"],
        verifier=recorders.get("verifier"),
    )
    meeting = Meeting.of(SESSION, charge)
    meeting.roles, meeting.server = heard, server_of(meeting.terms, heard)
    inner = roles.decryptor
    assert isinstance(inner, LocalChannel)
    assert isinstance(inner.service, KeyedService)
    role = inner.service._role
    assert isinstance(role, Decryptor)
    return meeting, recorders, role


def secret_parts(decryptor: Decryptor) -> list[bytes]:
    """The round's secret key in the forms in which it could leak: the library's own stream, and its residues."""
    opened = decryptor._open
    assert opened is not None
    whole = opened.secret._context.serialize(
        save_public_key=False, save_secret_key=True, save_galois_keys=False, save_relin_keys=False
    )
    private = [field.value for field in seal_form._fields(whole) if field.number == 3]
    stream = next(field.value for field in seal_form._fields(private[0]) if field.number == 1)
    unpacked = seal_form._unwrapped(stream, 2**20)
    return [stream[16:80], unpacked[-64:], unpacked[-4096:-4032]]


@pytest.mark.parametrize("services", [ALONE, VERIFIED], ids=["alone", "verified"])
def test_no_secret_key_crosses_and_none_is_reachable(services: Services) -> None:
    """Neither the round's key in any form nor an identity key is in a byte that crossed, or reachable from who may not."""
    meeting, recorders, decryptor = recorded(services)
    requests = meeting.server.requests()
    secrets = [*secret_parts(decryptor), *(key.secret for key in SERVICE_KEYS.values())]
    uploads = {member: meeting.upload(member) for member in MEMBERS}
    for member, upload in uploads.items():
        meeting.server.receive(member, upload)

    meeting.sums(same_bindings(SESSION))

    crossed = [*requests.values(), *uploads.values()]
    crossed += [data for recorder in recorders.values() for data in recorder.crossed]
    assert len(crossed) > 20
    for secret in secrets:
        assert not any(secret in data for data in crossed)
    held = [
        meeting.server._adder,
        meeting.server._terms,
        meeting.server._receipts,
        client_of(meeting.terms, FIRST),
    ]
    held += [recorders[name].inner for name in recorders if name == "worker"]
    for start in held:
        reached = list(_walk(start))
        assert not any(isinstance(found, bfv.RoundSecret) for found in reached)
    assert not secrets_of(meeting.server._adder) | secrets_of(meeting.server._receipts)


def test_the_decryptor_gets_no_clients_ciphertext() -> None:
    """What crosses to it are sums and receipts: no upload's ciphertexts, nor a part of them, are among its bytes."""
    meeting, recorders, _ = recorded(VERIFIED)
    uploads = {member: meeting.upload(member) for member in MEMBERS}
    for member, upload in uploads.items():
        meeting.server.receive(member, upload)

    meeting.sums(same_bindings(SESSION))

    for upload in uploads.values():
        for ciphertexts in EncryptedInput.from_bytes(upload).ciphertexts.values():
            sample = ciphertexts[1000:1064]
            assert not any(sample in data for data in recorders["decryptor"].crossed)
            assert any(sample in data for data in recorders["worker"].crossed)
            assert any(sample in data for data in recorders["verifier"].crossed)


def test_keys_are_new_every_session() -> None:
    """Two sessions have two keys, and two encryptions of the same values share no ciphertext."""
    first, second = (Meeting.of(replace(SESSION, round=number)) for number in (1, 2))

    keys = [meeting.key.key for meeting in (first, second)]
    again = [first.made(FIRST).ciphertexts[0] for _ in range(2)]

    assert keys[0] != keys[1]
    assert again[0] != again[1]


def test_secrets_do_not_print() -> None:
    """Text forms of keys and of who holds them show nothing."""
    _, _, decryptor = recorded(ALONE)
    decryptor.create_round_key(SESSION)

    assert repr(decryptor._open.secret) == "<RoundSecret>"  # type: ignore[union-attr]
    assert "SigningKey>" in repr(decryptor._identity.key)


# --- setting up ---


def test_a_service_is_set_up_by_its_operator_with_its_own_certificate() -> None:
    """Before it is set up it serves nothing; it takes no other charge, no certificate of another key, no other's setup."""
    service = KeyedService("decryptor", SERVICE_KEYS["decryptor"])
    setup = Setup(charge=charge_for(), trust=TRUST)

    with pytest.raises(StageError, match="was not set up"):
        service.answer(SessionRequest(session=SESSION).to_bytes())
    with pytest.raises(EnrolmentError, match="binds another key"):
        KeyedService("decryptor").set_up(setup)
    service.set_up(setup)
    with pytest.raises(StageError, match="set up already to serve something else"):
        service.set_up(replace(setup, charge=charge_for(least_quorum=2)))
    with pytest.raises(StageError, match="none of the services"):
        KeyedService("verifier", SERVICE_KEYS["verifier"]).set_up(setup)


@pytest.mark.parametrize("before", [True, False], ids=["first come", "afterwards"])
def test_what_comes_by_the_aggregators_channel_sets_nothing_up(before: bool) -> None:  # noqa: FBT001
    """A setup by the aggregator is refused by name, be it the very first message, the honest one or another."""
    service = KeyedService("decryptor", SERVICE_KEYS["decryptor"])
    channel = LocalChannel(service)
    setup = Setup(charge=charge_for(), trust=TRUST)
    if not before:
        service.set_up(setup)

    for attempt in (setup, replace(setup, charge=charge_for(least_quorum=2))):
        with pytest.raises(StageError, match="set up by its own operator, not by the aggregator"):
            channel.call(attempt.to_bytes())

    with pytest.raises(StageError, match="was not set up") if before else nullcontext():
        channel.call(SessionRequest(session=SESSION).to_bytes())


def test_a_service_tells_its_public_key_alone() -> None:
    """Hello is answered by the key that the authority is to enrol."""
    assert LocalChannel(KeyedService("decryptor", SERVICE_KEYS["decryptor"])).call(HELLO) == (
        SERVICE_KEYS["decryptor"].public
    )


@pytest.mark.parametrize("screening", [None, Screening(max_norm=2.0, min_cosine=0.25, ignored_tail=2)])
def test_a_setup_has_one_form(screening: Screening | None) -> None:
    """What a service reads is what it was sent; trailing bytes and unknown profiles are refused."""
    setup = Setup(charge=charge_for(services=VERIFIED, screening=screening), trust=TRUST)

    again = Setup.from_bytes(setup.to_bytes())

    assert again.charge == setup.charge
    assert again.to_bytes() == setup.to_bytes()
    with pytest.raises(WireError):
        Setup.from_bytes(setup.to_bytes() + b"\x00")
    with pytest.raises(SessionError, match="profile"):
        Setup.from_bytes(setup.to_bytes().replace(b"bfv-2x20", b"bfv-9x99"))


# --- refusals cross with their names ---


class Deaf(Channel):
    """Answers everything with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def ready(self) -> int:
        return 1

    def exchange(self, request: bytes) -> bytes:
        return self._answer

    def close(self) -> None:
        pass


def refusal(name: str, text: str = "because") -> bytes:
    return Writer(MessageType.SERVICE_REFUSAL).text(name).text(text).done()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refusal("KeyUseError"), KeyUseError),
        (refusal("ContextError"), ContextError),
        (refusal("SomethingElse"), ServiceError),
        (refusal("annotations"), ServiceError),
        (refusal(""), ServiceError),
        (b"", WireError),
        (b"RS\x02", WireError),
        (refusal("KeyUseError") + b"\x00", WireError),
        (Writer(MessageType.SERVICE_ANSWER).blob(b"x").done()[:-1], WireError),
        (Writer(MessageType.ROUND_KEY).done(), WireError),
    ],
)
def test_a_refusal_keeps_its_name_on_the_way(answer: bytes, error: type[ProtocolError]) -> None:
    """Only errors of the protocols are named; whatever else comes is the service's fault or malformed."""
    with pytest.raises(error):
        Deaf(answer).call(HELLO)


@pytest.mark.parametrize(
    "answer",
    [
        refusal("StageError"),
        b"",
        Writer(MessageType.SERVICE_ANSWER).blob(b"").done(),
        Writer(MessageType.SERVICE_ANSWER).blob(b"RS\x02\x40" + bytes(300)).done(),
    ],
)
def test_a_decryptor_that_talks_nonsense_ends_the_session_by_name(answer: bytes) -> None:
    """Whatever it answers, the aggregator raises ServiceError that names it."""
    charge = charge_for()
    server = server_of(
        terms_of(SESSION, charge), Roles(decryptor=Deaf(answer), worker=LocalChannel(Worker()))
    )

    with pytest.raises(ServiceError, match="the decryptor: "):
        server.requests()


def test_another_decryptors_key_is_not_passed_on() -> None:
    """An aggregator checks what it is to send to its clients."""
    other = Meeting.of(replace(SESSION, round=7))
    key = RoundKey.from_bytes(other.server.requests()[FIRST]).to_bytes()
    answer = Writer(MessageType.SERVICE_ANSWER).blob(key).done()
    server = server_of(terms_of(SESSION), Roles(decryptor=Deaf(answer), worker=LocalChannel(Worker())))

    with pytest.raises(ServiceError, match="the decryptor: ContextError"):
        server.requests()


@pytest.mark.parametrize(
    "change",
    [
        lambda sums: replace(sums, context=bytes(32)),
        lambda sums: replace(sums, sum_digest=bytes(32)),
        lambda sums: replace(sums, signature=bytes(64)),
        lambda sums: replace(sums, sums={0: sums.sums[0]}),
        lambda sums: replace(sums, sums={0: sums.sums[0][:-1], 1: sums.sums[1]}),
        lambda sums: replace(sums, sums={0: sums.sums[0] + 1, 1: sums.sums[1]}),
    ],
    ids=["another context", "another sum", "unsigned", "a band missing", "shorter", "another value"],
)
def test_sums_that_the_decryptor_has_not_signed_for_this_are_refused(change: object) -> None:
    """Somebody between decryptor and aggregator can stop a round, not change it."""
    meeting = Meeting.of(SESSION)

    class Between(Channel):
        def ready(self) -> int:
            return 1

        def exchange(self, request: bytes) -> bytes:
            answer = meeting.roles.decryptor.exchange(request)
            if request[3] != MessageType.SERVICE_DECRYPT:
                return answer
            sums = DecryptedSums.from_bytes(Deaf(answer).call(b""))
            return Writer(MessageType.SERVICE_ANSWER).blob(change(sums).to_bytes()).done()  # type: ignore[operator]

        def close(self) -> None:
            pass

    meeting.server = server_of(meeting.terms, replace(meeting.roles, decryptor=Between()))
    meeting.take(*MEMBERS)

    with pytest.raises(ServiceError, match="the decryptor: "):
        meeting.sums(same_bindings(SESSION))


def test_servers_need_their_services_and_clients_their_identity() -> None:
    """What cannot work is refused at once, by name."""
    bare = Homomorphic(charge_for().profile, ALONE, trust=TRUST)
    lopsided = Homomorphic(
        charge_for().profile, VERIFIED, trust=TRUST, roles=local_roles(charge_for(services=ALONE))
    )

    with pytest.raises(ServiceError, match="needs a decryptor"):
        bare.server(SESSION)
    with pytest.raises(ServiceError, match="both have a verifier, or neither"):
        lopsided.server(SESSION)
    with pytest.raises(ProtocolError, match="no identity to sign with"):
        bare.client(SESSION, FIRST)
    other = Homomorphic(charge_for().profile, ALONE, trust=TRUST, identity=AUTHORITY.identity(SECOND))
    with pytest.raises(ProtocolError, match="no identity to sign with"):
        other.client(SESSION, FIRST)


# --- the worker ---


def test_a_worker_adds_for_several_sessions_at_once() -> None:
    """Interleaved sessions over one worker do not touch each other, and are forgotten when they are over."""
    charge = charge_for()
    worker = Worker()
    meetings = []
    for number in (1, 2):
        meeting = Meeting.of(replace(SESSION, round=number), charge)
        meeting.server = server_of(meeting.terms, replace(meeting.roles, worker=LocalChannel(worker)))
        meetings.append(meeting)

    for member in MEMBERS:
        for meeting in meetings:
            meeting.take(member)
    for meeting in meetings:
        sums = meeting.sums(same_bindings(meeting.session))
        assert sums == {
            part.index: plain_sum(meeting.inputs, part, MEMBERS) for part in meeting.session.segments
        }

    assert not worker._sessions


def test_a_worker_refuses_what_it_does_not_know() -> None:
    """Ciphertexts of a session that was not opened, of another profile, or in another form raise named errors."""
    channel = LocalChannel(Worker())

    with pytest.raises(StageError, match="no such session"):
        channel.call(StoredSums(context=bytes(32), ciphertexts={0: b""}).to_bytes())
    with pytest.raises(SessionError, match="profile"):
        channel.call(SessionRequest(session=SESSION, profile="bfv").to_bytes())
    with pytest.raises(WireError):
        channel.call(b"RS")


@pytest.mark.parametrize("taken_back", range(12))
def test_the_last_addition_can_be_taken_back(taken_back: int) -> None:
    """Whichever of a dozen additions is undone right after it was made, the sum is that of the others."""
    session = make_session(12, segment(0, 20, names(12)))
    meeting = Meeting.of(session)
    adder = GuardedAdder(meeting.terms, LocalChannel(Worker()))
    reference = GuardedAdder(meeting.terms, LocalChannel(Worker()))

    for place, member in enumerate(names(12)):
        ciphertexts = EncryptedInput.from_bytes(meeting.upload(member)).ciphertexts
        adder.add(ciphertexts)
        if place == taken_back:
            adder.take_back(ciphertexts)
        else:
            reference.add(ciphertexts)

    assert adder.sums() == reference.sums()


def test_an_input_that_the_verifier_did_not_take_is_not_added() -> None:
    """When the verifier is gone for one client, that client is out of the sum, and the sums still agree."""
    charge = charge_for(services=VERIFIED)
    meeting = Meeting.of(SESSION, charge)
    verifier = meeting.roles.verifier
    assert verifier is not None

    class Unsteady(Channel):
        silent = False

        def ready(self) -> int:
            return 1

        def exchange(self, request: bytes) -> bytes:
            if self.silent:
                raise ServiceError("it is away")
            return verifier.exchange(request)

        def close(self) -> None:
            pass

    unsteady = Unsteady()
    meeting.server = server_of(meeting.terms, replace(meeting.roles, verifier=unsteady))
    meeting.take(FIRST, SECOND)
    unsteady.silent = True
    with pytest.raises(ServiceError, match="the verifier: it is away"):
        meeting.take(THIRD)
    unsteady.silent = False
    meeting.take(LAST)

    sums = meeting.sums(same_bindings(SESSION))

    assert sums == {
        part.index: plain_sum(meeting.inputs, part, (FIRST, SECOND, LAST)) for part in SESSION.segments
    }


def test_a_worker_forgets_sessions_that_come_to_nothing() -> None:
    """Whether too few answer, every band stays closed or the only input is taken back, nothing of them is left there."""
    worker = Worker()
    thin = make_session(4, segment(0, 20, MEMBERS, 4))
    meetings = [Meeting.of(SESSION), Meeting.of(thin)]
    for meeting in meetings:
        meeting.server = server_of(meeting.terms, replace(meeting.roles, worker=LocalChannel(worker)))
    adder = GuardedAdder(meetings[0].terms, LocalChannel(worker))
    ciphertexts = EncryptedInput.from_bytes(meetings[0].upload(FIRST)).ciphertexts
    adder.add(ciphertexts)
    assert worker._sessions

    adder.take_back(ciphertexts)
    assert not worker._sessions

    meetings[0].take(FIRST, SECOND)
    with pytest.raises(BelowThresholdError):
        meetings[0].server.close_stage()
    assert not worker._sessions

    meetings[1].take(FIRST, SECOND, THIRD)
    assert meetings[1].sums(same_bindings(thin)) == {}
    assert not worker._sessions


@pytest.mark.parametrize("segments", [(), (0,), (0, 1, 2)])
def test_a_worker_that_sums_other_segments_ends_the_session_by_name(segments: tuple[int, ...]) -> None:
    """Sums that were not asked for, or too few of them, raise ServiceError, and the decryptor sees nothing of it."""

    class Forgetful(Channel):
        inner = LocalChannel(Worker())

        def ready(self) -> int:
            return 1

        def exchange(self, request: bytes) -> bytes:
            answer = self.inner.exchange(request)
            if not Answer.from_bytes(answer).payload:
                return answer
            stored = StoredSums.from_bytes(Answer.from_bytes(answer).payload)
            sums = dict.fromkeys(segments, stored.ciphertexts[0])
            return Answer(payload=replace(stored, ciphertexts=sums).to_bytes()).to_bytes()

        def close(self) -> None:
            pass

    meeting = Meeting.of(SESSION)
    meeting.server = server_of(meeting.terms, replace(meeting.roles, worker=Forgetful()))
    meeting.take(*MEMBERS)

    with pytest.raises(ServiceError, match=r"the round is lost: .*has summed segments .*, not \[0, 1\]"):
        meeting.sums(same_bindings(SESSION))
