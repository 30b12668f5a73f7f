"""Masking behind the contract `SecureSum`: bytes in, bytes out, one call per stage."""

from collections.abc import Mapping
from typing import final

from protocols.errors import RosterError, SessionError, StageError
from protocols.identity.trust import Identity, TrustStore
from protocols.interface import (
    ExtraSecrets,
    SecureSum,
    SegmentInput,
    SumClient,
    SumResult,
    SumServer,
    check_binding,
)
from protocols.masking import client as steps
from protocols.masking.checks import check_extra_secrets, check_own
from protocols.masking.messages import KeyDirectory, ShareDelivery, SurvivorList, SurvivorSignatures
from protocols.masking.server.keys import AdvertiseKeys, ShareKeys
from protocols.masking.server.masked_input import MaskInput
from protocols.masking.server.reveal import RevealShares
from protocols.masking.server.stage import Stage
from protocols.masking.server.survivors import AgreeSurvivors
from protocols.masking.server.tracing import Dealings
from protocols.masking.terms import MaskingTerms
from protocols.primitives.secret import SYSTEM_RANDOM, RandomBytes
from protocols.profiles import SEMI_HONEST, MaskingProfile, SurvivorCheck
from protocols.session import ClientId, Session

_State = steps.Advertised | steps.Shared | steps.Masked | steps.Agreed | steps.Revealed


@final
class MaskingClient(SumClient):
    """One client of one session. An error leaves its state unchanged; secrets go with the state that held them.

    Args:
        terms: The terms of the session.
        me: Client id of the member.
        identity: The identity that signs; None where the profile works without identities.
        random_bytes: Source of keys, seeds and shares.
        extra_secrets: By segment: further secrets to be shared beside the seed; uniform, for they are committed to.

    Raises:
        InputError: The extra secrets are not those that the segments have room for.
    """

    def __init__(
        self,
        terms: MaskingTerms,
        me: ClientId,
        identity: Identity | None = None,
        random_bytes: RandomBytes = SYSTEM_RANDOM,
        *,
        extra_secrets: ExtraSecrets | None = None,
    ) -> None:
        super().__init__()
        terms.session.position(me)
        check_extra_secrets(terms.session.segments_of(me), extra_secrets or {})
        self._terms = terms
        self._me = me
        self._identity = identity
        self._random_bytes = random_bytes
        self._extra_secrets = extra_secrets
        self._state: _State | None = None
        self._replied: tuple[bytes, bytes] | None = None
        self._contributed: tuple[bytes, bytes] | None = None

    def reply(self, request: bytes) -> bytes:
        """Answer a request of every stage but mask_input.

        A client that has answered repeats the identical answer to the identical request and gives no other one.
        """
        with self._turn:
            if self._replied is not None and request == self._replied[0]:
                return self._replied[1]
            if self._contributed is not None and request == self._contributed[0]:
                raise StageError("that request is answered by contribute")
            self._state, answer = self._step(request)
            self._replied = (request, answer)
            return answer

    def contribute(self, request: bytes, inputs: Mapping[int, SegmentInput]) -> bytes:
        """Answer the request of mask_input."""
        with self._turn:
            if self._contributed is not None and request == self._contributed[0]:
                return self._contributed[1]
            if self._replied is not None and request == self._replied[0]:
                raise StageError("that request is answered by reply")
            if not isinstance(self._state, steps.Shared):
                raise StageError("mask_input comes after share_keys and once only")
            delivery = ShareDelivery.from_bytes(request)
            self._state, masked = steps.create_masked_input(self._state, delivery, inputs, self._identity)
            self._contributed = (request, masked.to_bytes())
            return self._contributed[1]

    def end(self) -> None:
        """Drop every secret of the session, after any step in progress; all later requests are out of order."""
        with self._turn:
            me = self._terms.session.position(self._me)
            self._state = steps.Revealed(terms=self._terms, me=me, refused=())
            self._replied = self._contributed = self._extra_secrets = None

    def _step(self, request: bytes) -> tuple[_State, bytes]:
        match self._state:
            case None:
                if request:
                    raise StageError("the request of advertise_keys must be empty")
                step = steps.create_key_advertisement(
                    self._terms,
                    self._me,
                    self._identity,
                    self._random_bytes,
                    extra_secrets=self._extra_secrets,
                )
                self._extra_secrets = None
                return step.state, step.message.to_bytes()
            case steps.Advertised() as state:
                shared = steps.create_sealed_shares(
                    state, KeyDirectory.from_bytes(request), self._random_bytes
                )
                return shared.state, shared.message.to_bytes()
            case steps.Shared():
                raise StageError("the next stage is mask_input: call contribute")
            case steps.Masked() as state:
                return self._answer_survivors(state, SurvivorList.from_bytes(request))
            case steps.Agreed() as state:
                revealed = steps.reveal_agreed(state, SurvivorSignatures.from_bytes(request))
                return revealed.state, revealed.message.to_bytes()
            case steps.Revealed():
                raise StageError("the session is over for this client")

    def _answer_survivors(self, state: steps.Masked, survivors: SurvivorList) -> tuple[_State, bytes]:
        if self._terms.profile.survivor_check is not SurvivorCheck.SIGNED_LIST:
            revealed = steps.create_revealed_shares(state, survivors)
            return revealed.state, revealed.message.to_bytes()
        if self._identity is None:
            raise SessionError("a client without an identity cannot sign the survivor list")
        agreed = steps.create_signed_survivors(state, survivors, self._identity)
        return agreed.state, agreed.message.to_bytes()


