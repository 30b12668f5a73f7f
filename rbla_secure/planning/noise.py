"""Client-level differential privacy of a plan: which mechanism, against whom it counts, and what it would spend.

Everything here follows from the configuration, the public ranks and the adapter's layout; nothing looks at data.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from protocols.profiles import MaskingProfile
from protocols.ring import capacity
from rbla_secure.config import Config
from rbla_secure.config.choices import Adjacency, Upload, Weighting
from rbla_secure.errors import PlanError, PrivacyError
from rbla_secure.lora.bands import Band
from rbla_secure.planning.modes import mode_of
from rbla_secure.planning.noise_settings import (
    adaptive,
    bands_alone,
    noise_by_server,
    noise_follows,
    whoever_is_there,
)
from rbla_secure.planning.recovered_noise import BandSize, check_recovery, recovered_shares
from rbla_secure.privacy.ledger import Observer, Shown
from rbla_secure.privacy.noise import GaussianMechanism, NoisePlace, Release, noise_kind
from rbla_secure.privacy.shares import BandShares

# Adaptive clipping moves on a grid of so many norms to a factor of two; each has a session digest of its own.
CLIP_STEPS_PER_OCTAVE = 32
_LEAST_CLIP, _MOST_CLIP = 1 / 16, 4.0
# Andrew et al. 2021 (arXiv 1905.03871), section 3: the count's noise is a twentieth of the cohort.
_COUNT_NOISE_SHARE = 1 / 20


# One release as each observer sees it; a multiplier of 0 where nothing is claimed.
Views = Mapping[Observer, Release]

EXPOSED = Release(noise_multiplier=0.0, slack=0.0, rho=math.inf)


def shown(config: Config) -> tuple[Shown, ...]:
    """What of a round with noise is counted, each in an entry of its own, in order.

    In the clear the server reads every upload before anybody knows who will drop out; readers see sums, with the noise of those who
    did not. Of a server that is trusted with the uploads nothing is counted.
    """
    reads = mode_of(config).reads_uploads and not noise_by_server(config)
    return (Shown.UPLOADS, Shown.SUMS) if reads else (Shown.SUMS,)


def shows_at_once(config: Config, part: Shown) -> bool:
    """Whether something shows from the input stage on, whoever answers: the uploads, or where absence must not show any sum."""
    return part is Shown.UPLOADS or whoever_is_there(config)


def shown_to(config: Config, part: Shown) -> tuple[Observer, ...]:
    """Whose views a part of a round is counted in."""
    if shown(config) == (Shown.SUMS,):
        return tuple(Observer)
    if part is Shown.UPLOADS:
        return (Observer.SERVER, Observer.COALITION)
    return (Observer.PUBLIC, Observer.PARTICIPANT)


def colluders(config: Config, profile: MaskingProfile, members: int) -> int:
    """Clients whose noise shares the server is taken to know."""
    return config.privacy.colluders if config.privacy.colluders >= 0 else profile.corrupt(members)


def clip_norms(config: Config) -> tuple[float, ...]:
    """Every norm that a round may clip to, falling: one, or the grid of adaptive clipping."""
    if not adaptive(config):
        return (config.clip_norm,)
    least, most = clip_range(config)
    steps = math.floor(CLIP_STEPS_PER_OCTAVE * math.log2(most / least))
    return tuple(most * 2 ** (-step / CLIP_STEPS_PER_OCTAVE) for step in range(steps + 1))


def counts_before(round_number: int) -> int:
    """How many rounds' counts of unclipped clients the clip norm of a round has heard at most: of all but the one before.

    That one is not over when the keys of the round go out.
    """
    return max(0, round_number - 2)


def clip_range(config: Config) -> tuple[float, float]:
    """The smallest and the largest norm of adaptive clipping."""
    least = config.privacy.min_clip or config.clip_norm * _LEAST_CLIP
    return least, config.privacy.max_clip or config.clip_norm * _MOST_CLIP


def count_noise(config: Config, members: int) -> float:
    """Standard deviation of the noise on the count of unclipped clients; 0 where nothing is counted."""
    if not adaptive(config):
        return 0.0
    # A vote that turns round spends the half of twice the multiplier; below it nothing would be left for the values.
    return config.privacy.count_noise or max(members * _COUNT_NOISE_SHARE, 2 * config.noise_multiplier)


def uploaders(config: Config, holders: int, members: int) -> int:
    """Clients of a cohort that upload a band with so many holders."""
    return members if config.upload is Upload.PADDED else holders


def counted_shares(config: Config, holders: int, members: int, colluding: int) -> int:
    """How many shares of a band make up the target: those that neither drop out as expected nor are known."""
    return math.floor(uploaders(config, holders, members) * (1 - config.privacy.expected_dropout)) - colluding


def check_privacy(
    config: Config, *, holders: Sequence[tuple[Band, int]], members: int, colluding: int
) -> None:
    """Refuse a claim that the configuration's mechanism does not support; needs no model.

    Raises:
        PlanError: Names the argument, its value and the rule.
    """
    _check_claim(config)
    sizes = [
        BandSize(
            band=band,
            uploaders=uploaders(config, count, members),
            counted=counted_shares(config, count, members, colluding),
        )
        for band, count in holders
    ]
    for size in sizes:
        if size.counted < 1:
            raise PlanError(
                f"privacy.colluders={colluding} and privacy.expected-dropout={config.privacy.expected_dropout:g} leave no "
                f"noise in {size.band}, which {size.uploaders} clients of a round upload: use fewer, upload=padded, or more clients"
            )
    check_recovery(config, sizes)
    if adaptive(config) and not (clip_range(config)[0] <= config.clip_norm <= clip_range(config)[1]):
        raise PlanError(
            f"clip-norm={config.clip_norm:g} must lie in privacy.min-clip..privacy.max-clip = {clip_range(config)}"
        )


def _check_claim(config: Config) -> None:
    privacy = config.privacy
    _check_adjacency(config)
    if noise_follows(config) and not mode_of(config).noise_may_follow:
        raise PlanError(
            f"privacy.mechanism={privacy.mechanism} must be distributed with secure-sum={config.secure_sum}: a client that overfills a field of a "
            "ciphertext carries others' values into the next one before the server's noise; or use secure-sum=masking"
        )


def _check_adjacency(config: Config) -> None:
    privacy = config.privacy
    if config.weights is Weighting.EXAMPLES:
        raise PlanError(
            "weights=examples must be uniform with noise-multiplier above 0: denominators would tell how many "
            "examples a client has"
        )
    if privacy.adjacency is Adjacency.ZERO_OUT:
        return
    if not noise_kind(privacy.mechanism).hides_absence:
        raise PlanError(
            "privacy.adjacency=add-or-remove needs privacy.mechanism=central: whoever is absent takes its share of "
            "distributed noise along, which the variance of the sum shows"
        )
    if any(tier.cohort not in {0, tier.clients} for tier in config.tiers.values()):
        raise PlanError(
            "privacy.adjacency=add-or-remove needs cohorts of all clients (tiers.*.cohort=0): without one client another "
            "would be drawn in its place"
        )
    if adaptive(config):
        raise PlanError(
            "privacy.adjacency=add-or-remove needs a fixed clip: the count has no fixed denominator"
        )
    _check_nothing_is_counted(config)


def _check_nothing_is_counted(config: Config) -> None:
    """Refuse whatever closes a band or ends a round by how many are there: one client's absence would take away every sum."""
    if not mode_of(config).opens_over_anybody:
        raise PlanError(
            f"privacy.adjacency=add-or-remove needs secure-sum=plain: secure-sum={config.secure_sum} opens nothing below a "
            "threshold and a quorum, so that one client that is not there can take away the sum of all; use "
            "secure-sum=plain, whose server is trusted with the updates then, or privacy.adjacency=zero-out"
        )
    # Filters and groups are refused with central noise anyway.
    for name, value in (
        ("masking.threshold", config.masking.threshold),
        ("robustness.f", config.robustness.f),
    ):
        if value:
            raise PlanError(
                f"{name}={value} must be 0 with privacy.adjacency=add-or-remove: it asks how many clients are there, and "
                "whether one of them is must not show; privacy.adjacency=zero-out allows it"
            )


