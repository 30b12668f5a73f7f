"""The homomorphic mode in one process: services behind local channels, and one authority that has enrolled everybody."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, final

from protocols.homomorphic.messages import EncryptedInput, RoundKey
from protocols.homomorphic.parties.client import HomomorphicClient, create_encrypted_input, signed
from protocols.homomorphic.parties.decryptor import Decryptor
from protocols.homomorphic.parties.server import COMMIT, STAGES, UPLOAD, HomomorphicServer
from protocols.homomorphic.parties.verifier import Verifier
from protocols.homomorphic.receipts import commitment_to, commitment_to_copy
from protocols.homomorphic.scheme.parameters import BFV_2X20, EncryptionProfile
from protocols.homomorphic.screening.screener import Screener
from protocols.homomorphic.screening.screening import Screening
from protocols.homomorphic.secure_sum import Homomorphic
from protocols.homomorphic.services.calls import Roles
from protocols.homomorphic.services.charge import Charge
from protocols.homomorphic.services.messages import Setup
from protocols.homomorphic.services.services import Channel, KeyedService, LocalChannel, Worker
from protocols.homomorphic.terms import EncryptionTerms, Services
from protocols.identity.trust import Identity, ThrowawayAuthority, TrustStore
from protocols.interface import ExtraSecrets, SecureSum, SumClient, SumServer
from protocols.primitives.signing import SigningKey
from protocols.session import ClientId, Session
from tests.contracts.sessions import PLAN, Inputs, make_inputs, names

NOW = 1_800_000_000
SERVICE_KEYS = {name: SigningKey.generate() for name in ("decryptor", "verifier")}
AUTHORITY = ThrowawayAuthority.create(
    dict.fromkeys(names(24), 4),
    now=NOW,
    services={name: key.public for name, key in SERVICE_KEYS.items()},
)
TRUST = AUTHORITY.view
ALONE = Services()
VERIFIED = Services(verifier="verifier")


def service_identity(name: str) -> Identity:
    """The identity of a service."""
    return Identity(client=name, key=SERVICE_KEYS[name], certificate=TRUST.check(name))


def charge_for(
    profile: EncryptionProfile = BFV_2X20,
    services: Services = ALONE,
    *,
    least_quorum: int = 1,
    screening: Screening | None = None,
    config_digest: bytes = PLAN,
    class_quorum: int = 0,
) -> Charge:
    """What services of the tests' plan serve."""
    return Charge(
        profile=profile,
        services=services,
        config_digests=frozenset({config_digest}),
        least_quorum=least_quorum,
        screening=screening,
        class_quorum=class_quorum,
    )


def make_decryptor(charge: Charge | None = None) -> Decryptor:
    """A decryptor that has served nobody yet."""
    return Decryptor(charge or charge_for(), TRUST, service_identity("decryptor"))


def make_verifier(charge: Charge | None = None) -> Verifier:
    """A verifier that has followed nobody yet."""
    return Verifier(charge or charge_for(services=VERIFIED), TRUST, service_identity("verifier"))


def terms_of(
    session: Session, charge: Charge | None = None, trust: TrustStore | None = None
) -> EncryptionTerms:
    """A session under a charge, for whoever believes these; by default what everybody believes at first."""
    return (charge or charge_for()).terms(session, trust or TRUST)


def refitted(
    terms: EncryptionTerms,
    message: EncryptedInput,
    ciphertexts: Mapping[int, bytes],
    copy: bytes | None = None,
) -> EncryptedInput:
    """A member's input with other bytes in it, under a receipt of its own that fits them."""
    copy = message.copy if copy is None else copy
    receipt = replace(
        message.receipt,
        digests={
            index: commitment_to(terms.context, message.receipt.sender, index, data)
            for index, data in ciphertexts.items()
        },
        copy_digest=commitment_to_copy(terms.context, message.receipt.sender, copy),
    )
    me = terms.session.client_at(receipt.sender)
    return EncryptedInput(
        receipt=signed(receipt, AUTHORITY.identity(me)), ciphertexts=dict(ciphertexts), copy=copy
    )


@final
@dataclass
class Recorder(Channel):
    """Lets everything through, and keeps it."""

    inner: Channel
    crossed: list[bytes] = field(default_factory=list)

    def ready(self) -> int:
        """As the service behind it."""
        return self.inner.ready()

    def exchange(self, request: bytes) -> bytes:
        """As the service behind it."""
        answer = self.inner.exchange(request)
        self.crossed += [request, answer]
        return answer

    def close(self) -> None:
        """As the service behind it."""
        self.inner.close()


