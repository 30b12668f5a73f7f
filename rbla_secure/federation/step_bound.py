"""How far honest clients can move the global adapter in one round. Pure functions of the plan, the same for everyone.

The server refuses averages that are longer (`server/average_check.py`), a client an adapter that has moved further since the last one it
was given (`movement.py`). Whatever one hostile client adds behind its masks, the adapter moves by no more than these limits.

**Without filter and noise.** A client's whole update x_k, cut and rounded, has an L2 norm of at most C: the rounded norm bound at
the plan's largest clip norm, over the grid's scale. (Where each band is clipped and rounded alone: of all of them together.) (Weights: w x_k is what is rounded, to at most R(w C) / s, so x_k is
longest at the least weight l.) The average of band b is a convex combination sum_k p_kb x_kb, p_kb = w_k / W_b, so by Jensen
|avg_b|^2 <= sum_k p_kb |x_kb|^2. One band is thus at most C long. Over the open bands b_1 < ... < b_m, W_b only falls, and

    sum_b |avg_b|^2 <= sum_k w_k / W_top(k) * sum_b |x_kb|^2 <= C^2 sum_i mu_i / W_i,
    mu_i / W_i = mu_i / (mu_i + W_{i+1}) <= m_i / (m_i + l q),   the last term is 1,

where top(k) is the highest open band that k holds, mu_i the weight of all whose highest is b_i, m_i their number, and q the
quorum of a band: W_{i+1} >= l q, mu_i <= m_i. Drop-outs only make m_i smaller, and x / (x + l q) grows with x. Where bands stay
closed, the clients of neighboring classes count as one: the function is concave and 0 at 0, hence (a + b) / (a + b + l q) <=
a / (a + l q) + b / (b + l q), and the sum over all classes of the plan bounds every case:

    |step|^2 <= C^2 (1 + sum over all bands but the last of M_b / (M_b + l q))   =: C^2 K

with M_b clients of a cohort whose highest band is b. A coordinate of an average is at most bound / l, as each integer is at most
`levels`. Zero padding and gamma multiply by shares <= 1. The default job has K = 1 + 3 * 2/5: sqrt(K) = 1.48.

**Weights of bands** (`planning/band_weights.py`) are on every x_k before the clip, so all of this, noise included, is of weighted steps: row r
of an adapter times the weight of its band. Whoever holds an adapter against a limit multiplies first.

**Filters** see updates that the server has clipped to the same C. Means over a selection, and of shortened updates: as above,
with q the least number that is kept. Median and trimmed mean (f of v values on either side; the median trims (v - 1) // 2):
if the result t of a coordinate is above 0, the v - 2f kept values have a mean of t and the f above are no less than the largest
of them, so the squares of all v add up to (v - f) t^2 at least: |avg|^2 <= v / (v - f) * mean |x|^2, a factor below 2. Krum, the
geometric median and centered clipping give points of the convex hull in every band (the last one also of its previous step,
itself within the limit), but other ones in each: C per band, so K = number of bands; so does mixing with neighbors.
fl-trust takes the length of its reference, which nothing bounds: infinity. **Groups**: the average of a group is such a mean, at
most C over all its bands, and groups stand for clients above, without weights and with at least 2f + 1 of them.

**Noise** of standard deviation a_b on each coordinate of an average (`_noise_std`) is sub-Gaussian. So is discrete noise N_Z(0, V)
(Canonne, Kamath, Steinke 2020, arXiv 2004.00010): completing the square, E exp(u X) = exp(u^2 V / 2) times the sum over the integers
of exp(-(x - u V)^2 / 2V) over that of exp(-x^2 / 2V), and by Poisson summation a shift only lowers such a sum. By Hsu, Kakade,
Zhang 2012 (arXiv 1110.2842, Theorem 2.1; for Gaussians Laurent and Massart 2000, Lemma 1), with S = sum d_b a_b^2 and a = max a_b,
but for a probability of exp(-t)

    |noise|^2 <= S + 2 sqrt(t sum d_b a_b^4) + 2 a^2 t <= (sqrt(S) + a sqrt(2 t))^2,       t = 40 ln 2,

and no coordinate exceeds a_b sqrt(2 (t + ln 2 d_b)) but for the same. So each limit fails an honest round with at most 2^-40; a round
has two of them for each band, one for all, and as many for each of its groups.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, final

from rbla_secure.config import RobustnessConfig
from rbla_secure.config.choices import AcrossRule
from rbla_secure.planning.plan import Plan
from rbla_secure.privacy.noise import NoisePlace
from rbla_secure.robustness.across import group_rule
from rbla_secure.robustness.filter import FilterOptions
from rbla_secure.robustness.registry import filter_of, pre_step_of

# Rounds of a check of public accuracy whose adapters are remembered; the best of them is what a new one is compared with.
WINDOW = 3
# The logarithm of how rarely the noise of an honest round exceeds one limit: 2^-40.
_TAIL: Final = 40 * math.log(2)
# What sums in float64 may be off, relative; far above it.
_ARITHMETIC: Final = 1 + 1e-6
# Half a unit in the last place of float32, relative: what a row value is off after a step.
_ROUNDING: Final = 2.0**-24


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AverageLimits:
    """Limits of the average of honest clients, in units of an update, before the server's learning rate.

    Args:
        bands: By index, the L2 norm of one band; 0 for one that never opens.
        coordinates: By index, the magnitude of one coordinate.
        total: The L2 norm over all bands.
    """

    bands: tuple[float, ...]
    coordinates: tuple[float, ...]
    total: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """The rule between updates and their average.

    Args:
        stretch: v / (v - f) above, at least 1: the largest ratio of the average's square to the mean of squares.
        whole: Whether each update counts with the same share in all bands that it has.
        of_sums: Whether the rule averages sums with noise in them, which it may stretch as well.
    """

    stretch: float = 1.0
    whole: bool = True
    of_sums: bool = False


def update_limit(plan: Plan, *, clip_norm: float | None = None) -> float:
    """Return C: the largest L2 norm of one client's whole update as it enters the sum, divided by its weight.

    Args:
        plan: The terms.
        clip_norm: The clip norm of one round, an L2 norm; the largest of the plan if not given.
    """
    least = plan.least_weight
    longest = plan.rounded_norm(least * (clip_norm or plan.clip_norms[0]))
    shortened = filter_of(plan.config.robustness.filter).update_limit(FilterOptions.of(plan.config))
    return min(longest / (plan.quantizer.scale * least), shortened)


def single_limits(plan: Plan) -> AverageLimits:
    """Return the limits of the mean of one group, in which every update counts with one share in all its bands."""
    return _limits(plan, plan.clip_norms[0], stretch=1.0, overlap=1.0)


def average_limits(plan: Plan, *, clip_norm: float | None = None) -> AverageLimits:
    """Return the limits of a round's average; of any round if its clip norm is not given."""
    rule = _rule(plan.config.robustness, plan.segmentation.rule_across)
    overlap = _overlap(plan) if rule.whole else float(len(plan.bands_that_open))
    return _limits(
        plan, clip_norm or plan.clip_norms[0], stretch=rule.stretch, overlap=overlap, of_sums=rule.of_sums
    )


