"""Sums in the clear: for baselines, oracles and filters over single updates."""

from typing import TYPE_CHECKING, ClassVar, final

from protocols.homomorphic.screening.screening import Screening
from protocols.homomorphic.services.calls import Roles
from protocols.identity.trust import Identity, TrustStore
from protocols.interface import SecureSum
from protocols.plain import Plain
from rbla_secure.config import Config
from rbla_secure.config.choices import FilterName
from rbla_secure.planning.modes.mode import Mode

if TYPE_CHECKING:  # they name the mode in turn
    from rbla_secure.planning.promises import Promises


@final
class PlainMode(Mode):
    """The server reads every single upload, so it can filter them, and open sums over whoever is there."""

    reads_uploads: ClassVar[bool] = True
    opens_over_anybody: ClassVar[bool] = True

    def build(
        self,
        promises: "Promises",
        *,
        screening: Screening | None,  # noqa: ARG002
        trust: TrustStore | None,  # noqa: ARG002
        identity: Identity | None,  # noqa: ARG002
        roles: Roles | None,  # noqa: ARG002
    ) -> SecureSum:
        """Inputs are kept where a filter judges them, and bounded one by one where noise comes after their sum."""
        return Plain(
            keep_inputs=promises.config.robustness.filter is not FilterName.NONE,
            whoever_is_there=promises.whoever_is_there,
            bounded=promises.noise_follows,
        )

    def warnings(self, promises: "Promises") -> list[str]:  # noqa: ARG002
        """That it protects nothing."""
        return ["INSECURE: secure-sum=plain shows every single update to the server"]

    def lists_may_differ(self, config: Config) -> bool:  # noqa: ARG002
        """Clients see no list at all."""
        return True