def build_mechanism(
    config: Config, *, holders: Sequence[tuple[Band, int]], members: int, colluding: int, width: int
) -> GaussianMechanism:
    """The mechanism of a plan at the largest clip norm.

    Args:
        config: With a noise multiplier above 0, checked.
        holders: Every band and how many clients of a round hold it.
        members: Clients of a round.
        colluding: How many of them the server knows the noise of.
        width: Values of one rank row that are summed.

    Raises:
        PlanError: There is no room in the ring for sums and their noise.
    """
    shares = []
    for band, count in holders:
        uploading = uploaders(config, count, members)
        shares.append(
            BandShares(
                length=band.height * width + (band.index == 0 and adaptive(config)),
                uploaders=uploading,
                counted=counted_shares(config, count, members, colluding),
                recovered=recovered_shares(config, uploading),
            )
        )
    common = {
        "clip_norm": clip_norms(config)[0],
        "dimension": holders[-1][0].stop * width,
        "noise_multiplier": config.noise_multiplier,
        "bands": tuple(shares),
        "members": members,
        "count_noise": count_noise(config, members),
        "bands_alone": bands_alone(config),
    }
    try:
        mechanism = noise_kind(config.privacy.mechanism).build(
            config, common, ring_bits=mode_of(config).sum_bits(config)
        )
        # The grid is one for the whole run; the smallest norm has the smallest shares.
        replace(mechanism, clip_norm=clip_norms(config)[-1])
    except PrivacyError as error:
        raise PlanError(f"noise-multiplier={config.noise_multiplier:g}: {error}") from None
    if mechanism.count_unit > (limit := capacity(members, bits=mode_of(config).sum_bits(config))):
        raise PlanError(
            f"noise-multiplier={config.noise_multiplier:g} is so close to the noise of the count of adaptive clipping that a vote is "
            f"{mechanism.count_unit} integer units, and the ring has room for {limit}: raise privacy.count-noise or lower "
            "quantization.bits"
        )
    return mechanism


