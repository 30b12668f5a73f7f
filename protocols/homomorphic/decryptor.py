"""The decryptor: makes a key per session, decrypts one sum per band with it, and forgets it.

It is an organisation of its own. It never receives a client's ciphertext, only sums and the signed receipts of those whose
inputs they hold; it decides for itself whether they are enough. What it cannot see is whether a sum really is the sum
of the inputs with these receipts: a lying aggregator could send one client's ciphertext in its place. Hence the
verifier, whose signature it then demands; without one, it trusts the aggregator to follow the protocol.

Guarantees, whatever it is asked: per key at most one decryption of every segment, all over one list of contributors;
no segment below its quorum or below `least_quorum`; never two sums of one round.
"""

from dataclasses import dataclass
from typing import final

from protocols.errors import (
    BelowThresholdError,
    ContextError,
    KeyUseError,
    QuorumError,
    SignatureError,
    StageError,
)
from protocols.homomorphic import checks, polynomials
from protocols.homomorphic.fields import from_slots
from protocols.homomorphic.messages import (
    KEY_PURPOSE,
    RESULT_PURPOSE,
    SUM_PURPOSE,
    DecryptedSums,
    EncryptedSum,
    RoundKey,
)
from protocols.homomorphic.parameters import EncryptionProfile
from protocols.homomorphic.scheme import RoundSecret
from protocols.homomorphic.terms import Services, Terms
from protocols.identity import Identity, TrustStore
from protocols.ring import IntegerVector
from protocols.session import Segment, Session


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What a decryptor or verifier was set up to serve; it refuses everything else.

    Args:
        profile: Encryption parameters.
        services: Its own name and the other's.
        config_digest: Of the plan that all parties follow.
        least_quorum: No segment is opened over fewer holders.
    """

    profile: EncryptionProfile
    services: Services
    config_digest: bytes
    least_quorum: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Open:
    """A key that has not been used yet."""

    terms: Terms
    key: RoundKey
    secret: RoundSecret


@final
class Decryptor:
    """Serves the sessions of one run, one after the other.

    Args:
        charge: What it serves.
        trust: Whom it believes.
        identity: Its own, enrolled as a service.
    """

    def __init__(self, charge: Charge, trust: TrustStore, identity: Identity) -> None:
        self._charge = charge
        self._trust = trust
        self._identity = identity
        self._open: _Open | None = None
        self._newest: Session | None = None
        self._opened_round = 0

    def create_round_key(self, session: Session) -> RoundKey:
        """A fresh key for one session; the key of a session before it is forgotten, used or not.

        Raises:
            ContextError: The session is of another run or plan.
            StageError: Its round was opened already, or its round or attempt does not move forward.
            QuorumError: A segment could be opened over fewer holders than this decryptor allows.
            SessionError, IdentityError: As :class:`Terms`.
        """
        charge = self._charge
        check_session(charge, session, self._newest)
        if session.round <= self._opened_round:
            raise StageError(f"round {session.round}: round {self._opened_round} was opened already")
        terms = Terms(session=session, profile=charge.profile, trust=self._trust, services=charge.services)
        secret = RoundSecret.generate(charge.profile)
        key = RoundKey(
            context=terms.context, key=polynomials.encode(secret.public_key(), charge.profile.moduli)
        )
        signature = self._identity.sign(KEY_PURPOSE, key.signed_part())
        key = RoundKey(context=key.context, key=key.key, signature=signature)
        self._newest = session
        self._open = _Open(terms=terms, key=key, secret=secret)
        return key

    def decrypt(self, message: EncryptedSum, verified: bytes = b"") -> DecryptedSums:
        """Decrypt the sums of one session; the key is gone afterwards, whatever comes out.

        A message that is refused before the key is touched leaves the key for a better one.

        Args:
            message: The sums.
            verified: The verifier's signature of them; empty where there is no verifier.

        Raises:
            KeyUseError: There is no such key, or it was used.
            ContextError, RosterError, InputError, CiphertextError, IdentityError: The message is of another session, or
                a receipt in it does not hold.
            SignatureError: The verifier has not signed these sums.
            BelowThresholdError: Fewer contributors than the threshold.
            QuorumError: A segment has fewer holders among them than its quorum.
        """
        if self._open is None:
            raise KeyUseError("there is no key, or it was used: a round needs a key of its own")
        terms, secret, key_id = self._open.terms, self._open.secret, self._open.key.key_id
        present = checks.contributors(terms, message, key_id=key_id)
        self._check_verified(message, verified)
        if len(present) < terms.session.threshold:
            raise BelowThresholdError(
                f"{len(present)} contributors must be >= threshold={terms.session.threshold}"
            )
        segments = [terms.session.segments[index] for index in sorted(message.ciphertexts)]
        for segment in segments:
            if reason := checks.reason_to_keep_closed(terms, segment, message.receipts, present):
                raise QuorumError(f"segment {segment.index}: {reason}")
        pairs = {s.index: self._decode(s, message.ciphertexts[s.index]) for s in segments}

        # From here on the key counts as used.
        self._open = None
        self._opened_round = terms.session.round
        sums: dict[int, IntegerVector] = {}
        for segment in segments:
            sums[segment.index] = from_slots(
                secret.decrypt(pairs[segment.index]),
                terms.profile,
                members=len(terms.session.members),
                contributors=len(terms.present(segment, present)),
            )
        return self._signed(DecryptedSums.of(context=terms.context, sum_digest=message.digest, sums=sums))

    def _check_verified(self, message: EncryptedSum, signature: bytes) -> None:
        if verifier := self._charge.services.verifier:
            self._trust.verify(verifier, SUM_PURPOSE, message.digest, signature)
        elif signature:
            raise SignatureError("a verifier's signature, where there is no verifier")

    def _decode(self, segment: Segment, data: bytes) -> polynomials.Polynomials:
        profile = self._charge.profile
        return polynomials.decode(
            data,
            count=profile.ciphertexts(segment.length),
            moduli=profile.ciphertext_moduli,
            degree=profile.degree,
        )

    def _signed(self, message: DecryptedSums) -> DecryptedSums:
        signature = self._identity.sign(RESULT_PURPOSE, message.signed_part())
        return DecryptedSums(
            context=message.context, sum_digest=message.sum_digest, sums=message.sums, signature=signature
        )


def check_session(charge: Charge, session: Session, last: Session | None) -> None:
    """Refuse a session that is not the next one of the run that a service was set up for.

    Raises:
        ContextError: Another plan or run.
        StageError: Round or attempt does not move forward.
        QuorumError: A segment's quorum is below the service's own.
    """
    if session.config_digest != charge.config_digest:
        raise ContextError("the session follows another plan than this service was set up for")
    if last is not None and session.run != last.run:
        raise ContextError("the session belongs to another run")
    if last is not None and (session.round, session.attempt) <= (last.round, last.attempt):
        raise StageError(
            f"round {session.round} attempt {session.attempt} must come after "
            f"round {last.round} attempt {last.attempt}"
        )
    for segment in session.segments:
        if segment.quorum < charge.least_quorum:
            raise QuorumError(
                f"segment {segment.index}: quorum={segment.quorum} must be >= {charge.least_quorum}, "
                "below which this service opens nothing"
            )
