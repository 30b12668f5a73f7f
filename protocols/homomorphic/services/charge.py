"""The charge of a decryptor or verifier, set by its own operator; the service refuses everything else."""

from dataclasses import dataclass
from typing import final

from protocols.errors import ContextError, QuorumError, RosterError, SessionError, StageError
from protocols.homomorphic.scheme.parameters import EncryptionProfile
from protocols.homomorphic.screening.screening import Screening
from protocols.homomorphic.terms import EncryptionTerms, Services
from protocols.identity.trust import TrustStore
from protocols.session import MAX_MEMBERS, MAX_SEGMENTS, Session


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """The terms that all sessions of a run share, as far as a service needs them.

    Args:
        profile: Encryption parameters.
        services: Names of this service and of the other.
        config_digests: Digests of the plan that all parties follow, one for each form that a round may give it.
        least_quorum: Fewest holders over whom a segment is opened.
        screening: The rule by which single updates are screened, if they are.
        class_quorum: Least members of one rank in a sum that has any of that rank, in every session: see `Session`.
        most_members: Most members of a session; larger ones are refused before they are read.
        most_segments: Most segments of a session; larger ones are refused before they are read.
    """

    profile: EncryptionProfile
    services: Services
    config_digests: frozenset[bytes]
    least_quorum: int
    screening: Screening | None = None
    class_quorum: int = 0
    most_members: int = MAX_MEMBERS
    most_segments: int = MAX_SEGMENTS

    def terms(self, session: Session, trust: TrustStore) -> EncryptionTerms:
        """Return a session's terms under this charge; raises as :class:`EncryptionTerms`."""
        return EncryptionTerms(
            session=session,
            profile=self.profile,
            trust=trust,
            services=self.services,
            screening=self.screening,
        )


def check_session(charge: Charge, session: Session, last: Session | None) -> None:
    """Refuse a session that is not the next one of the run that a service was set up for.

    Raises:
        ContextError: Another plan or run.
        StageError: Round or attempt does not move forward.
        QuorumError: A segment's quorum, or that of classes, is below the service's own.
        RosterError, SessionError: More members or segments than there can be.
    """
    if len(session.members) > charge.most_members:
        raise RosterError(f"{len(session.members)} members must be at most {charge.most_members}")
    if len(session.segments) > charge.most_segments:
        raise SessionError(f"{len(session.segments)} segments must be at most {charge.most_segments}")
    if session.config_digest not in charge.config_digests:
        raise ContextError("the session follows another plan than this service was set up for")
    if last is not None and session.run != last.run:
        raise ContextError("the session belongs to another run")
    if last is not None and (session.round, session.attempt) <= (last.round, last.attempt):
        raise StageError(
            f"round {session.round} attempt {session.attempt} must come after "
            f"round {last.round} attempt {last.attempt}"
        )
    if session.class_quorum < charge.class_quorum:
        raise QuorumError(
            f"class_quorum={session.class_quorum} must be >= {charge.class_quorum}, below which this service opens nothing"
        )
    for segment in session.segments:
        if segment.quorum < charge.least_quorum:
            raise QuorumError(
                f"segment {segment.index}: quorum={segment.quorum} must be >= {charge.least_quorum}, "
                "below which this service opens nothing"
            )
