"""Sums in the clear: for baselines, oracles and filters over single updates."""

from typing import ClassVar, final

from protocols.homomorphic.screening.screening import Screening
from protocols.homomorphic.services.calls import Roles
from protocols.identity.trust import Identity, TrustStore
from protocols.interface import SecureSum
from protocols.plain import Plain
from rbla_secure.config import Config
from rbla_secure.planning.modes.mode import Mode
from rbla_secure.planning.noise_settings import noise_follows, whoever_is_there


@final
class PlainMode(Mode):
    """The server reads every single upload, so it can filter them, and open sums over whoever is there."""

    reads_uploads: ClassVar[bool] = True
    opens_over_anybody: ClassVar[bool] = True

    def build(
        self,
        config: Config,
        *,
        screening: Screening | None,  # noqa: ARG002
        trust: TrustStore | None,  # noqa: ARG002
        identity: Identity | None,  # noqa: ARG002
        roles: Roles | None,  # noqa: ARG002
    ) -> SecureSum:
        """Inputs are kept where a filter judges them, and bounded one by one where noise comes after their sum."""
        return Plain(
            keep_inputs=config.robustness.has_filter,
            whoever_is_there=whoever_is_there(config),
            bounded=noise_follows(config),
        )

    def warnings(self, config: Config) -> list[str]:  # noqa: ARG002
        """That it protects nothing."""
        return ["INSECURE: secure-sum=plain shows every single update to the server"]

    def lists_may_differ(self, config: Config) -> bool:  # noqa: ARG002
        """Clients see no list at all."""
        return True
