"""Sums of ciphertexts: a decryptor opens them, and receives only sums."""

from typing import TYPE_CHECKING, ClassVar, final

from protocols.errors import ProtocolError
from protocols.homomorphic.scheme import bfv, parameters
from protocols.homomorphic.screening.screening import STEP, Screening, ScreeningRelease
from protocols.homomorphic.secure_sum import Homomorphic
from protocols.homomorphic.services.calls import Roles
from protocols.homomorphic.services.charge import Charge
from protocols.homomorphic.services.operated import HomomorphicServices
from protocols.identity.trust import Identity, TrustStore
from protocols.interface import SecureSum
from rbla_secure.config import Config
from rbla_secure.config.choices import Screen
from rbla_secure.errors import PlanError
from rbla_secure.planning.disclosure import PUBLIC, Learned, Opened
from rbla_secure.planning.modes.mode import Mode
from rbla_secure.planning.parameters import encryption_profile, services

if TYPE_CHECKING:  # they name the mode in turn
    from rbla_secure.planning.plan import Plan
    from rbla_secure.planning.promises import Promises


@final
class HomomorphicMode(Mode):
    """BFV ciphertexts, with a decryptor and, if configured, a verifier."""

    sums_groups: ClassVar[bool] = False
    needs_services: ClassVar[bool] = True
    # Fields of a ciphertext carry into each other.
    noise_may_follow: ClassVar[bool] = False
    instead_of_filters: ClassVar[str] = "use homomorphic.screening"

    def build(
        self,
        plan: "Plan",
        *,
        trust: TrustStore | None,
        identity: Identity | None,
        roles: Roles | None,
    ) -> SecureSum:
        """Build the sum under the configured encryption parameters; it needs certified identities."""
        config = plan.config
        if trust is None:
            raise PlanError("secure-sum=homomorphic must have certified identities")
        return Homomorphic(
            encryption_profile(config),
            services(config),
            trust=trust,
            identity=identity,
            screening=screening_rule(plan),
            roles=roles,
        )

    def learned(self, plan: "Plan", opened: Opened) -> list[Learned]:
        """Say that the server learns sums and what screening reveals, and the services what they are sent."""
        return [
            Learned(
                "server",
                f"{opened.in_words}; {PUBLIC}; ciphertexts{_screened(screening_rule(plan))}",
                "every single update, weight and example",
            ),
            *_services(plan, opened.in_words),
        ]

    def start_services(self, plan: "Plan") -> HomomorphicServices:
        """Start decryptor and worker, and where the plan has them verifier or screener, each in a process of its own."""
        return HomomorphicServices(charge_of(plan))

    def check(self, promises: "Promises") -> None:
        """Refuse sums too large for the fields of a slot, or over more ciphertexts than their noise allows."""
        _check_capacity(promises)
        _check_screening(promises)
        try:
            bfv.library()
        except ProtocolError as error:
            raise PlanError(str(error)) from None

    def warnings(self, promises: "Promises") -> list[str]:
        """Warn of what screening does not cover."""
        if not self.screens(promises.config):
            return []
        return [
            (
                "homomorphic.screening finds faulty clients, not malicious ones: a forged copy can have any norm, and the "
                "decryptor sees norm and cosine of every update"
            )
        ]

    def claim(self, config: Config) -> str:
        """Return the claim, which depends on whether there is a verifier."""
        lies = "may lie" if config.homomorphic.verifier else "follows the protocol"
        return (
            f" but decryptor, verifier and worker; {config.homomorphic.profile}, against an aggregator that {lies} and "
            "colludes with neither the decryptor nor a client"
        )

    def sum_bits(self, config: Config) -> int:
        """Return the bits of the ring or of a slot's field, whichever is fewer."""
        return min(config.quantization.ring_bits, encryption_profile(config).field_bits)

    def server_may_lie(self, config: Config) -> bool:  # noqa: ARG002
        """Return True: a decryptor is accountable for its keys, so all messages are signed."""
        return True

    def screens(self, config: Config) -> bool:
        """Return whether screening is configured."""
        return config.homomorphic.screening is not Screen.OFF


def screening_rule(plan: "Plan") -> Screening | None:
    """Return the rule for single encrypted updates, whose norm no honest client exceeds; None if off."""
    wanted = plan.config.homomorphic
    if not plan.mode.screens(plan.config):
        return None
    longest = plan.rounded_norm(plan.config.clip_norm)
    return Screening(
        max_norm=longest / plan.quantizer.levels + STEP,
        min_cosine=wanted.min_cosine,
        release=ScreeningRelease(wanted.screening.value),
        ignored_tail=plan.statistics,
    )


def charge_of(plan: "Plan") -> Charge:
    """Return the terms for which the services are set up."""
    return Charge(
        profile=encryption_profile(plan.config),
        services=services(plan.config),
        config_digests=frozenset(map(plan.round_digest, plan.clip_norms)),
        least_quorum=plan.promises.row_quorum,
        screening=screening_rule(plan),
        class_quorum=plan.promises.class_quorum,
        most_members=plan.promises.members,
        most_segments=plan.segmentation.most_segments,
    )


def _check_capacity(promises: "Promises") -> None:
    """Refuse sums too large for the fields of a slot, or over more ciphertexts than their noise allows."""
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


def _screened(rule: Screening | None) -> str:
    """Describe what the server learns about single encrypted updates."""
    if rule is None:
        return ""
    if rule.release is ScreeningRelease.VERDICTS:
        return "; whether each update passed the screening"
    return "; norm and cosine of every update, to three decimals"


def _services(plan: "Plan", sums: str) -> list[Learned]:
    """List the parties of the homomorphic mode, and what two of them know together."""
    everything = "every single update, weight and example"
    decryptor = Learned("decryptor", f"{sums}; who took part; no ciphertext of a client", everything)
    if screening_rule(plan) is not None:
        numbers = "norm of every update and its cosine to the last step"
        decryptor = decryptor._replace(saw=f"{decryptor.saw} but those of its {numbers}")
    together = Learned(
        "server and decryptor together", "every update of every client", "the clients' examples"
    )
    if not plan.config.homomorphic.verifier:
        parts = len(plan.bands_that_open)
        lying = Learned(
            "server that lies",
            "in every band and round the update of a client of its choice, decrypted as if it were the sum: up to "
            f"{parts} different {'clients' if parts > 1 else 'client'} by one request",
            "the others' updates of that round",
        )
        return [decryptor, lying, together]
    verifier = Learned("verifier", "ciphertexts; who took part", f"every sum; {everything}")
    lying = Learned(
        "server that lies", f"the same sums, each over {plan.segmentation.quorum} holders or more", everything
    )
    shown = Learned(
        "server that lies, with clients that it shows all ciphertexts",
        f"the same sums less their own parts: of {plan.segmentation.quorum} holders, all but one of whom tell it theirs, the last one's",
        "more than those differences: ciphertexts are sent once all of them are committed to",
    )
    return [decryptor, verifier, lying, *_directed(screening_rule(plan)), shown, together]


def _directed(rule: Screening | None) -> list[Learned]:
    """List what a server can learn with a client that steers the screening direction by its input to a sum."""
    if rule is None or rule.release is ScreeningRelease.VERDICTS:
        return []
    return [
        Learned(
            "server, with one client that sends values beyond its bound",
            "one coordinate of every update of the next round, roughly; with more than half of the cohort, to a thousandth",
            "every other coordinate",
        )
    ]


MODE = HomomorphicMode()