@final
class MaskingServer(SumServer):
    """The server of one session.

    Args:
        terms: The terms of the session.
        noise_follows: See :class:`Masking`.
    """

    def __init__(self, terms: MaskingTerms, *, noise_follows: bool = False) -> None:
        self._session = terms.session
        self._noise_follows = noise_follows
        self._stage: Stage | None = AdvertiseKeys(terms)
        self._last: RevealShares | None = None
        self._dealings: Dealings | None = None
        self._contributors: tuple[ClientId, ...] | None = None

    def requests(self) -> Mapping[ClientId, bytes]:
        """Return the current stage's request to each client that is still in."""
        stage = self._current()
        return {
            self._session.client_at(position): stage.request(position) for position in sorted(stage.expected)
        }

    def receive(self, client: ClientId, reply: bytes) -> None:
        """Take one reply."""
        stage = self._current()
        position = self._session.position(client)
        if position not in stage.expected:
            raise StageError(f"{client}: is out of the session at {stage.name}")
        if position in stage.answered:
            raise StageError(f"{client}: has already answered {stage.name}")
        stage.receive(position, reply)
        stage.answered.add(position)

    def close_stage(self) -> None:
        """Enter the next stage."""
        stage, self._stage = self._current(), None
        self._dealings = stage.dealings
        # A stage that cannot close has ended the session: nothing of it can be asked for any more.
        self._stage = stage.close()
        if isinstance(stage, MaskInput):
            self._contributors = tuple(map(self._session.client_at, sorted(stage.answered)))
        if isinstance(stage, RevealShares):
            self._last = stage

    @property
    def faults(self) -> Mapping[ClientId, str]:
        """By client: its fault, as of the last closed stage or the opening."""
        return self._dealings.faults() if self._dealings is not None else {}

    @property
    def disputes(self) -> Mapping[ClientId, tuple[ClientId, ...]]:
        """By client: the others whose bundles it says it could not use, as of the last closed stage."""
        return self._dealings.disputes() if self._dealings is not None else {}

    @property
    def contributors(self) -> tuple[ClientId, ...] | None:
        """The survivor list, once mask_input has closed."""
        return self._contributors

    def result(self, bindings: Mapping[int, bytes]) -> SumResult:
        """Open the sums; once."""
        if self._last is None:
            raise StageError("the sums are opened once, after reveal_shares has closed")
        for segment in self._session.segments:
            check_binding(segment.index, bindings.get(segment.index))
        last, self._last = self._last, None
        return last.open(bindings, noise_follows=self._noise_follows)

    def _current(self) -> Stage:
        if self._stage is None:
            raise StageError("all stages of the session are closed")
        return self._stage


