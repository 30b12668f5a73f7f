"""Client-level differential privacy of a plan: its mechanism, its observers, and what it would spend.

Everything here follows from the configuration, the public ranks and the adapter's layout; nothing looks at data.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from protocols.ring import capacity
from rbla_secure.config.choices import Adjacency, Weighting
from rbla_secure.errors import PlanError, PrivacyError
from rbla_secure.planning.promises import Promises
from rbla_secure.planning.recovered_noise import check_recovery
from rbla_secure.privacy.ledger import Observer, Shown
from rbla_secure.privacy.noise import GaussianMechanism, NoisePlace, Release, noise_kind
from rbla_secure.privacy.shares import BandShares

# Andrew et al. 2021 (arXiv 1905.03871), section 3: the count's noise is a twentieth of the cohort.
_COUNT_NOISE_SHARE = 1 / 20


# One release as each observer sees it; a multiplier of 0 where nothing is claimed.
Views = Mapping[Observer, Release]

EXPOSED = Release(noise_multiplier=0.0, slack=0.0, rho=math.inf)


def shown_to(promises: Promises, part: Shown) -> tuple[Observer, ...]:
    """Return the observers in whose views a part of a round is counted."""
    if promises.shown == (Shown.SUMS,):
        return tuple(Observer)
    if part is Shown.UPLOADS:
        return (Observer.SERVER, Observer.COALITION)
    return (Observer.PUBLIC, Observer.PARTICIPANT)


def counts_before(round_number: int) -> int:
    """Return the most rounds whose unclipped counts a round's clip norm can depend on: all but the one before.

    That round is not over when the keys of this one are sent.
    """
    return max(0, round_number - 2)


def count_noise(promises: Promises, noise_multiplier: float) -> float:
    """Return the standard deviation of the noise on the count of unclipped clients; 0 where nothing is counted."""
    if not promises.adaptive:
        return 0.0
    # A vote that turns round spends the half of twice the multiplier; below it nothing would be left for the values.
    least = max(promises.members * _COUNT_NOISE_SHARE, 2 * noise_multiplier)
    return promises.config.privacy.count_noise or least


def check_privacy(promises: Promises) -> None:
    """Refuse a claim that the configuration's mechanism does not support; needs no model.

    Raises:
        PlanError: Names the argument, its value and the rule.
    """
    config = promises.config
    _check_claim(promises)
    for size in promises.bands:
        if size.counted < 1:
            raise PlanError(
                f"privacy.colluders={promises.colluders} and privacy.expected-dropout={config.privacy.expected_dropout:g} leave no "
                f"noise in {size.band}, which {size.uploaders} clients of a round upload: use fewer, upload=padded, or more clients"
            )
    check_recovery(promises)
    least, most = promises.clip_range
    if promises.adaptive and not least <= config.clip_norm <= most:
        raise PlanError(
            f"clip-norm={config.clip_norm:g} must lie in privacy.min-clip..privacy.max-clip = {promises.clip_range}"
        )


def _check_claim(promises: Promises) -> None:
    config, privacy = promises.config, promises.config.privacy
    _check_adjacency(promises)
    if promises.noise_follows and not promises.mode.noise_may_follow:
        raise PlanError(
            f"privacy.mechanism={privacy.mechanism} must be distributed with secure-sum={config.secure_sum}: a client that overfills a field of a "
            "ciphertext carries others' values into the next one before the server's noise; or use secure-sum=masking"
        )


def _check_adjacency(promises: Promises) -> None:
    config, privacy = promises.config, promises.config.privacy
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
    if promises.adaptive:
        raise PlanError(
            "privacy.adjacency=add-or-remove needs a fixed clip: the count has no fixed denominator"
        )
    _check_nothing_is_counted(promises)


def _check_nothing_is_counted(promises: Promises) -> None:
    """Refuse settings that close a band or end a round by a count: one absent client could then remove every sum."""
    config = promises.config
    if not promises.mode.opens_over_anybody:
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


def build_mechanism(promises: Promises, *, noise_multiplier: float, width: int) -> GaussianMechanism:
    """Build the mechanism of a plan at the largest clip norm.

    Args:
        promises: The promises of a configuration with noise, checked.
        noise_multiplier: The configured noise multiplier, or another in its place; above 0.
        width: Number of values of one rank row that are summed.

    Raises:
        PlanError: There is no room in the ring for sums and their noise.
    """
    config = promises.config
    shares = tuple(
        BandShares(
            length=each.band.height * width + (each.band.index == 0 and promises.adaptive),
            uploaders=each.uploaders,
            counted=each.counted,
            recovered=each.recovered,
        )
        for each in promises.bands
    )
    common = {
        "clip_norm": promises.clip_norms[0],
        "dimension": promises.bands[-1].band.stop * width,
        "noise_multiplier": noise_multiplier,
        "bands": shares,
        "members": promises.members,
        "count_noise": count_noise(promises, noise_multiplier),
        "bands_alone": promises.bands_alone,
    }
    try:
        mechanism = noise_kind(config.privacy.mechanism).build(
            config, common, ring_bits=promises.mode.sum_bits(config)
        )
        # The grid is one for the whole run; the smallest norm has the smallest shares.
        replace(mechanism, clip_norm=promises.clip_norms[-1])
    except PrivacyError as error:
        raise PlanError(f"noise-multiplier={noise_multiplier:g}: {error}") from None
    if mechanism.count_unit > (limit := capacity(promises.members, bits=promises.mode.sum_bits(config))):
        raise PlanError(
            f"noise-multiplier={noise_multiplier:g} is so close to the noise of the count of adaptive clipping that a vote is "
            f"{mechanism.count_unit} integer units, and the ring has room for {limit}: raise privacy.count-noise or lower "
            "quantization.bits"
        )
    return mechanism


def known_noise(observer: Observer, colluding: int) -> int:
    """Return the number of clients whose noise an observer of sums knows.

    A client that reads the adapters knows its own noise, and clients that may collude with the server may collude with
    it.
    """
    match observer:
        case Observer.PUBLIC | Observer.SERVER:
            return 0
        case Observer.PARTICIPANT:
            return max(1, colluding)
        case Observer.COALITION:
            return colluding


def views(
    promises: Promises, mechanism: GaussianMechanism, *, present: Mapping[int, int], colluding: int
) -> Views:
    """Return what a release spends against each observer.

    Args:
        promises: The promises of the plan.
        mechanism: The noise mechanism of the round.
        present: By index of a band that may open: how many surviving clients have uploaded it.
        colluding: Number of clients whose noise the coalition knows.
    """
    privacy = promises.config.privacy
    if mechanism.place is NoisePlace.SERVER:
        if privacy.adjacency is Adjacency.ADD_OR_REMOVE:
            present = {index: shares.uploaders for index, shares in enumerate(mechanism.bands)}
        seen = replace(mechanism.event(present), sample_rate=privacy.sample_rate)
        return dict.fromkeys(Observer, EXPOSED) | {Observer.PUBLIC: seen, Observer.PARTICIPANT: seen}
    readers = {
        observer: mechanism.event(present, known=known_noise(observer, colluding))
        for observer in (Observer.PUBLIC, Observer.PARTICIPANT)
    }
    if promises.mode.reads_uploads:
        # Every single upload is read, whatever opens: one share hides it.
        alone = dict.fromkeys(range(len(mechanism.bands)), 1)
        return readers | dict.fromkeys((Observer.SERVER, Observer.COALITION), mechanism.event(alone))
    return readers | {
        observer: mechanism.event(present, known=known_noise(observer, colluding))
        for observer in (Observer.SERVER, Observer.COALITION)
    }