def step_limit(plan: Plan) -> float:
    """Return the largest L2 norm, over all rows, by which one honest round moves the global adapter, before rounding.

    The rounding left out is that of float32. With a check of public accuracy a round may also go back by `WINDOW` - 1
    steps (`server/step_checks.py`). Infinite under fl-trust. With weights of bands an upper bound: the limit of the
    weighted step divided by the smallest weight.
    """
    least = min(plan.band_weights[band.index] for band in plan.bands_that_open)
    return in_one_round(plan, average_limits(plan).total) / least


def in_one_round(plan: Plan, limit: float) -> float:
    """Convert a limit of an average into how far a round moves what it limits: all rows, a band or one value."""
    moved = plan.config.server_learning_rate * limit
    if cap := plan.config.robustness.max_step_norm:
        # The cap is of the step itself, which no weight lengthens by more than the largest.
        moved = min(moved, cap * max(plan.band_weights) * _ARITHMETIC)
    return moved * (WINDOW - 1) if plan.config.robustness.max_accuracy_drop else moved


def over_rounds(each: float, size: float, *, rounds: int) -> float:
    """Return how far `rounds` rounds move something, with float32 rounding: each step adds 2^-24 of every value.

    Args:
        each: How far one round moves it, which may go back by `WINDOW` - 1 steps; what no round moves is not rounded.
        size: L2 norm, or magnitude, before the first of these rounds.
        rounds: Number of rounds.
    """
    furthest = rounds * each
    rounding = rounds * (WINDOW - 1) * _ROUNDING
    return furthest + rounding * (size + furthest) * math.exp(2 * rounding) if each else 0.0


