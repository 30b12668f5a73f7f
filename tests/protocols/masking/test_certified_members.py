"""Whom a session counts: members that the authority has certified now, with the rank that the session gives them.

A plan says the ranks, and quorums count holders by them. A server that gives a client another rank than the authority did puts
it where it does not belong: into the thin bands of a high rank, or as a service among the clients. Every case is played twice:
by parties that do not compare (the control: the sum opens with the misfit in it) and by ours.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import pytest

from protocols.clock import Clock
from protocols.errors import (
    BelowThresholdError,
    ContextError,
    EnrolmentError,
    IdentityError,
    ProtocolError,
    RevokedError,
)
from protocols.identity.revocations import issue_revocations
from protocols.identity.roster import Roster
from protocols.identity.trust import ThrowawayAuthority, TrustStore
from protocols.interface import SumResult
from protocols.masking import checks
from protocols.masking.messages import NONCE_SIZE, KeyAdvertisement
from protocols.masking.secure_sum import Masking
from protocols.masking.terms import MaskingTerms
from protocols.profiles import CONSISTENCY, ONE_ANSWER, SEMI_HONEST, MaskingProfile
from protocols.session import ClientId, Session
from tests.contracts.sessions import MODEL, make_inputs, make_session, names, plain_sum, segment

NOW = 1_800_000_000
MEMBERS = names(6)
MISFIT = MEMBERS[2]
PLANNED = dict(zip(MEMBERS, (2, 2, 4, 4, 4, 4), strict=True))
EVERY_PROFILE = pytest.mark.parametrize(
    "profile", [ONE_ANSWER, CONSISTENCY, SEMI_HONEST], ids=lambda p: p.name
)


@lru_cache(maxsize=8)
def authority(certified: int | None = None) -> ThrowawayAuthority:
    """Everyone is enrolled with the planned rank, but the misfit with this one."""
    ranks = {**PLANNED, **({} if certified is None else {MISFIT: certified})}
    return ThrowawayAuthority.create(ranks, now=NOW)


def session_for(profile: MaskingProfile, *, ranked: bool = True) -> Session:
    """Two bands: the low rows of everybody, and the high rows of those that are planned with rank 4."""
    return make_session(
        6,
        segment(0, 5, MEMBERS, 3),
        segment(1, 4, MEMBERS[2:], 3),
        threshold=profile.threshold(6),
        ranks=tuple(PLANNED.values()) if ranked else (),
    )


@dataclass
class Played:
    """What came of a session: its result, and who was refused by the server, or itself refused, and why."""

    session: Session
    result: SumResult | None
    refused: dict[ClientId, ProtocolError]


def play(
    profile: MaskingProfile,
    session: Session,
    identities: ThrowawayAuthority,
    *,
    trusts: Mapping[ClientId, TrustStore] | None = None,
    server_trust: TrustStore | None = None,
    between: Callable[[str], None] = lambda _stage: None,
) -> Played:
    """Everybody plays by the rules, each with its own view; whoever refuses or is refused is out from then on."""
    views = {member: (trusts or {}).get(member, identities.view) for member in session.members}
    sums = {
        member: Masking(profile, trust=views[member], identity=identities.identity(member))
        for member in session.members
    }
    host = Masking(profile, trust=server_trust or identities.view)
    server, refused, clients, inputs = host.server(session), {}, {}, make_inputs(session)
    for stage in host.stages:
        between(stage)
        for member, request in server.requests().items():
            if member in refused:
                continue
            try:
                if member not in clients:
                    clients[member] = sums[member].client(session, member)
                client = clients[member]
                asks_input = stage == host.input_stage
                answer = client.contribute(request, inputs[member]) if asks_input else client.reply(request)
                server.receive(member, answer)
            except ProtocolError as error:
                refused[member] = error
        try:
            server.close_stage()
        except BelowThresholdError:
            return Played(session, None, refused)
    bindings = dict.fromkeys(range(len(session.segments)), MODEL)
    return Played(session, server.result(bindings), refused)


def assert_opens(played: Played, *members: ClientId) -> None:
    """Both bands opened, over exactly these members."""
    assert played.result is not None
    assert set(played.result.survivors) == set(members)
    inputs = make_inputs(played.session)
    for part in played.session.segments:
        assert played.result.sums[part.index].tolist() == plain_sum(inputs, part, members)


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parties that believe whom the authority has certified, and do not look at what for."""
    monkeypatch.setattr(
        MaskingTerms, "check_member", lambda terms, name: terms.trust and terms.trust.check(name) and None
    )


