"""Sums in the clear: for baselines, oracles and filters over single updates."""

from typing import TYPE_CHECKING, ClassVar, final

from protocols.identity.trust import Identity, TrustStore
from protocols.interface import SecureSum
from protocols.plain import Plain
from rbla_secure.config import Config
from rbla_secure.planning.disclosure import PUBLIC, Learned, Opened
from rbla_secure.planning.modes.mode import Mode

if TYPE_CHECKING:  # they name the mode in turn
    from rbla_secure.planning.promises import Promises

if TYPE_CHECKING:  # the plan checks itself by its mode
    from protocols.homomorphic.services.calls import Roles
    from rbla_secure.planning.plan import Plan


@final
class PlainMode(Mode):
    """The server reads every single upload, so it can filter them, and open sums over whoever is there."""

    reads_uploads: ClassVar[bool] = True
    opens_over_anybody: ClassVar[bool] = True

    def build(
        self,
        plan: "Plan",
        *,
        trust: TrustStore | None,  # noqa: ARG002
        identity: Identity | None,  # noqa: ARG002
        roles: "Roles | None",  # noqa: ARG002
    ) -> SecureSum:
        """Build a sum that keeps inputs where a filter judges them, and bounds each where noise follows their sum."""
        config = plan.config
        return Plain(
            keep_inputs=config.robustness.has_filter,
            whoever_is_there=plan.promises.whoever_is_there,
            bounded=plan.promises.noise_follows,
        )

    def learned(self, plan: "Plan", opened: Opened) -> list[Learned]:  # noqa: ARG002
        """Say that the server reads everything that clients send."""
        return [Learned("server", f"every update of every client; {PUBLIC}", "the clients' examples")]

    def warnings(self, promises: "Promises") -> list[str]:  # noqa: ARG002
        """Warn that this mode protects nothing."""
        return ["INSECURE: secure-sum=plain shows every single update to the server"]

    def lists_may_differ(self, config: Config) -> bool:  # noqa: ARG002
        """Return True: clients see no list at all."""
        return True


MODE = PlainMode()