def _limits(
    plan: Plan, clip_norm: float, *, stretch: float, overlap: float, of_sums: bool = False
) -> AverageLimits:
    signal, width = math.sqrt(stretch) * update_limit(plan, clip_norm=clip_norm), plan.width
    coordinate = plan.quantizer.bound / plan.least_weight
    # Under secret draws everybody may be drawn, and is divided by as many as are expected to be.
    signal, coordinate = (
        signal / plan.config.privacy.sample_rate,
        coordinate / plan.config.privacy.sample_rate,
    )
    opening = {band.index for band in plan.bands_that_open}
    if not filter_of(plan.config.robustness.filter).bounds_length:
        signal = coordinate = math.inf
    bands, coordinates = [], []
    for band in plan.bands:
        length, std = band.height * width, _noise_std(plan, band.index, clip_norm)
        longest = min(signal, math.sqrt(length) * coordinate)
        longest += math.sqrt(stretch) * std * (math.sqrt(length) + math.sqrt(2 * _TAIL))
        furthest = coordinate + std * math.sqrt(2 * (_TAIL + math.log(2 * length)))
        bands.append(longest * _ARITHMETIC if band.index in opening else 0.0)
        coordinates.append(furthest * _ARITHMETIC if band.index in opening else 0.0)
    noise = _noise_norm(plan, clip_norm) * (math.sqrt(stretch * overlap) if of_sums else 1.0)
    total = min((math.sqrt(overlap) * signal + noise) * _ARITHMETIC, math.hypot(*bands))
    return AverageLimits(bands=tuple(bands), coordinates=tuple(coordinates), total=total)


def _overlap(plan: Plan) -> float:
    """Return K: a bound on the sum of squared norms over all bands, in units of C^2."""
    votes = plan.segmentation.votes(plan.least_weight)
    voters = votes.counts[: len(plan.bands_that_open)]
    classes = [here - above for here, above in pairwise(voters)]
    return 1 + sum(count / (count + votes.least_weight * votes.quorum) for count in classes)


def _rule(wanted: RobustnessConfig, across: AcrossRule | None) -> _Rule:
    if across is not None:
        return _Rule(stretch=group_rule(across).stretch(wanted.f), of_sums=True)
    found = filter_of(wanted.filter)
    return _Rule(
        stretch=found.stretch(wanted.f),
        whole=found.same_share_everywhere and not pre_step_of(wanted.pre_step).mixes,
    )


def _noise_std(plan: Plan, index: int, clip_norm: float) -> float:
    """Return a_b: the largest standard deviation of the noise on one coordinate of an average, in units of an update.

    With h surviving holders of H and N uploaders in a cohort at most h + N - H shares are in the sum, and it is divided by h:
    sqrt(h + N - H) / h falls with h, so it is largest at the quorum. Components that were to be removed may still be in.
    """
    mechanism = plan.mechanism_at(clip_norm)
    if mechanism is None:
        return 0.0
    unit = mechanism.share_std(index) / plan.quantizer.scale
    quorum, holders = plan.segmentation.quorum, plan.promises.bands[index].holders
    if mechanism.place is NoisePlace.SERVER:
        # Under secret draws what is divided by is fixed, and can be below the quorum.
        least = min(quorum, plan.config.privacy.sample_rate * holders)
        return mechanism.released_std(index, plan.config.rounds) / plan.quantizer.scale / least
    return unit * math.sqrt(quorum + plan.segmentation.noise_of_others(index)) / quorum


def _noise_norm(plan: Plan, clip_norm: float) -> float:
    """Return the limit of the L2 norm of the noise over all bands together."""
    stds = [
        (band.height * plan.width, _noise_std(plan, band.index, clip_norm)) for band in plan.bands_that_open
    ]
    spread = math.sqrt(sum(length * std**2 for length, std in stds))
    return spread + max((std for _, std in stds), default=0.0) * math.sqrt(2 * _TAIL)
