"""The promises of a configuration: everything that it fixes without a model or data, computed once.

Checks, forecast, plan, ledgers and reports read this record; none of them computes its fields again. Values that also
depend on the layout of the model are in the plan (`plan.py`), which has the record as `plan.promises`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Self, final

from protocols.profiles import MaskingProfile
from protocols.session import MAX_MEMBERS, MIN_MEMBERS
from rbla_secure.config import Config
from rbla_secure.config.choices import (
    Adjacency,
    Clipping,
    Rest,
    RowOrder,
    Upload,
)
from rbla_secure.errors import PlanError
from rbla_secure.lora.bands import Band, rank_bands
from rbla_secure.planning.cohort import cohort_size
from rbla_secure.planning.modes import mode_named
from rbla_secure.planning.modes.mode import Mode
from rbla_secure.planning.parameters import MASKING_PROFILES
from rbla_secure.privacy.ledger import Observer, Shown
from rbla_secure.privacy.noise import NoisePlace, noise_kind
from rbla_secure.privacy.quantize import Quantizer
from rbla_secure.robustness.grouping import group_sizes
from rbla_secure.robustness.quorum import band_quorum
from rbla_secure.robustness.registry import least_holders, pre_step_of

# Adaptive clipping moves on a grid with this many norms per factor of two; each has a session digest of its own.
CLIP_STEPS_PER_OCTAVE = 32
_LEAST_CLIP, _MOST_CLIP = 1 / 16, 4.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedBand:
    """A rank band with its planned numbers of clients in a round without drop-outs.

    Args:
        band: Its rows.
        holders: Number of clients of a round that hold it.
        voters: Number of votes in it under a filter: buckets of holders behind bucketing, else the holders.
        groups: Sizes of the groups of a round that hold it; empty where clients are not grouped.
        uploaders: Number of clients of a round that upload it.
        counted: Number of noise shares that make up the target: those of uploaders that neither drop out as expected
            nor collude.
        recovered: T: the number of its uploaders that may be missing without less noise.
        opens: Whether `holders` can ever open it.
    """

    band: Band
    holders: int
    voters: int
    groups: tuple[int, ...]
    uploaders: int
    counted: int
    recovered: int
    opens: bool


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Promises:
    """The promises of a configuration, whatever model and data it meets.

    Args:
        config: The configuration.
        mode: Its secure sum, with what that reveals, needs and promises.
        profile: The security parameters of masking that it names.
        members: Number of clients in a round.
        clients_of_ranks: By rank, increasing: the number of clients in a round.
        bands: Every rank band, in order.
        judges_updates: Whether single updates are looked at before they are averaged.
        hostile_quorum: Fewest holders with which a band may open whatever the filter: against hostile ones, and against
            sums over too few.
        row_quorum: Fewest holders with which a band may open: as many as the filter needs, where there is one. Behind
            bucketing it counts buckets, of which there are no more than holders.
        class_quorum: Fewest survivors of one rank with which a sum that others lie about may open; 0 where no class of view counts.
        threshold: Survivors needed to open a round: the configured number or the profile's.
        noisy: Whether sums carry noise of client-level differential privacy.
        colluders: Number of clients whose noise shares the server is assumed to know; 0 without noise.
        noise_by_server: Whether the server is the party that adds the noise, where there is any, and is trusted with the sums.
        noise_follows: Whether sums are opened without noise and the server adds it: nothing visible may depend on them
            before.
        whoever_is_there: Whether bands open over whoever has answered, also over nobody: who answered must not show in
            the adapter.
        shown: The parts of a round with noise that are counted, each in a ledger entry of its own, in order.
        shown_at_once: The counted parts that are revealed from the input stage on, whoever answers: the uploads, and
            every sum where absence must not show.
        claimed: Observers against whom privacy is claimed where there is noise: not against a server that adds the
            noise itself.
        adaptive: Whether the clip norm follows a quantile of the updates' norms.
        clip_range: Smallest and largest clip norm of adaptive clipping.
        clip_norms: Every L2 norm that a round may clip to, decreasing.
        bands_alone: Whether each rank band of an update is clipped and rounded alone, so that what a band sends, as
            what it learns, is one function of model, examples and seed for all who hold it.
        grid: The grid of integers that quantization configures.
        grid_is_chosen: Whether another grid is used, which follows from the room for noise.
    """

    config: Config
    mode: Mode
    profile: MaskingProfile
    members: int
    clients_of_ranks: Mapping[int, int]
    bands: tuple[PlannedBand, ...]
    judges_updates: bool
    hostile_quorum: int
    row_quorum: int
    class_quorum: int
    threshold: int
    noisy: bool
    colluders: int
    noise_by_server: bool
    noise_follows: bool
    whoever_is_there: bool
    shown: tuple[Shown, ...]
    shown_at_once: frozenset[Shown]
    claimed: tuple[Observer, ...]
    adaptive: bool
    clip_range: tuple[float, float]
    clip_norms: tuple[float, ...]
    bands_alone: bool
    grid: Quantizer
    grid_is_chosen: bool

    @classmethod
    def build(cls, config: Config) -> Self:
        """Build the promises of a configuration, sound or not: `checks.py` refuses those that cannot be kept.

        Raises:
            PlanError: A round has more or fewer clients than a session can have.
        """
        privacy, robustness, mode = config.privacy, config.robustness, mode_named(config.secure_sum)
        clients: dict[int, int] = {}
        for tier in config.tiers.values():
            clients[tier.rank] = clients.get(tier.rank, 0) + cohort_size(tier)
        clients = dict(sorted(clients.items()))
        members = sum(clients.values())
        if not MIN_MEMBERS <= members <= MAX_MEMBERS:
            raise PlanError(f"tiers: {members} clients per round must be {MIN_MEMBERS}..{MAX_MEMBERS}")
        profile = MASKING_PROFILES[config.masking.profile]
        hostile_quorum = row_quorum = band_quorum(robustness.f, config.min_holders)
        judges = robustness.judges_updates
        if judges:
            row_quorum = least_holders(
                robustness.filter,
                f=robustness.f,
                privacy_quorum=config.min_holders,
                pre_step=robustness.pre_step,
            )
        # Clients that drop the rows beyond their rank compute from different functions: one and the same adapter can be dead for
        # some ranks and alive for others. So the clients of one rank form a class, and a sum opens only if of every class no
        # member, or a quorum of them, is in it. Clients that fold these rows in compute from one function; a group lies inside one
        # rank anyway; and a server that follows the protocol sends no such adapter.
        classes = config.lora.rest is Rest.DROPPED and not robustness.group_size
        noisy = config.noise_multiplier > 0
        kind = noise_kind(privacy.mechanism)
        by_server = kind.place is NoisePlace.SERVER
        colluders = _colluders(config, profile, members) if noisy else 0
        there = noisy and privacy.adjacency is Adjacency.ADD_OR_REMOVE
        # In the clear the server reads every upload before anybody knows who will drop out; readers see sums, with the noise of
        # those who did not. Of a server that is trusted with the uploads nothing is counted.
        reads = mode.reads_uploads and not by_server
        shown = (Shown.UPLOADS, Shown.SUMS) if reads else (Shown.SUMS,)
        adaptive = privacy.clipping is Clipping.ADAPTIVE
        clip_range = (
            privacy.min_clip or config.clip_norm * _LEAST_CLIP,
            privacy.max_clip or config.clip_norm * _MOST_CLIP,
        )
        return cls(
            config=config,
            mode=mode,
            profile=profile,
            members=members,
            clients_of_ranks=clients,
            bands=_planned_bands(config, clients, row_quorum=row_quorum, colluders=colluders),
            judges_updates=judges,
            hostile_quorum=hostile_quorum,
            row_quorum=row_quorum,
            class_quorum=row_quorum if classes and mode.server_may_lie(config) else 0,
            threshold=config.masking.threshold or profile.threshold(members),
            noisy=noisy,
            colluders=colluders,
            noise_by_server=by_server,
            noise_follows=noisy and by_server,
            whoever_is_there=there,
            shown=shown,
            shown_at_once=frozenset(Shown if there else (Shown.UPLOADS,)),
            claimed=(Observer.PUBLIC, Observer.PARTICIPANT) if by_server else tuple(Observer),
            adaptive=adaptive,
            clip_range=clip_range,
            clip_norms=_clip_grid(*clip_range) if adaptive else (config.clip_norm,),
            bands_alone=config.training.rows is RowOrder.IN_TURNS,
            grid=Quantizer(bits=config.quantization.bits, bound=config.quantization.bound),
            grid_is_chosen=noisy and kind.chooses_grid,
        )

    @property
    def asked_threshold(self) -> int:
        """Survivors below which a round ends without a result; 0 where every round has one."""
        return 0 if self.whoever_is_there else self.threshold


def _planned_bands(
    config: Config, clients: Mapping[int, int], *, row_quorum: int, colluders: int
) -> tuple[PlannedBand, ...]:
    """Return every rank band, from the number of clients of each rank in a round."""
    robustness, privacy = config.robustness, config.privacy
    members, size = sum(clients.values()), robustness.group_size
    groups = {rank: group_sizes(count, size) for rank, count in clients.items()} if size else {}
    buckets = dict(clients)
    if pre_step_of(robustness.pre_step).in_buckets:
        # The last bucket of a rank may be smaller.
        buckets = {rank: -(-count // robustness.bucket_size) for rank, count in clients.items()}
    # The share as it is written, so that one tenth of ten clients is one.
    recovered_share = Fraction(str(privacy.recovered_dropout))
    found = []
    for band in rank_bands(clients):
        holders = sum(count for rank, count in clients.items() if rank >= band.stop)
        uploaders = members if config.upload is Upload.PADDED else holders
        found.append(
            PlannedBand(
                band=band,
                holders=holders,
                voters=sum(count for rank, count in buckets.items() if rank >= band.stop),
                groups=tuple(each for rank, sizes in groups.items() if rank >= band.stop for each in sizes),
                uploaders=uploaders,
                counted=math.floor(uploaders * (1 - privacy.expected_dropout)) - colluders,
                recovered=math.floor(recovered_share * uploaders),
                opens=holders >= row_quorum,
            )
        )
    return tuple(found)


def _colluders(config: Config, profile: MaskingProfile, members: int) -> int:
    """Return the number of clients whose noise shares the server is assumed to know."""
    configured = config.privacy.colluders
    return configured if configured >= 0 else profile.corrupt(members)


def _clip_grid(least: float, most: float) -> tuple[float, ...]:
    """Return every clip norm of adaptive clipping, decreasing."""
    steps = math.floor(CLIP_STEPS_PER_OCTAVE * math.log2(most / least))
    return tuple(most * 2 ** (-step / CLIP_STEPS_PER_OCTAVE) for step in range(steps + 1))
