"""Sums of masked integers: the server learns the sum of a segment over enough survivors, or nothing."""

from typing import TYPE_CHECKING, ClassVar, final

from protocols.identity.trust import Identity, TrustStore
from protocols.interface import SecureSum
from protocols.masking.parameters import COMPLETE_UP_TO, mask_graph_degree
from protocols.masking.secure_sum import Masking
from protocols.profiles import Adversary, MaskingProfile, SurvivorCheck
from rbla_secure.config import Config
from rbla_secure.errors import PlanError
from rbla_secure.planning.disclosure import PUBLIC, Learned, Opened
from rbla_secure.planning.modes.mode import Mode
from rbla_secure.planning.parameters import masking_profile

if TYPE_CHECKING:  # they name the mode in turn
    from rbla_secure.planning.promises import Promises

if TYPE_CHECKING:  # the plan checks itself by its mode
    from protocols.homomorphic.services.calls import Roles
    from rbla_secure.planning.plan import Plan

# Clients of a sum that nobody colludes with must be two, or the sum is the update of one.
SAFE_REMAINDER = 2
# Up to here membership is nearly as open in the sum of a group as in single updates (benchmarks/results/privacy_attacks.md).
SMALL_GROUP = 5


@final
class MaskingMode(Mode):
    """Pairwise masks and shares of their secrets, under a named profile."""

    shares_secrets: ClassVar[bool] = True
    instead_of_filters: ClassVar[str] = "use robustness.group-size, which filters sums over groups"

    def build(
        self,
        plan: "Plan",
        *,
        trust: TrustStore | None,
        identity: Identity | None,
        roles: "Roles | None",  # noqa: ARG002
    ) -> SecureSum:
        """Build the sum under the configured profile."""
        return Masking(
            plan.promises.profile,
            trust=trust,
            identity=identity,
            noise_follows=plan.promises.noise_follows,
        )

    def learned(self, plan: "Plan", opened: Opened) -> list[Learned]:
        """Say that the server learns sums, and what it learns with clients that collude."""
        removed = _removed(plan) if opened.counts else ""
        return [
            Learned(
                "server",
                f"{opened.in_words}{removed}; {PUBLIC}",
                "every single update, weight and example",
            ),
            _collusion(plan, opened.smallest),
        ]

    def check(self, promises: "Promises") -> None:
        """Refuse a sparse share graph under profiles in which everyone must share with everyone."""
        cohort, profile = promises.members, promises.profile
        if profile.survivor_check is SurvivorCheck.REVEAL_QUORUM and cohort > COMPLETE_UP_TO:
            raise PlanError(
                f"masking.profile={profile.name} must be semi-honest or consistency: {cohort} clients per round are "
                f"more than {COMPLETE_UP_TO}, up to which everyone shares with everyone"
            )

    def warnings(self, promises: "Promises") -> list[str]:
        """Warn of what sparse graphs and sums over groups weaken."""
        return [*_of_sparse_graphs(promises), *_of_groups(promises)]

    def claim(self, config: Config) -> str:
        """Return the claim of the profile."""
        profile = masking_profile(config)
        return f"; profile {profile.name}, against a server that {profile.adversary.value}"

    def profile(self, config: Config) -> MaskingProfile:
        """Return the configured profile."""
        return masking_profile(config)

    def server_may_lie(self, config: Config) -> bool:
        """Return whether the profile covers a server that lies."""
        return masking_profile(config).adversary is Adversary.MALICIOUS

    def lists_may_differ(self, config: Config) -> bool:
        """Return whether the profile compares no signed list."""
        return masking_profile(config).survivor_check is SurvivorCheck.REVEAL_QUORUM

    def clients_count_survivors(self, config: Config) -> bool:
        """Return whether each client answers one list and requires enough survivors on it."""
        return self.lists_may_differ(config)


def _of_sparse_graphs(promises: "Promises") -> list[str]:
    """Describe the claim on sparse share graphs, and with how many other clients each client masks."""
    members, profile = promises.members, promises.profile
    if members <= COMPLETE_UP_TO:
        return []
    corrupt, dropped = profile.corrupt(members), profile.dropped(members)
    text = (
        f"{members} clients a round are more than {COMPLETE_UP_TO}: share and mask graphs are sparse, and what is claimed "
        f"holds against a server that follows the protocol alone, with at most {corrupt} clients corrupt and {dropped} "
        f"dropping out, whatever their ranks, but for a probability of 2^-{profile.security_bits} a session; clients mask "
        f"each sum with {_partners(promises, profile)} others"
    )
    if promises.threshold < members - dropped:
        text += f"; masking.threshold={members - dropped} ends a round in which more drop out"
    return [text]


def _partners(promises: "Promises", profile: MaskingProfile) -> str:
    """Say with how many others clients mask a segment: the fewest and the most, over all segments."""
    members = promises.members
    if promises.config.robustness.group_size:
        sizes = list(promises.bands[0].groups)
    else:
        sizes = [each.uploaders for each in promises.bands]
    segments = max(1, sum(size > COMPLETE_UP_TO for size in sizes))
    found = {mask_graph_degree(size, members=members, profile=profile, segments=segments) for size in sizes}
    return f"{min(found)}" if len(found) == 1 else f"{min(found)} to {max(found)}"


def _of_groups(promises: "Promises") -> list[str]:
    """Describe what sums over groups reveal that one sum over everybody does not."""
    config, found = promises.config, list[str]()
    size = config.robustness.group_size
    if not size:
        return found
    if size <= SMALL_GROUP:
        found.append(
            f"robustness.group-size={size}: sums over so few hide little of who was trained on where local work is one small "
            "step (measured for groups of 3: membership AUC 0.68 against 0.73 for single updates and 0.57 for a sum over 40)"
        )
    colluding = promises.profile.corrupt(promises.members)
    if config.min_holders < colluding + SAFE_REMAINDER:
        found.append(
            f"robustness.group-size={size}: a group that holds {config.min_holders - 1} of the {colluding} clients that may "
            f"collude with the server shows it the update of the last one; min-holders={colluding + SAFE_REMAINDER} would not"
        )
    return found


def _removed(plan: "Plan") -> str:
    """Describe what the server learns about the clients' noise."""
    if plan.mechanism is None or not any(shares.recovered for shares in plan.mechanism.bands):
        return ""
    return ", and the noise that it took off them because nobody's drop-out needed it"


def _collusion(plan: "Plan", smallest: int) -> Learned:
    """Describe what the server knows with the most colluding clients; one more could open single updates.

    A server that lies may have chosen which clients a sum covers, as long as they meet the band's quorum.
    """
    promises, profile = plan.promises, plan.promises.profile
    if profile.adversary is Adversary.MALICIOUS:
        colluders = profile.corrupt(promises.members)
        party = f"malicious server with up to {colluders} clients"
        what = f"one sum a {plan.segmentation.part}"
        smallest = min(smallest, plan.segmentation.quorum)
    else:
        colluders = promises.threshold - 1
        party, what = f"server with up to {colluders} clients", "the same sums"
    rest, part = smallest - colluders, plan.segmentation.part
    saw = f"{what} less their own parts: of the thinnest {part} the sum of {rest} other clients"
    if rest <= 1:
        saw = f"{what} less their own parts: the update of a client that is alone beside them in a {part}"
    if not smallest:
        saw = "no sum: every band stayed closed"
    return Learned(party, saw, "more than those differences")


MODE = MaskingMode()
