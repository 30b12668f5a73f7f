"""The decryptor: makes a key per session, decrypts one sum per band with it, and forgets it.

It is an organisation of its own. It never receives a client's ciphertext, only sums and the signed receipts of those whose
inputs they hold; it decides for itself whether they are enough. What it cannot see is whether a sum really is the sum
of the inputs with these receipts: a lying aggregator could send one client's ciphertext in its place. Hence the
verifier, whose signature it then demands; without one, it trusts the aggregator to follow the protocol.

Guarantees, whatever it is asked: per key at most one decryption of every segment, all over one list of contributors;
no segment below its quorum or below `least_quorum`; never two sums of one round.
"""

from dataclasses import dataclass, replace
from typing import final

from protocols.errors import (
    BelowThresholdError,
    ContextError,
    KeyUseError,
    QuorumError,
    ScreeningError,
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
from protocols.homomorphic.screening import DEGREE, MODULI, SCALAR_MODULI, Screening
from protocols.homomorphic.screening_messages import (
    EVALUATION_PURPOSE,
    EvaluationKeys,
    ScreeningNumbers,
    ScreeningResult,
)
from protocols.homomorphic.screening_scheme import ScreeningSecret
from protocols.homomorphic.terms import Services, Terms
from protocols.identity import Identity, TrustStore
from protocols.ring import IntegerVector
from protocols.session import Segment, Session


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What a decryptor or verifier was set up to serve; it refuses everything else.

    `screening` is the rule by which single updates are screened, if they are.

    Args:
        profile: Encryption parameters.
        services: Its own name and the other's.
        config_digests: Of the plan that all parties follow, in each form that a round may give it.
        least_quorum: No segment is opened over fewer holders.
    """

    profile: EncryptionProfile
    services: Services
    config_digests: frozenset[bytes]
    least_quorum: int
    screening: Screening | None = None

    def terms(self, session: Session, trust: TrustStore) -> Terms:
        """A session under this charge; raises what :class:`Terms` raises."""
        return Terms(
            session=session,
            profile=self.profile,
            trust=trust,
            services=self.services,
            screening=self.screening,
        )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Open:
    """A key that has not been used yet."""

    terms: Terms
    key: RoundKey
    secret: RoundSecret
    screening: ScreeningSecret | None
    passed: dict[int, bool]


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
        terms = charge.terms(session, self._trust)
        secret = RoundSecret.generate(charge.profile)
        screening = ScreeningSecret.generate() if charge.screening is not None else None
        copies = polynomials.encode(screening.public_key(), MODULI) if screening is not None else b""
        key = RoundKey(
            context=terms.context,
            key=polynomials.encode(secret.public_key(), charge.profile.moduli),
            screening_key=copies,
        )
        key = replace(key, signature=self._identity.sign(KEY_PURPOSE, key.signed_part()))
        self._newest = session
        self._open = _Open(terms=terms, key=key, secret=secret, screening=screening, passed={})
        return key

    def evaluation_keys(self) -> EvaluationKeys:
        """What the aggregator needs to compute on copies of the session at hand.

        Raises:
            KeyUseError: No session is open, or it screens nothing.
        """
        opened, screening = self._screening()
        keys = EvaluationKeys(context=opened.terms.context, keys=screening.evaluation_keys())
        return replace(keys, signature=self._identity.sign(EVALUATION_PURPOSE, keys.signed_part()))

    def screen(self, message: ScreeningNumbers) -> ScreeningResult:
        """Open the numbers of one client's update, once, and let out what the rule lets out.

        What is opened has the shape of a number, one ciphertext of the lowest level; that it is one cannot be seen.

        Raises:
            KeyUseError: No session is open, or it screens nothing.
            ContextError, RosterError, CiphertextError: The numbers are of another session or no member, or malformed.
            ScreeningError: This client was screened before.
        """
        opened, screening = self._screening()
        terms, rule = opened.terms, self._charge.screening
        checks.check_context(terms, message.context)
        name = terms.session.client_at(message.sender)
        if rule is None or message.sender in opened.passed:
            raise ScreeningError(f"{name}: was screened before; a client is screened once per session")
        squared = self._scalar(message.squared_norm)
        product = self._scalar(message.projection) if message.projection else None
        opened.passed[message.sender] = False  # whatever comes out, this was the one time
        screened = rule.judge(
            squared_norm=screening.open(squared),
            projection=screening.open(product) if product is not None else None,
        )
        opened.passed[message.sender] = not screened.reason
        return ScreeningResult.of(screened)

    def _screening(self) -> tuple[_Open, ScreeningSecret]:
        if self._open is None or self._open.screening is None:
            raise KeyUseError("there is no key for screening: no session is open, or it screens nothing")
        return self._open, self._open.screening

    def _scalar(self, data: bytes) -> polynomials.Polynomials:
        return polynomials.decode(data, count=1, moduli=SCALAR_MODULI, degree=DEGREE)

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
            ScreeningError: A contributor was not screened, or did not pass.
        """
        if self._open is None:
            raise KeyUseError("there is no key, or it was used: a round needs a key of its own")
        terms, secret, key_id = self._open.terms, self._open.secret, self._open.key.key_id
        present = checks.contributors(terms, message, key_id=key_id)
        self._check_verified(message, verified)
        self._check_screened(self._open, present)
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

    def _check_screened(self, opened: _Open, present: frozenset[int]) -> None:
        if opened.screening is None:
            return
        # Whoever holds no segment has nothing to screen.
        holding = {p for s in opened.terms.session.segments for p in opened.terms.present(s, present)}
        if odd := sorted(position for position in holding if not opened.passed.get(position)):
            name = opened.terms.session.client_at(odd[0])
            raise ScreeningError(f"{name}: contributes without having passed the screening")

    def _decode(self, segment: Segment, data: bytes) -> polynomials.Polynomials:
        profile = self._charge.profile
        return polynomials.decode(
            data,
            count=profile.ciphertexts(segment.length),
            moduli=profile.ciphertext_moduli,
            degree=profile.degree,
        )

    def _signed(self, message: DecryptedSums) -> DecryptedSums:
        return replace(message, signature=self._identity.sign(RESULT_PURPOSE, message.signed_part()))


def check_session(charge: Charge, session: Session, last: Session | None) -> None:
    """Refuse a session that is not the next one of the run that a service was set up for.

    Raises:
        ContextError: Another plan or run.
        StageError: Round or attempt does not move forward.
        QuorumError: A segment's quorum is below the service's own.
    """
    if session.config_digest not in charge.config_digests:
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