@final
class Masking(SecureSum):
    """Double masking (Bonawitz et al. 2017; above a hundred members on the sparse graphs of Bell et al. 2020).

    Claims: nothing beyond each open segment's sum over its survivors, and who took part, is learnt by a server together
    with up to `profile.corrupt(n)` clients; against a server of which kind, the profile says.

    What clients can do against the sums, where the server follows the protocol and knows who sends what to it:

    * No wrong share, revealed or dealt, changes a sum. As long as t clients reveal right shares of everyone in a segment, it
      opens, whatever all others reveal; who revealed a wrong one is named (`SumResult.faults`).
    * One client can close every segment that it is a member of. By shares it deals: then it is named where its own
      commitments convict it, or more clients dispute its shares than may lie, and as one of a pair where fewer do. By a garbled upload:
      then nobody can be named, for masks hide what each upload is; with L elements it passes for a sum with
      probability 2^-L at most.
    * n - t + 1 clients that fall silent, or that deal bundles of no use to all, end the session.

    Args:
        profile: Security parameters.
        trust: The view of whose signatures count; every profile against a malicious server needs it.
        identity: At a client: the identity that signs.
        noise_follows: At a server that adds noise to the sums: whether they are opened whatever they are, by the lift that has no
            jump (:func:`protocols.ring.folded`). A range that is asked before the noise tells whoever exceeds it one bit of the
            others' sum. A garbled upload is then not refused here.
    """

    name = "masking"
    input_stage = MaskInput.name
    shares_secrets = True

    def __init__(
        self,
        profile: MaskingProfile = SEMI_HONEST,
        *,
        trust: TrustStore | None = None,
        identity: Identity | None = None,
        noise_follows: bool = False,
    ) -> None:
        self.profile = profile
        self._trust = trust
        self._identity = identity
        self._noise_follows = noise_follows

    @property
    def stages(self) -> tuple[str, ...]:
        """Four stages, five with a signed survivor list."""
        agree = (AgreeSurvivors.name,) if self.profile.survivor_check is SurvivorCheck.SIGNED_LIST else ()
        return (AdvertiseKeys.name, ShareKeys.name, MaskInput.name, *agree, RevealShares.name)

    def terms(self, session: Session) -> MaskingTerms:
        """Return the session under this profile; raises as :class:`MaskingTerms`."""
        return MaskingTerms(session=session, profile=self.profile, trust=self._trust)

    def client(
        self, session: Session, me: ClientId, *, extra_secrets: ExtraSecrets | None = None
    ) -> MaskingClient:
        """Open the client side for one member.

        Args:
            session: The session's terms.
            me: The member.
            extra_secrets: By segment of the member: as many fresh secrets of 32 bytes as the segment has room for. They
                are shared beside the self-mask seed; which of them are recovered is for the segment's rule to say.

        Raises:
            RosterError: It has no identity to sign with, or is no member.
            IdentityError: Its own certificate does not fit the session.
        """
        if self._trust is not None and (self._identity is None or self._identity.client != me):
            raise RosterError(f"{me} has no identity to sign with")
        terms = self.terms(session)
        if self._identity is not None:
            check_own(terms, self._identity)
        return MaskingClient(terms, me, self._identity, extra_secrets=extra_secrets)

    def server(self, session: Session) -> MaskingServer:
        """Open the server side."""
        return MaskingServer(self.terms(session), noise_follows=self._noise_follows)