def claimed(config: Config) -> tuple[Observer, ...]:
    """Against whom something is claimed: not against a server that adds the noise itself."""
    if noise_by_server(config):
        return (Observer.PUBLIC, Observer.PARTICIPANT)
    return tuple(Observer)


def known_noise(observer: Observer, colluding: int) -> int:
    """Of how many clients an observer of sums knows the noise.

    A client that reads the adapters knows its own, and whoever may pool with the server may pool with it.
    """
    match observer:
        case Observer.PUBLIC | Observer.SERVER:
            return 0
        case Observer.PARTICIPANT:
            return max(1, colluding)
        case Observer.COALITION:
            return colluding


def views(
    config: Config, mechanism: GaussianMechanism, *, present: Mapping[int, int], colluding: int
) -> Views:
    """What a release spends against each observer.

    Args:
        config: Of the plan.
        mechanism: Of the round.
        present: By index of a band that may open: how many surviving clients have uploaded it.
        colluding: Clients whose noise the coalition knows.
    """
    if mechanism.place is NoisePlace.SERVER:
        if config.privacy.adjacency is Adjacency.ADD_OR_REMOVE:
            present = {index: shares.uploaders for index, shares in enumerate(mechanism.bands)}
        seen = replace(mechanism.event(present), sample_rate=config.privacy.sample_rate)
        return dict.fromkeys(Observer, EXPOSED) | {Observer.PUBLIC: seen, Observer.PARTICIPANT: seen}
    readers = {
        observer: mechanism.event(present, known=known_noise(observer, colluding))
        for observer in (Observer.PUBLIC, Observer.PARTICIPANT)
    }
    if mode_of(config).reads_uploads:
        # Every single upload is read, whatever opens: one share hides it.
        alone = dict.fromkeys(range(len(mechanism.bands)), 1)
        return readers | dict.fromkeys((Observer.SERVER, Observer.COALITION), mechanism.event(alone))
    return readers | {
        observer: mechanism.event(present, known=known_noise(observer, colluding))
        for observer in (Observer.SERVER, Observer.COALITION)
    }
