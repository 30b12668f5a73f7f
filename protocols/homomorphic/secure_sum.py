"""The homomorphic mode behind the contract `SecureSum`: one stage, bytes in, bytes out."""

from typing import ClassVar, final

from protocols.errors import RosterError, ServiceError
from protocols.homomorphic.client import HomomorphicClient
from protocols.homomorphic.parameters import EncryptionProfile
from protocols.homomorphic.screening import Screening
from protocols.homomorphic.server import STAGE, HomomorphicServer, Roles
from protocols.homomorphic.terms import Services, Terms
from protocols.identity import Identity, TrustStore
from protocols.interface import SecureSum
from protocols.session import ClientId, Session


@final
class Homomorphic(SecureSum):
    """Exact sums of BFV ciphertexts (Fan and Vercauteren 2012), under a key that only the decryptor can use.

    Claims: a client's ciphertexts tell nothing to whoever lacks the round's secret key (BFV's IND-CPA security). The
    aggregator, the verifier, other clients and anyone between them lack it. The decryptor has it, and is sent sums only:

    * without a verifier, if the aggregator follows the protocol and does not collude with the decryptor;
    * with a verifier, also if the aggregator lies, as long as the verifier colludes with neither.

    An aggregator and a decryptor that collude read every single update: that is the trust this mode is made of.

    Not claimed: anything against a client that departs from the protocol and knows the others' ciphertexts before it
    uploads its own, from an aggregator, a verifier or a wire that shows them. Ciphertexts can be computed with: such a client
    uploads the negatives of all the others' but one, and the sum that is honestly verified and opened is that one's update.
    A test shows it. Uploads must travel encrypted, and aggregator and verifier must keep them from clients.

    Args:
        profile: Encryption parameters.
        services: Who decrypts, and who verifies.
        trust: Whose signatures count.
        identity: At a client: what it signs with.
        screening: By which rule single updates are screened; None screens nothing.
        roles: At the server: how services are reached.
    """

    name: ClassVar[str] = "homomorphic"
    input_stage: ClassVar[str] = STAGE

    def __init__(
        self,
        profile: EncryptionProfile,
        services: Services,
        *,
        trust: TrustStore,
        identity: Identity | None = None,
        screening: Screening | None = None,
        roles: Roles | None = None,
    ) -> None:
        self.profile = profile
        self.services = services
        self._trust = trust
        self._identity = identity
        self._screening = screening
        self._roles = roles

    @property
    def stages(self) -> tuple[str, ...]:
        """One."""
        return (STAGE,)

    def terms(self, session: Session) -> Terms:
        """The session under this profile; raises what :class:`Terms` raises."""
        return Terms(
            session=session,
            profile=self.profile,
            trust=self._trust,
            services=self.services,
            screening=self._screening,
        )

    def client(self, session: Session, me: ClientId) -> HomomorphicClient:
        """The client side for one member."""
        if self._identity is None or self._identity.client != me:
            raise RosterError(f"{me} has no identity to sign with")
        return HomomorphicClient(self.terms(session), me, self._identity)

    def server(self, session: Session) -> HomomorphicServer:
        """The server side."""
        if self._roles is None:
            raise ServiceError("a server of the homomorphic mode needs a decryptor and a worker")
        if bool(self.services.verifier) != (self._roles.verifier is not None):
            raise ServiceError("the terms and the server's services must both have a verifier, or neither")
        return HomomorphicServer(self.terms(session), self._roles)
