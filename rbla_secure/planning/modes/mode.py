"""The interface of a secure sum for the plan, beside its addition (`protocols/interface.py`)."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from protocols.identity.trust import Identity, TrustStore
from protocols.interface import SecureSum
from protocols.profiles import SEMI_HONEST, MaskingProfile
from rbla_secure.config import Config
from rbla_secure.planning.disclosure import Learned, Opened

if TYPE_CHECKING:  # the plan checks itself by its mode; only one mode brings services
    from protocols.homomorphic.services.calls import Roles
    from protocols.homomorphic.services.operated import HomomorphicServices
    from rbla_secure.planning.plan import Plan

if TYPE_CHECKING:  # they name the mode in turn
    from rbla_secure.planning.promises import Promises


class Mode(ABC):
    """A secure sum as a configuration can name it. Stateless: everything follows from the configuration.

    Attributes:
        reads_uploads: Whether the server reads every single upload.
        opens_over_anybody: Whether it can open every band over whoever has answered, also over nobody.
        sums_groups: Whether it can sum groups of clients separately.
        shares_secrets: Whether clients share further secrets with each other, which are recovered by a rule of the session.
        needs_services: Whether parties other than server and clients take part.
        noise_may_follow: Whether the server may add noise to opened sums: one client that exceeds its bound must then not move
            them by more than its own input.
        instead_of_filters: The replacement for a filter over single updates; empty where these can be filtered.
    """

    reads_uploads: ClassVar[bool] = False
    opens_over_anybody: ClassVar[bool] = False
    sums_groups: ClassVar[bool] = True
    shares_secrets: ClassVar[bool] = False
    needs_services: ClassVar[bool] = False
    noise_may_follow: ClassVar[bool] = True
    instead_of_filters: ClassVar[str] = ""

    @abstractmethod
    def build(
        self,
        plan: "Plan",
        *,
        trust: TrustStore | None,
        identity: Identity | None,
        roles: "Roles | None",
    ) -> SecureSum:
        """Build the secure sum itself.

        Args:
            plan: The terms.
            trust: The keys whose signatures count.
            identity: At a participant, its signing identity.
            roles: At the server, the channels to the services.

        Raises:
            PlanError: Something that it needs is missing.
        """

    @abstractmethod
    def learned(self, plan: "Plan", opened: Opened) -> list[Learned]:
        """List what the parties of this secure sum learnt in a run: the server, its services and their colluders.

        Args:
            plan: The plan of the run.
            opened: The sums that were opened.
        """

    def start_services(self, plan: "Plan") -> "HomomorphicServices | None":  # noqa: ARG002
        """Start the parties other than server and clients, where there are any. Raises ServiceError."""
        return None

    def check(self, promises: "Promises") -> None:  # noqa: B027  # there is nothing that sums in the clear cannot keep
        """Refuse what this secure sum cannot keep. Raises PlanError, which names the argument, its value and the rule."""

    def warnings(self, promises: "Promises") -> list[str]:  # noqa: ARG002
        """Return a warning for each setting that is allowed but weakens the run in this secure sum."""
        return []

    def claim(self, config: Config) -> str:  # noqa: ARG002
        """Return, as the end of a sentence, against which server sums are claimed to protect; empty if against none."""
        return ""

    def sum_bits(self, config: Config) -> int:
        """Return the number of bits in which a sum and its noise must fit."""
        return config.quantization.ring_bits

    def profile(self, config: Config) -> MaskingProfile:  # noqa: ARG002
        """Return the security parameters that give the least threshold."""
        return SEMI_HONEST

    def server_may_lie(self, config: Config) -> bool:  # noqa: ARG002
        """Return whether a server that breaks the protocol is covered by a claim; all messages are signed then."""
        return False

    def lists_may_differ(self, config: Config) -> bool:  # noqa: ARG002
        """Return whether clients may answer different survivor lists; one then says nothing of another segment."""
        return False

    def clients_count_survivors(self, config: Config) -> bool:  # noqa: ARG002
        """Return whether clients require more survivors than the quorum to open a segment, because lists may differ."""
        return False

    def screens(self, config: Config) -> bool:  # noqa: ARG002
        """Return whether single updates are screened while they are encrypted."""
        return False