@EVERY_PROFILE
def test_everyone_with_its_own_rank_is_summed(profile: MaskingProfile) -> None:
    """Where plan and certificates agree, nobody is refused and both bands open over all."""
    played = play(profile, session_for(profile), authority())

    assert not played.refused
    assert_opens(played, *MEMBERS)


@EVERY_PROFILE
@pytest.mark.parametrize("certified", [1, 2, 3, 5, 16, 65535])
@pytest.mark.parametrize("who", ["honest misfit", "corrupt misfit"])
def test_a_member_of_another_rank_is_not_summed(
    profile: MaskingProfile, certified: int, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank below or above the certified one costs the member the session, and nobody else anything.

    An honest one refuses by itself, since it knows its certificate; a corrupt one is refused by the server.
    """
    if who == "corrupt misfit":
        monkeypatch.setattr("protocols.masking.secure_sum.check_own", lambda _terms, _identity: None)

    played = play(profile, session_for(profile), authority(certified))

    assert set(played.refused) == {MISFIT}
    assert isinstance(played.refused[MISFIT], EnrolmentError)
    assert f"is enrolled with rank {certified}, and the plan gives it rank 4" in str(played.refused[MISFIT])
    assert_opens(played, *(set(MEMBERS) - {MISFIT}))


@EVERY_PROFILE
@pytest.mark.parametrize("certified", [1, 5])
@pytest.mark.usefixtures("careless")
def test_careless_parties_sum_a_member_of_another_rank(profile: MaskingProfile, certified: int) -> None:
    """The control: who does not compare opens both bands with the misfit's rows in them."""
    assert_opens(play(profile, session_for(profile), authority(certified)), *MEMBERS)


def served() -> ThrowawayAuthority:
    """The misfit is enrolled as a service."""
    return authority(0)


@EVERY_PROFILE
@pytest.mark.parametrize("ranked", [True, False], ids=["with ranks", "without ranks"])
@pytest.mark.parametrize("who", ["honest service", "corrupt service"])
def test_a_service_is_no_client(
    profile: MaskingProfile, who: str, monkeypatch: pytest.MonkeyPatch, *, ranked: bool
) -> None:
    """A certificate of rank 0 never takes part, not even where the session names no ranks."""
    if who == "corrupt service":
        monkeypatch.setattr("protocols.masking.secure_sum.check_own", lambda _terms, _identity: None)

    played = play(profile, session_for(profile, ranked=ranked), served())

    assert set(played.refused) == {MISFIT}
    assert "is enrolled as a service" in str(played.refused[MISFIT])
    assert_opens(played, *(set(MEMBERS) - {MISFIT}))


@EVERY_PROFILE
@pytest.mark.usefixtures("careless")
def test_careless_parties_sum_a_service(profile: MaskingProfile) -> None:
    """The control: who does not compare sums the service's input."""
    assert_opens(play(profile, session_for(profile, ranked=False), served()), *MEMBERS)


@EVERY_PROFILE
@pytest.mark.parametrize("certified", [0, 1, 5])
def test_a_lying_server_cannot_show_a_misfit_to_the_others(
    profile: MaskingProfile, certified: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes the misfit's advertisement all the same has every other client refuse its directory.

    Nobody gives a share, so nothing of anybody can ever open.
    """
    enrolled, session = authority(certified), session_for(profile)
    clients = {
        member: Masking(profile, trust=enrolled.view, identity=enrolled.identity(member)).client(
            session, member
        )
        for member in MEMBERS
        if member != MISFIT
    }
    with monkeypatch.context() as blind:  # server and misfit are one attacker
        blind.setattr(MaskingTerms, "check_member", lambda _terms, _name: None)
        corrupt = Masking(profile, trust=enrolled.view, identity=enrolled.identity(MISFIT))
        server = corrupt.server(session)
        server.receive(MISFIT, corrupt.client(session, MISFIT).reply(b""))
        for member, client in clients.items():
            server.receive(member, client.reply(b""))
        server.close_stage()
    directories = server.requests()

    for member, client in clients.items():
        with pytest.raises(EnrolmentError, match=f"{MISFIT}'"):
            client.reply(directories[member])


@pytest.mark.parametrize("where", ["advertisement", "view", "survivor list"])
def test_every_signature_is_that_of_a_certified_member(where: str) -> None:
    """Rank and service are compared at each signature that counts, not only at the first one that a client sees."""
    enrolled, session = served(), session_for(CONSISTENCY)
    terms = MaskingTerms(session=session, profile=CONSISTENCY, trust=enrolled.view)
    position, identity = session.position(MISFIT), enrolled.identity(MISFIT)
    message = checks.signed(
        KeyAdvertisement(
            context=terms.context,
            sender=position,
            mask_keys={},
            sealing_key=bytes(32),
            nonce=bytes(NONCE_SIZE),
            commitments={},
        ),
        identity,
    )
    ask = {
        "advertisement": lambda: checks.verify_advertisement(terms, message),
        "view": lambda: checks.verify_view(
            terms, b"v", position=position, signature=identity.sign(checks.VIEW, b"v")
        ),
        "survivor list": lambda: checks.verify_survivors(
            terms,
            _List(b"v"),
            position=position,
            signature=identity.sign(checks.SURVIVORS, b"v"),  # type: ignore[arg-type]
        ),
    }

    with pytest.raises(EnrolmentError, match="enrolled as a service"):
        ask[where]()


@dataclass
class _List:
    """Something that has bytes, in place of a survivor list."""

    data: bytes

    def to_bytes(self) -> bytes:
        return self.data


@EVERY_PROFILE
def test_a_client_whose_certificate_was_replaced_takes_no_part(profile: MaskingProfile) -> None:
    """Enrolled anew, a client that still has its old key and certificate says so itself."""
    old, new = authority(), ThrowawayAuthority.create(PLANNED, now=NOW)
    me = Masking(profile, trust=new.view, identity=old.identity(MISFIT))

    with pytest.raises(EnrolmentError, match="its own certificate is not the one on roster 1"):
        me.client(session_for(profile), MISFIT)


# --- revocation: what the sum is bound to ---


def revoked(number: int = 2, *, roster: bool = False) -> TrustStore:
    """What a party knows once the misfit was revoked, with or without the roster that asks for it."""
    issuer = authority()
    serial = issuer.identity(MISFIT).certificate.serial
    taken_back = issue_revocations(
        issuer.key, issuer.certificate, serials=[serial], number=number, now=NOW, valid_for=1000
    )
    newest = Roster.issue(
        issuer.key,
        number=2,
        least_revocations=number,
        issued_at=NOW,
        expires_at=NOW + 1000,
        entries=issuer.view.roster.entries,
    )
    return issuer.view.updated(now=NOW, revocations=taken_back, roster=newest if roster else None)


@EVERY_PROFILE
@pytest.mark.parametrize("roster", [False, True])
def test_who_knows_of_a_revocation_is_not_summed_beside_the_revoked(
    profile: MaskingProfile, *, roster: bool
) -> None:
    """A server and a client with the old list cannot have those with the new one help: contexts differ at once."""
    knowing = {member: revoked(roster=roster) for member in MEMBERS if member != MISFIT}

    played = play(profile, session_for(profile), authority(), trusts=knowing)

    assert played.result is None
    assert set(played.refused) == set(knowing)
    assert all(isinstance(error, ContextError) for error in played.refused.values())


@EVERY_PROFILE
def test_careless_parties_are_summed_beside_a_revoked_client(
    profile: MaskingProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: bound to the roster alone, as sessions once were, and checked by the server alone, the sum opens."""
    monkeypatch.setattr(TrustStore, "digest", property(lambda trust: trust.roster.digest))
    monkeypatch.setattr(MaskingTerms, "check_member", lambda _terms, _name: None)
    monkeypatch.setattr(TrustStore, "check", lambda trust, name: trust.certificates[name])
    knowing = {member: revoked() for member in MEMBERS if member != MISFIT}

    assert_opens(play(profile, session_for(profile), authority(), trusts=knowing), *MEMBERS)


@EVERY_PROFILE
def test_a_client_that_misses_a_revocation_drops_out_alone(profile: MaskingProfile) -> None:
    """Where the server and all others know the new list, whoever has the old one is refused, and the sum goes on."""
    late = MEMBERS[0]
    knowing = {member: revoked() for member in MEMBERS if member != late}

    played = play(profile, session_for(profile), authority(), trusts=knowing, server_trust=revoked())

    assert isinstance(played.refused[late], ContextError)
    assert isinstance(played.refused[MISFIT], RevokedError)
    if len(MEMBERS) - 2 >= played.session.threshold:
        assert_opens(played, *(set(MEMBERS) - {MISFIT, late}))


def test_the_context_is_bound_to_roster_and_revocations() -> None:
    """Other lists, other contexts; the same lists in another order of arrival, the same one."""
    session = session_for(ONE_ANSWER)
    views = [authority().view, revoked(), revoked(3), revoked(roster=True)]

    contexts = {MaskingTerms(session=session, profile=ONE_ANSWER, trust=view).context for view in views}

    assert len(contexts) == len(views)


# --- the clock in the middle of a session ---


@dataclass
class Wall:
    """A clock that a test sets."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


def ticking(until: int) -> tuple[ThrowawayAuthority, Wall]:
    """An authority whose every list and certificate ends at a second, and the clock of all views."""
    wall = Wall()
    clock = Clock(wall, lambda: 0.0)
    return ThrowawayAuthority.create(PLANNED, now=NOW, valid_for=until - NOW, clock=clock), wall


@EVERY_PROFILE
@pytest.mark.parametrize("stage", ["share_keys", "mask_input", "reveal_shares"])
def test_expiry_in_the_middle_of_a_session_is_noticed(profile: MaskingProfile, stage: str) -> None:
    """When the lists end before any stage that verifies signatures, everybody is refused there and nothing opens."""
    enrolled, wall = ticking(NOW + 100)

    def wait(name: str) -> None:
        wall.now += 200 if name == stage else 1

    played = play(profile, session_for(profile), enrolled, between=wait)

    assert played.result is None
    assert set(played.refused) == set(MEMBERS)
    assert all("expired" in str(error) for error in played.refused.values())
    assert all(isinstance(error, IdentityError) for error in played.refused.values())


@EVERY_PROFILE
def test_a_session_within_the_validity_is_summed(profile: MaskingProfile) -> None:
    """The control of time: with the same clock and a second to spare, everything opens."""
    enrolled, wall = ticking(NOW + 100)

    def wait(_stage: str) -> None:
        wall.now += 10

    assert_opens(play(profile, session_for(profile), enrolled, between=wait), *MEMBERS)


@EVERY_PROFILE
def test_no_session_begins_under_expired_lists(profile: MaskingProfile) -> None:
    """Server and clients that live longer than their lists refuse the next session by name."""
    enrolled, wall = ticking(NOW + 100)
    server = Masking(profile, trust=enrolled.view)
    client = Masking(profile, trust=enrolled.view, identity=enrolled.identity(MISFIT))
    session = session_for(profile)
    server.server(session)
    client.client(session, MISFIT)

    wall.now += 101

    for begin in (lambda: server.server(session), lambda: client.client(session, MISFIT)):
        with pytest.raises(EnrolmentError, match="roster 1 expired 1 seconds ago"):
            begin()
