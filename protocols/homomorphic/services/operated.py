"""The services of the homomorphic mode for one run: each in a process of its own, for as long as the run.

A decryptor or verifier makes its own identity key, is enrolled under it, and is then told by its operator whom to believe;
its private key and the round keys never leave its process. In a run on one machine `HomomorphicServices` plays the operators:
it alone holds their lines. The aggregator is handed `Roles`, channels on which no service takes a setup. What each is
sent there and how long it takes is counted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import final

from protocols.errors import ProtocolError
from protocols.homomorphic.screening.at_verifier import NOTHING_YET, Reference
from protocols.homomorphic.screening.screening import RealVector
from protocols.homomorphic.services.calls import Roles
from protocols.homomorphic.services.charge import Charge
from protocols.homomorphic.services.messages import HELLO, REFERENCE, Setup
from protocols.homomorphic.services.processes import ProcessChannel
from protocols.homomorphic.services.services import Channel, payload_of
from protocols.identity.trust import TrustStore
from protocols.session import ClientId

Direction = Mapping[int, RealVector] | None


@final
@dataclass(slots=True)
class Metered(Channel):
    """A channel that counts the bytes to and from a service."""

    inner: Channel
    bytes_to: int = 0
    bytes_from: int = 0
    seconds: float = 0.0

    def ready(self) -> int:
        """Start the service behind it if need be, and return the number of its incarnation."""
        return self.inner.ready()

    def exchange(self, request: bytes) -> bytes:
        """Exchange one request with the service behind it; count the bytes and the seconds."""
        began = perf_counter()
        answer = self.inner.exchange(request)
        self.seconds += perf_counter() - began
        self.bytes_to += len(request)
        self.bytes_from += len(answer)
        return answer

    def close(self) -> None:
        """Close the service behind it."""
        self.inner.close()


@final
@dataclass(frozen=True, slots=True)
class HomomorphicServices:
    """Decryptor, worker and, if the charge names one, verifier. Without it, a screener where updates are screened."""

    charge: Charge
    processes: dict[ClientId, ProcessChannel] = field(default_factory=dict)
    keyed: dict[ClientId, Metered] = field(default_factory=dict)
    workers: dict[str, Metered] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.charge.services.names:
            self.processes[name] = ProcessChannel(name, name)
            self.keyed[name] = Metered(self.processes[name])
        # Where there is a verifier, it alone computes what is screened.
        screens = self.charge.screening is not None and not self.charge.services.verifier
        for name in ("worker", *(("screener",) if screens else ())):
            self.workers[name] = Metered(ProcessChannel(name, name, restarts=True))

    def public_keys(self) -> Mapping[ClientId, bytes]:
        """Return the public keys that the authority has to enrol, by service. Raises ServiceError."""
        return {name: channel.call(HELLO) for name, channel in self.keyed.items()}

    def configure(self, trust: TrustStore) -> None:
        """Set, for the operators, whom the services believe from now on, and `trust.moment` as the time.

        All of them are told before a refusal is raised: lists that take the first one back concern the second one most.

        Raises:
            ServiceError: A service is gone.
            ProtocolError: It refuses.
        """
        request = Setup(charge=self.charge, trust=trust).to_bytes()
        refused: list[ProtocolError] = []
        for process in self.processes.values():
            try:
                payload_of(process.operate(request))
            except ProtocolError as error:
                refused.append(error)
        if refused:
            raise refused[0]

    def set_up(self, trust: TrustStore, reference: Callable[[], Direction] = lambda: None) -> Roles:
        """Configure the services; return what a server needs to work with them.

        Args:
            trust: The view of whom to believe.
            reference: By segment, the public direction that updates are compared with if no verifier knows it; None
                before there is one.

        Raises:
            ServiceError: A service is gone.
            ProtocolError: It refuses.
        """
        self.configure(trust)
        names = self.charge.services
        return Roles(
            decryptor=self.keyed[names.decryptor],
            worker=self.workers["worker"],
            verifier=self.keyed.get(names.verifier),
            screener=self.workers.get("screener"),
            reference=reference,
        )

    @property
    def keep_a_direction(self) -> bool:
        """Whether these services alone know the direction that updates are compared with."""
        return self.charge.screening is not None and bool(self.charge.services.verifier)

    def direction_to_keep(self) -> bytes:
        """Return the direction for the next updates, for the verifier's operator to restore after a restart.

        Empty where the checkpoints tell it; nothing (but bytes that say so) where the verifier is gone or says nothing that
        could be kept: its round is over and counts all the same.
        """
        if not self.keep_a_direction:
            return b""
        verifier = self.processes[self.charge.services.verifier]
        try:
            return Reference.from_bytes(payload_of(verifier.operate(REFERENCE))).to_bytes()
        except ProtocolError:
            return NOTHING_YET.to_bytes()

    def recall(self, direction: bytes) -> None:
        """Give newly set-up services, for the operators, what :meth:`direction_to_keep` returned after the last round.

        Raises:
            ServiceError: A service is gone.
            ProtocolError: It refuses.
        """
        if direction and self.keep_a_direction:
            for process in self.processes.values():
                payload_of(process.operate(direction))

    def channels(self) -> Mapping[str, Metered]:
        """Return all channels, by name."""
        return {**self.keyed, **self.workers}

    def close(self) -> None:
        """End the processes; their keys are lost with them."""
        for channel in self.channels().values():
            channel.close()