def local_roles(charge: Charge) -> Roles:
    """Fresh services in this process, set up for a charge."""
    keyed = {}
    for name in charge.services.names:
        service = KeyedService(name, SERVICE_KEYS[name])
        service.set_up(Setup(charge=charge, trust=TRUST))
        keyed[name] = LocalChannel(service)
    return Roles(
        decryptor=keyed[charge.services.decryptor],
        verifier=keyed.get(charge.services.verifier),
        worker=LocalChannel(Worker()),
        screener=LocalChannel(Screener()) if charge.screening is not None else None,
    )


@final
class EveryonesHomomorphic(SecureSum):
    """The homomorphic mode with an identity for every member, and with fresh services for every server."""

    name: ClassVar[str] = "homomorphic"
    input_stage: ClassVar[str] = COMMIT

    def __init__(
        self, profile: EncryptionProfile = BFV_2X20, services: Services = ALONE, roles: Roles | None = None
    ) -> None:
        self._charge = charge_for(profile, services)
        self._roles = roles

    @property
    def stages(self) -> tuple[str, ...]:
        """Two."""
        return STAGES

    @property
    def upload_stage(self) -> str:
        """Who has only committed is not in the sum."""
        return UPLOAD

    def client(
        self, session: Session, me: ClientId, *, extra_secrets: ExtraSecrets | None = None
    ) -> SumClient:
        """A member's side."""
        session.position(me)
        return client_of(terms_of(session, self._charge), me, extra_secrets=extra_secrets)

    def server(self, session: Session) -> SumServer:
        """The server's side."""
        return server_of(terms_of(session, self._charge), self._roles or local_roles(self._charge))


def client_of(
    terms: EncryptionTerms, me: ClientId, *, extra_secrets: ExtraSecrets | None = None
) -> HomomorphicClient:
    """A member's side."""
    secure_sum = Homomorphic(
        terms.profile,
        terms.services,
        trust=terms.trust,
        identity=AUTHORITY.identity(me),
        screening=terms.screening,
    )
    return secure_sum.client(terms.session, me, extra_secrets=extra_secrets)


def server_of(terms: EncryptionTerms, roles: Roles) -> HomomorphicServer:
    """The aggregator's side."""
    return HomomorphicServer(terms, roles)


@final
@dataclass
class Meeting:
    """One session with honest services, of which a test drives the aggregator.

    Everybody commits when the first upload is asked for, unless the test has it otherwise.
    """

    session: Session
    charge: Charge
    roles: Roles
    server: HomomorphicServer
    inputs: Inputs
    clients: dict[ClientId, HomomorphicClient] = field(default_factory=dict)
    fixed: bool = False
    trust: TrustStore | None = None

    @classmethod
    def of(
        cls,
        session: Session,
        charge: Charge | None = None,
        inputs: Inputs | None = None,
        trust: TrustStore | None = None,
    ) -> "Meeting":
        """Everyone set up, nobody asked yet."""
        charge = charge or charge_for()
        roles = local_roles(charge)
        server = server_of(terms_of(session, charge, trust), roles)
        return cls(session, charge, roles, server, inputs or make_inputs(session), trust=trust)

    def use(self, roles: Roles) -> None:
        """Begin with other services."""
        self.roles = roles
        self.server = server_of(self.terms, roles)

    @property
    def terms(self) -> EncryptionTerms:
        """Of the session."""
        return terms_of(self.session, self.charge, self.trust)

    @property
    def key(self) -> RoundKey:
        """The round key."""
        return self.server._round_key()

    def client(self, member: ClientId) -> HomomorphicClient:
        """A member's side; always the same one."""
        if member not in self.clients:
            self.clients[member] = client_of(self.terms, member)
        return self.clients[member]

    def made(self, member: ClientId) -> EncryptedInput:
        """An honest input that nobody has committed to yet; another one each time."""
        return create_encrypted_input(
            self.terms, member, self.key, self.inputs[member], AUTHORITY.identity(member)
        )

    def commit(self, *members: ClientId) -> None:
        """Have members commit."""
        for member in members:
            request = self.server.requests()[member]
            self.server.receive(member, self.client(member).contribute(request, self.inputs[member]))

    def fix(self, *members: ClientId) -> None:
        """Have members commit, by default all, close the stage, and have the services fix the list."""
        self.commit(*(members or self.session.members))
        self.server.close_stage()
        self.server.requests()
        self.fixed = True

    def upload(self, member: ClientId) -> bytes:
        """A member's honest upload."""
        if not self.fixed:
            self.fix()
        return self.client(member).reply(self.server.requests()[member])

    def take(self, *members: ClientId) -> None:
        """Hand in honest uploads."""
        for member in members:
            self.server.receive(member, self.upload(member))

    def sums(self, bindings: Mapping[int, bytes]) -> dict[int, list[int]]:
        """What opens."""
        self.server.close_stage()
        return {index: values.tolist() for index, values in self.server.result(bindings).sums.items()}
