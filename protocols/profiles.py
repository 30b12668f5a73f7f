"""Named parameter sets and their sources.

A threshold t says how many survivors are needed to open a sum; fewer than t colluders learn nothing from shares. What
a profile claims against a malicious server depends on how clients check the survivor list, so the check and the
threshold belong together.
"""

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import final

from protocols.errors import SessionError, ThresholdError


class Adversary(Enum):
    """The kind of server. Either kind may hold the secrets of the corrupt clients."""

    SEMI_HONEST = "follows the protocol and keeps everything it sees"
    MALICIOUS = "sends whatever it likes to whom it likes"


class SurvivorCheck(Enum):
    """A client's protection against a server that sends different survivor lists. It fixes the threshold t of n."""

    TRUST_SERVER = "nothing: t > n/2"
    REVEAL_QUORUM = (
        "answers once per peer, and only over lists so long that split lists open no small sum: 2t > n + c"
    )
    SIGNED_LIST = "answers once t survivors have signed the very same list: t > 2n/3"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MaskingProfile:
    """Parameters of the masking protocol.

    Args:
        name: Name in configurations and reports. Sessions are bound to it, so it names one parameter set for ever.
        source: Source of the rules.
        survivor_check: A client's protection against split survivor lists.
        corrupt_share: The largest share of the members that may collude with the server, in [0, 1).
        dropout_share: The largest share of the members that is expected to drop out, in [0, 1).
        security_bits: The sparse graphs of a session expose somebody with probability at most 2^-security_bits.
        correctness_bits: A sparse graph cannot be unmasked with probability at most 2^-correctness_bits.

    Raises:
        ThresholdError: A share or a number of bits is out of its range.
    """

    name: str
    source: str
    survivor_check: SurvivorCheck
    corrupt_share: Fraction
    dropout_share: Fraction
    security_bits: int = 40
    correctness_bits: int = 20

    def __post_init__(self) -> None:
        for label, share in (("corrupt_share", self.corrupt_share), ("dropout_share", self.dropout_share)):
            if not 0 <= share < 1:
                raise ThresholdError(f"profile {self.name}: {label}={share} must lie in [0, 1)")
        if self.security_bits < 1 or self.correctness_bits < 1:
            raise ThresholdError(
                f"profile {self.name}: security_bits={self.security_bits} and "
                f"correctness_bits={self.correctness_bits} must be >= 1"
            )

    @property
    def adversary(self) -> Adversary:
        """The kind of server that the profile claims to withstand."""
        trusting = self.survivor_check is SurvivorCheck.TRUST_SERVER
        return Adversary.SEMI_HONEST if trusting else Adversary.MALICIOUS

    def corrupt(self, members: int) -> int:
        """Return the most members that may collude: floor(corrupt_share * members)."""
        return int(self.corrupt_share * members)

    def dropped(self, members: int) -> int:
        """Return the most members that are expected to drop out: floor(dropout_share * members)."""
        return int(self.dropout_share * members)

    def threshold(self, members: int) -> int:
        """Return the survivors needed to open a sum, if all members share with all: the smallest number allowed."""
        match self.survivor_check:
            case SurvivorCheck.TRUST_SERVER:
                return members // 2 + 1
            case SurvivorCheck.REVEAL_QUORUM:
                return (members + self.corrupt(members)) // 2 + 1
            case SurvivorCheck.SIGNED_LIST:
                return 2 * members // 3 + 1

    def check_threshold(self, threshold: int, *, members: int) -> None:
        """Refuse a threshold that is below the profile's, or that the members cannot reach.

        Raises:
            ThresholdError: It is.
        """
        if not self.threshold(members) <= threshold <= members:
            raise ThresholdError(
                f"threshold={threshold} must lie in {self.threshold(members)}..{members} "
                f"for {members} members under profile {self.name}"
            )


_SPARSE = "; above 100 members Bell et al. 2020, section 3, for 2^-40 and 2^-20"

SEMI_HONEST = MaskingProfile(
    name="semi-honest",
    source="Bonawitz et al. 2017, section 6: an honest-but-curious server with fewer than t colluding clients; "
    "t > n/2 so that no two disjoint halves can each open something" + _SPARSE,
    survivor_check=SurvivorCheck.TRUST_SERVER,
    corrupt_share=Fraction(1, 10),
    dropout_share=Fraction(1, 10),
)

ONE_ANSWER = MaskingProfile(
    name="one-answer",
    source="Bell et al. 2020 (semi-malicious server): 2t > n + c, so that no peer's two secrets are both "
    "recovered when each client answers once per peer; small sums are stopped by the reveal quorum" + _SPARSE,
    survivor_check=SurvivorCheck.REVEAL_QUORUM,
    corrupt_share=Fraction(1, 10),
    dropout_share=Fraction(1, 10),
)

CONSISTENCY = MaskingProfile(
    name="consistency",
    source="Bonawitz et al. 2017, section 6 (active adversary): a signed survivor list and t >= floor(2n/3) + 1; with "
    "all sharing with all it holds for any c < n/3" + _SPARSE,
    survivor_check=SurvivorCheck.SIGNED_LIST,
    corrupt_share=Fraction(1, 10),
    dropout_share=Fraction(1, 10),
)

INSECURE_TEST_ONLY = MaskingProfile(
    name="insecure-test-only",
    source="none: one bit of security, so that tests get sparse graphs of low degree",
    survivor_check=SurvivorCheck.TRUST_SERVER,
    corrupt_share=Fraction(0),
    dropout_share=Fraction(1, 10),
    security_bits=1,
    correctness_bits=1,
)

PROFILES = (SEMI_HONEST, ONE_ANSWER, CONSISTENCY, INSECURE_TEST_ONLY)


def by_name(name: str) -> MaskingProfile:
    """Return the profile of that name.

    Raises:
        SessionError: There is none.
    """
    for profile in PROFILES:
        if profile.name == name:
            return profile
    raise SessionError(f"profile {name!r} must be one of {', '.join(profile.name for profile in PROFILES)}")
