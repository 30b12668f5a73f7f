"""What follows from a configuration alone: profiles, thresholds, bands, quorums, and what weakens a run."""

from protocols import profiles
from protocols.homomorphic import parameters
from protocols.homomorphic.parameters import EncryptionProfile
from protocols.homomorphic.terms import Services
from protocols.masking.parameters import (
    COMPLETE_UP_TO,
    class_reveal_quorum,
    mask_graph_degree,
    reveal_quorum,
)
from protocols.profiles import Adversary, MaskingProfile, SurvivorCheck
from rbla_secure.choices import PreStepName, Rest, RowOrder, Screen, SecureSumMode, Upload
from rbla_secure.config import Config
from rbla_secure.lora.bands import Band, rank_bands
from rbla_secure.planning.cohort import cohort_size
from rbla_secure.planning.noise import noisy, whoever_is_there
from rbla_secure.privacy.sampled_gaussian import SampledGaussian
from rbla_secure.robustness import quorum
from rbla_secure.robustness.grouping import group_sizes
from rbla_secure.robustness.names import least_holders

WORTHLESS = "the noise follows from the seed and can be subtracted; its epsilon is worthless as protection"

# Below three holders, a holder can subtract its own part and read another's.
SAFE_MIN_HOLDERS = 3
# Clients of a sum that nobody colludes with must be two, or the sum is the update of one.
SAFE_REMAINDER = 2
# Up to here membership is nearly as open in the sum of a group as in single updates (benchmarks/results/privacy_attacks.md).
SMALL_GROUP = 5
# The name under which a verifier is enrolled.
VERIFIER = "verifier"


def masking_profile(config: Config) -> MaskingProfile:
    """The security parameters that a configuration names."""
    return profiles.by_name(config.masking.profile.value)


def encryption_profile(config: Config) -> EncryptionProfile:
    """The encryption parameters that a configuration names."""
    return parameters.by_name(config.homomorphic.profile.value)


def services(config: Config) -> Services:
    """Who decrypts and, if the configuration wants it, who verifies."""
    return Services(verifier=VERIFIER if config.homomorphic.verifier else "")


def threshold(config: Config) -> int:
    """Survivors needed to open a round: the configured number or the profile's."""
    return config.masking.threshold or masking_profile(config).threshold(members_per_round(config))


def members_per_round(config: Config) -> int:
    """Clients of one cohort."""
    return sum(cohort_size(tier) for tier in config.tiers.values())


def bands_and_holders(config: Config) -> list[tuple[Band, int]]:
    """Every rank band and how many clients of a round hold it."""
    tiers = config.tiers.values()
    return [
        (band, sum(cohort_size(tier) for tier in tiers if tier.rank >= band.stop))
        for band in rank_bands(tier.rank for tier in tiers)
    ]


