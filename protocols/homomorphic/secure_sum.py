"""The homomorphic mode behind the contract `SecureSum`: commit, upload; bytes in, bytes out."""

from typing import ClassVar, final

from protocols.errors import RosterError, ServiceError
from protocols.homomorphic.parties.client import HomomorphicClient
from protocols.homomorphic.parties.server import COMMIT, STAGES, UPLOAD, HomomorphicServer
from protocols.homomorphic.scheme.parameters import EncryptionProfile
from protocols.homomorphic.screening.screening import Screening
from protocols.homomorphic.services.calls import Roles
from protocols.homomorphic.terms import EncryptionTerms, Services
from protocols.identity.trust import Identity, TrustStore
from protocols.interface import ExtraSecrets, SecureSum, refuse_extra_secrets
from protocols.session import ClientId, Session


@final
class Homomorphic(SecureSum):
    """Exact sums of BFV ciphertexts (Fan and Vercauteren 2012), under a key that only the decryptor can use.

    Claims: a client's ciphertexts tell nothing to whoever lacks the round's secret key (BFV's IND-CPA security). The
    aggregator, the verifier, other clients and anyone between them lack it. The decryptor has it, and is sent sums only:

    * without a verifier, if the aggregator follows the protocol and does not collude with the decryptor;
    * with a verifier, also if the aggregator lies and colludes with clients, as long as the verifier colludes with neither.

    An aggregator and a decryptor that collude read every single update: that is the trust this mode is made of.

    Ciphertexts can be computed with: the negatives of all others' but one, as an input, would leave that one alone in an
    honestly verified sum; a copy would count it twice. Hence the commit stage. Every client signs the digests of its
    ciphertexts, each hashed with its own name; decryptor and verifier fix the list of all receipts; a client uploads
    only for a list that they have signed and that has its own receipt; and nothing else than what is listed is added. So
    every input was chosen before its sender could know another's ciphertext (the commitments of coin tossing,
    Blum 1983, in the random-oracle model: SHA-256 of a fresh encryption neither shows it nor opens to another).

    Without a verifier a lying aggregator is not held to the list: what it sends as "the sum" of a band is decrypted. One
    request can open as many different clients as there are bands. A test shows it.

    Args:
        profile: Encryption parameters.
        services: Names of the decryptor and the verifier.
        trust: The view of whose signatures count.
        identity: At a client: the identity that signs.
        screening: The rule by which single updates are screened; None screens nothing.
        roles: At the server: the channels to the services.
    """

    name: ClassVar[str] = "homomorphic"
    input_stage: ClassVar[str] = COMMIT

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
        """Two stages: inputs are committed to in the exchange that carries the key, and sent in the next one."""
        return STAGES

    @property
    def upload_stage(self) -> str:
        """The second stage: a client that has only committed is not in the sum."""
        return UPLOAD

    def terms(self, session: Session) -> EncryptionTerms:
        """Return the session under this profile; raises as :class:`EncryptionTerms`."""
        return EncryptionTerms(
            session=session,
            profile=self.profile,
            trust=self._trust,
            services=self.services,
            screening=self._screening,
        )

    def client(
        self, session: Session, me: ClientId, *, extra_secrets: ExtraSecrets | None = None
    ) -> HomomorphicClient:
        """Open the client side for one member."""
        refuse_extra_secrets(self, extra_secrets)
        if self._identity is None or self._identity.client != me:
            raise RosterError(f"{me} has no identity to sign with")
        return HomomorphicClient(self.terms(session), me, self._identity)

    def server(self, session: Session) -> HomomorphicServer:
        """Open the server side."""
        if self._roles is None:
            raise ServiceError("a server of the homomorphic mode needs a decryptor and a worker")
        if bool(self.services.verifier) != (self._roles.verifier is not None):
            raise ServiceError("the terms and the server's services must both have a verifier, or neither")
        return HomomorphicServer(self.terms(session), self._roles)
