"""Sessions in which encrypted updates are screened."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocols.homomorphic.messages import EncryptedInput, RoundKey
from protocols.homomorphic.parties.client import HomomorphicClient, create_encrypted_input
from protocols.homomorphic.parties.server import HomomorphicServer
from protocols.homomorphic.scheme.parameters import BFV_2X20
from protocols.homomorphic.screening.screener import Screener
from protocols.homomorphic.screening.screening import (
    Screening,
    ScreeningRelease,
)
from protocols.homomorphic.secure_sum import Homomorphic
from protocols.homomorphic.services.calls import Roles
from protocols.homomorphic.services.charge import Charge
from protocols.homomorphic.services.messages import Setup
from protocols.homomorphic.services.services import KeyedService, LocalChannel, Worker
from protocols.homomorphic.terms import Services
from protocols.identity.trust import ThrowawayAuthority
from protocols.interface import SegmentInput
from protocols.primitives.signing import SigningKey
from protocols.session import Session
from tests.contracts.sessions import MODEL, PLAN, names

NOW = 1_800_000_000
MEMBERS = names(4)
RULE = Screening(max_norm=10.0, release=ScreeningRelease.VALUES)
Direction = Mapping[int, npt.NDArray[np.float64]] | None
Values = npt.NDArray[np.int64]


@dataclass
class Parties:
    """One session in which updates are screened, all services in this process."""

    session: Session
    rule: Screening
    authority: ThrowawayAuthority
    decryptor: KeyedService
    server: HomomorphicServer
    clients: dict[str, HomomorphicClient]

    @classmethod
    def meet(cls, rule: Screening, session: Session, direction: Direction = None) -> "Parties":
        """Everyone enrolled and set up."""
        key = SigningKey.generate()
        decryptor = KeyedService("decryptor", key)
        authority = ThrowawayAuthority.create(
            dict.fromkeys(MEMBERS, 8), now=NOW, services={"decryptor": key.public}
        )
        charge = Charge(
            profile=BFV_2X20,
            services=Services(),
            config_digests=frozenset({PLAN}),
            least_quorum=1,
            screening=rule,
        )
        decryptor.set_up(Setup(charge=charge, trust=authority.view))
        roles = Roles(
            decryptor=LocalChannel(decryptor),
            worker=LocalChannel(Worker()),
            screener=LocalChannel(Screener()),
            reference=lambda: direction,
        )
        made = Homomorphic(BFV_2X20, Services(), trust=authority.view, screening=rule, roles=roles)
        return cls(session, rule, authority, decryptor, made.server(session), {})

    def inputs(self, member: str, values: Values) -> dict[int, SegmentInput]:
        """One vector for all segments of a member."""
        return {
            part.index: SegmentInput(values=values[: part.length], binding=MODEL)
            for part in self.session.segments_of(member)
        }

    def made(self, member: str, values: Values) -> EncryptedInput:
        """An input that nobody has committed to yet."""
        return create_encrypted_input(
            self.server._terms,
            member,
            RoundKey.from_bytes(self.server.requests()[member]),
            self.inputs(member, values),
            self.authority.identity(member),
        )

    def commit(self, member: str, values: Values) -> None:
        """Have a member commit to one vector."""
        identity = self.authority.identity(member)
        secure_sum = Homomorphic(
            BFV_2X20, Services(), trust=self.authority.view, identity=identity, screening=self.rule
        )
        self.clients[member] = secure_sum.client(self.session, member)
        request = self.server.requests()[member]
        receipt = self.clients[member].contribute(request, self.inputs(member, values))
        self.server.receive(member, receipt)

    def uploads(self, values: Iterable[Values]) -> dict[str, bytes]:
        """Everyone's honest upload of its vector, all committed to."""
        for member, own in zip(MEMBERS, values, strict=False):
            self.commit(member, own)
        self.server.close_stage()
        return {member: self.upload(member) for member in self.clients}

    def upload(self, member: str) -> bytes:
        """What a member sends once the list is fixed."""
        return self.clients[member].reply(self.server.requests()[member])

    def take(self, values: Iterable[Values]) -> None:
        """Everyone commits and uploads."""
        for member, upload in self.uploads(values).items():
            self.server.receive(member, upload)

    def sums(self) -> Mapping[int, npt.NDArray[np.int64]]:
        """What opens over those who were taken."""
        self.server.close_stage()
        return self.server.result({part.index: MODEL for part in self.session.segments}).sums


def make_values(seed: int, length: int = 50, bound: int = 1000) -> Values:
    return np.random.default_rng(seed).integers(-bound, bound, length, endpoint=True)