def band_buckets(config: Config) -> list[tuple[Band, int]]:
    """Every rank band and how many of a round's buckets hold it: the last one of a rank may be smaller."""
    size = config.robustness.bucket_size
    buckets = {rank: -(-count // size) for rank, count in _clients_of_ranks(config).items()}
    return [
        (band, sum(count for rank, count in buckets.items() if rank >= band.stop))
        for band in rank_bands(buckets)
    ]


def band_voters(config: Config) -> list[tuple[Band, int]]:
    """Every rank band and how many have a vote in it: buckets where there are any, or else single holders."""
    if config.robustness.pre_step is PreStepName.BUCKETING:
        return band_buckets(config)
    return bands_and_holders(config)


def largest_f(config: Config, voters: int) -> int | None:
    """The most attackers against whom the plan's filter opens a band of so many votes; None if not even against none."""
    wanted = config.robustness

    def needed(f: int) -> int:
        return least_holders(wanted.filter, f=f, privacy_quorum=config.min_holders, pre_step=wanted.pre_step)

    return max((f for f in range(voters + 1) if needed(f) <= voters), default=None)


def band_groups(config: Config) -> list[tuple[Band, tuple[int, ...]]]:
    """Every rank band and the sizes of the groups of a round that hold it; no sizes where clients are not grouped."""
    clients, size = _clients_of_ranks(config), config.robustness.group_size
    sizes = {rank: group_sizes(count, size) if size else () for rank, count in clients.items()}
    return [
        (band, tuple(each for rank, of_rank in sizes.items() if rank >= band.stop for each in of_rank))
        for band in rank_bands(clients)
    ]


def _clients_of_ranks(config: Config) -> dict[int, int]:
    """By rank: clients of a round."""
    clients: dict[int, int] = {}
    for tier in config.tiers.values():
        clients[tier.rank] = clients.get(tier.rank, 0) + cohort_size(tier)
    return dict(sorted(clients.items()))


def sample_level(config: Config) -> SampledGaussian | None:
    """The noise inside each client's training; None without."""
    wanted = config.sample_level
    if not wanted.noise_multiplier:
        return None
    return SampledGaussian(
        noise_multiplier=wanted.noise_multiplier,
        clip_norm=wanted.clip_norm,
        sample_rate=wanted.sample_rate,
        steps=config.training.steps,
    )


def row_quorum(config: Config) -> int:
    """Holders with which a band may open: against hostile ones, and against sums over too few.

    As many as the filter needs, where there is one: rules that leave holders out need more. Behind bucketing it counts buckets, of
    which there are no more than holders.
    """
    wanted = config.robustness
    return least_holders(
        wanted.filter, f=wanted.f, privacy_quorum=config.min_holders, pre_step=wanted.pre_step
    )


def closed_for_good(config: Config) -> tuple[str, ...]:
    """The bands that can never open against f hostile clients, in words; their rows stay as every run begins."""
    ranks = [tier.rank for tier in config.tiers.values() for _ in range(cohort_size(tier))]
    wanted = config.robustness.f
    return quorum.closed_bands(rank_bands(ranks), ranks, f=wanted, privacy_quorum=config.min_holders)


def band_quorum(config: Config, holders: int) -> int:
    """Surviving holders with which a band of so many holders opens, where there is one sum over all of them; 0 if nobody asks."""
    if whoever_is_there(config):
        return 0
    return _opening_quorum(config, holders, row_quorum(config))


def asked_threshold(config: Config) -> int:
    """Survivors below which a round ends without a result; 0 where every round has one."""
    return 0 if whoever_is_there(config) else threshold(config)


def opening_rule(config: Config) -> str:
    """With how many clients sums open, in words."""
    if whoever_is_there(config):
        return "no threshold and no quorum: every band opens over whoever is there"
    return f"threshold {threshold(config)}, at least {row_quorum(config)} holders per band"


def group_quorum(config: Config, size: int) -> int:
    """Survivors with which a group of so many clients opens."""
    return _opening_quorum(config, size, config.min_holders)


def class_quorum(config: Config) -> int:
    """Survivors of one rank with which a sum that others lie about may open; 0 where no class of view counts.

    Clients that drop the rows beyond their rank compute from different functions: one and the same adapter can be dead for
    some ranks and alive for others. So the clients of one rank form a class, and a sum opens only if of every class no
    member, or a quorum of them, is in it. Clients that fold these rows in compute from one function; a group lies inside one
    rank anyway; and a server that follows the protocol sends no such adapter.
    """
    if config.lora.rest is Rest.FOLDED or config.robustness.group_size:
        return 0
    match config.secure_sum:
        case SecureSumMode.PLAIN:
            return 0
        case SecureSumMode.MASKING:
            return row_quorum(config) if masking_profile(config).adversary is Adversary.MALICIOUS else 0
        case SecureSumMode.HOMOMORPHIC:
            return row_quorum(config)


def class_opening_quorum(config: Config, size: int) -> int:
    """Survivors of a class of so many clients that a client wants to see on its list, if it sees any."""
    quorum, profile, members = class_quorum(config), masking_profile(config), members_per_round(config)
    masked = config.secure_sum is SecureSumMode.MASKING
    if not quorum or not masked or profile.survivor_check is not SurvivorCheck.REVEAL_QUORUM or size < quorum:
        return quorum
    return class_reveal_quorum(
        class_members=size,
        quorum=quorum,
        members=members,
        threshold=threshold(config),
        corrupt=profile.corrupt(members),
    )


def tier_protection(config: Config) -> dict[str, str]:
    """By tier: what keeps a server from opening a sum in which its clients' updates are few among zeros.

    Such a server sends an adapter that is dead for some clients and alive for others.
    """
    found = {}
    for name, tier in sorted(config.tiers.items()):
        size = _clients_of_ranks(config)[tier.rank]
        if config.secure_sum is SecureSumMode.PLAIN:
            found[name] = "NOT protected: plain shows every update"
        elif config.robustness.group_size:
            found[name] = "protected: summed with clients of its own rank alone"
        elif config.lora.rest is Rest.FOLDED:
            turns = config.training.rows is RowOrder.IN_TURNS
            found[name] = "protected: all clients " + (
                "compute from one function" if turns else "start a round from one function"
            )
        elif not class_quorum(config):
            found[name] = (
                f"NOT protected against a server that lies (masking.profile={config.masking.profile})"
            )
        else:
            least = class_opening_quorum(config, size)
            found[name] = f"protected: opens over none or {least} and more of the {size} clients of its rank"
    return found


def _opening_quorum(config: Config, holders: int, least: int) -> int:
    """What clients want to see on their survivor list before they open a sum that must be over `least`."""
    profile, members = masking_profile(config), members_per_round(config)
    masked = config.secure_sum is SecureSumMode.MASKING
    if not masked or profile.survivor_check is not SurvivorCheck.REVEAL_QUORUM:
        return least
    return reveal_quorum(
        segment_members=holders,
        quorum=least,
        members=members,
        threshold=threshold(config),
        corrupt=profile.corrupt(members),
    )


def warnings(config: Config) -> list[str]:
    """What is allowed but weakens the run."""
    found = []
    if config.secure_sum is SecureSumMode.PLAIN:
        found.append("INSECURE: secure-sum=plain shows every single update to the server")
    if config.secure_sum is SecureSumMode.HOMOMORPHIC and config.homomorphic.screening is not Screen.OFF:
        found.append(
            "homomorphic.screening finds faulty clients, not malicious ones: a forged copy can have any norm, and the "
            "decryptor sees norm and cosine of every update"
        )
    found += _of_sparse_graphs(config)
    found += _of_groups(config)
    if (noisy(config) or config.sample_level.noise_multiplier) and config.privacy.simulation:
        found.append(f"SIMULATION: {WORTHLESS}")
    found += [
        f"robustness.f={config.robustness.f}: {text}; the band never opens, and its rows stay as they are"
        for text in closed_for_good(config)
    ]
    if config.min_holders < SAFE_MIN_HOLDERS:
        found.append(
            f"INSECURE: min-holders={config.min_holders} opens bands in which a holder reads another's update; "
            f"{SAFE_MIN_HOLDERS} or more is safe against single holders"
        )
    return found


def _of_sparse_graphs(config: Config) -> list[str]:
    """What is claimed where not everybody shares with everybody, and with how many others clients mask."""
    members, profile = members_per_round(config), masking_profile(config)
    if config.secure_sum is not SecureSumMode.MASKING or members <= COMPLETE_UP_TO:
        return []
    corrupt, dropped = profile.corrupt(members), profile.dropped(members)
    text = (
        f"{members} clients a round are more than {COMPLETE_UP_TO}: share and mask graphs are sparse, and what is claimed "
        f"holds against a server that follows the protocol alone, with at most {corrupt} clients corrupt and {dropped} "
        f"dropping out, whatever their ranks, but for a probability of 2^-{profile.security_bits} a session; clients mask "
        f"each sum with {_partners(config, profile)} others"
    )
    if threshold(config) < members - dropped:
        text += f"; masking.threshold={members - dropped} ends a round in which more drop out"
    return [text]


def _partners(config: Config, profile: MaskingProfile) -> str:
    """With how many others clients mask a segment: the fewest and the most, over all segments."""
    members = members_per_round(config)
    if config.robustness.group_size:
        sizes = list(band_groups(config)[0][1])
    elif config.upload is Upload.PADDED:
        sizes = [members for _ in bands_and_holders(config)]
    else:
        sizes = [count for _, count in bands_and_holders(config)]
    segments = max(1, sum(size > COMPLETE_UP_TO for size in sizes))
    found = {mask_graph_degree(size, members=members, profile=profile, segments=segments) for size in sizes}
    return f"{min(found)}" if len(found) == 1 else f"{min(found)} to {max(found)}"


def _of_groups(config: Config) -> list[str]:
    """What sums over groups tell that one sum over everybody does not."""
    found: list[str] = []
    size = config.robustness.group_size
    if config.secure_sum is not SecureSumMode.MASKING or not size:
        return found
    if size <= SMALL_GROUP:
        found.append(
            f"robustness.group-size={size}: sums over so few hide little of who was trained on where local work is one small "
            "step (measured for groups of 3: membership AUC 0.68 against 0.73 for single updates and 0.57 for a sum over 40)"
        )
    colluding = masking_profile(config).corrupt(members_per_round(config))
    if config.min_holders < colluding + SAFE_REMAINDER:
        found.append(
            f"robustness.group-size={size}: a group that holds {config.min_holders - 1} of the {colluding} clients that may "
            f"collude with the server shows it the update of the last one; min-holders={colluding + SAFE_REMAINDER} would not"
        )
    return found
