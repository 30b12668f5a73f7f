"""Sums of ciphertexts: a decryptor opens them, and is sent sums only."""

from typing import TYPE_CHECKING, ClassVar, final

from protocols.errors import ProtocolError
from protocols.homomorphic.scheme import bfv, parameters
from protocols.homomorphic.screening.screening import Screening
from protocols.homomorphic.secure_sum import Homomorphic
from protocols.homomorphic.services.calls import Roles
from protocols.identity.trust import Identity, TrustStore
from protocols.interface import SecureSum
from rbla_secure.config import Config
from rbla_secure.config.choices import Screen
from rbla_secure.errors import PlanError
from rbla_secure.planning.modes.mode import Mode
from rbla_secure.planning.parameters import encryption_profile, services

if TYPE_CHECKING:  # they name the mode in turn
    from rbla_secure.planning.promises import Promises


@final
class HomomorphicMode(Mode):
    """BFV ciphertexts, with a decryptor and, if the configuration wants it, a verifier."""

    sums_groups: ClassVar[bool] = False
    needs_services: ClassVar[bool] = True
    # Fields of a ciphertext carry into each other.
    noise_may_follow: ClassVar[bool] = False
    instead_of_filters: ClassVar[str] = "use homomorphic.screening"

    def build(
        self,
        promises: "Promises",
        *,
        screening: Screening | None,
        trust: TrustStore | None,
        identity: Identity | None,
        roles: Roles | None,
    ) -> SecureSum:
        """Under the configured encryption parameters; it needs certified identities."""
        if trust is None:
            raise PlanError("secure-sum=homomorphic must have certified identities")
        return Homomorphic(
            encryption_profile(promises.config),
            services(promises.config),
            trust=trust,
            identity=identity,
            screening=screening,
            roles=roles,
        )

    def check(self, promises: "Promises") -> None:
        """The fields of a slot hold less than most rings, and noise limits how many ciphertexts can be added."""
        _check_capacity(promises)
        _check_screening(promises)
        try:
            bfv.library()
        except ProtocolError as error:
            raise PlanError(str(error)) from None

    def warnings(self, promises: "Promises") -> list[str]:
        """What screening does not do."""
        if not self.screens(promises.config):
            return []
        return [
            (
                "homomorphic.screening finds faulty clients, not malicious ones: a forged copy can have any norm, and the "
                "decryptor sees norm and cosine of every update"
            )
        ]

    def claim(self, config: Config) -> str:
        """By whether there is a verifier."""
        lies = "may lie" if config.homomorphic.verifier else "follows the protocol"
        return (
            f" but decryptor, verifier and worker; {config.homomorphic.profile}, against an aggregator that {lies} and "
            "colludes with neither the decryptor nor a client"
        )

    def sum_bits(self, config: Config) -> int:
        """Slots have narrower fields than most rings."""
        return min(config.quantization.ring_bits, encryption_profile(config).field_bits)

    def server_may_lie(self, config: Config) -> bool:  # noqa: ARG002
        """A decryptor answers for its keys, so all messages are signed."""
        return True

    def screens(self, config: Config) -> bool:
        """As configured."""
        return config.homomorphic.screening is not Screen.OFF


def _check_capacity(promises: "Promises") -> None:
    """The fields of a slot hold less than most rings, and noise limits how many ciphertexts can be added."""
    config, cohort = promises.config, promises.members
    profile, levels = encryption_profile(config), promises.grid.levels
    if cohort > profile.most_members:
        raise PlanError(
            f"homomorphic.profile={profile.name} must have at most {profile.most_members} clients per round, "
            f"not {cohort}: the noise of more could spoil a decryption"
        )
    if not promises.grid_is_chosen and levels > (limit := profile.offset(cohort)):
        wider = [p.name for p in parameters.PROFILES if p.offset(cohort) >= levels]
        raise PlanError(
            f"quantization.bits={config.quantization.bits} must be <= {(limit + 1).bit_length()} for {cohort} clients "
            f"per round under homomorphic.profile={profile.name}, whose fields have {profile.field_bits} bits"
            + (f"; {', '.join(wider)} would do" if wider else "")
        )


def _check_screening(promises: "Promises") -> None:
    config = promises.config
    off = config.homomorphic.screening is Screen.OFF
    if config.homomorphic.min_cosine > -1 and off:
        raise PlanError(
            f"homomorphic.min-cosine={config.homomorphic.min_cosine:g} must have homomorphic.screening=verdicts or values"
        )
    if promises.noisy and not off:
        raise PlanError(
            f"homomorphic.screening={config.homomorphic.screening} must be off with noise-multiplier above 0: the decryptor "
            "would learn norms that no epsilon counts"
        )
