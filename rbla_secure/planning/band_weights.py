"""The public weights of a plan's rank bands, computed from tiers, layout and average; rows are multiplied by them.

Between a client's clip and the server's average everything is in weighted units: integers, noise, totals, the limits of
`step_bound.py`, and the clip norm. `contribution.py` multiplies, `round.average` divides, and the modules that compare
adapters with limits (`movement.py`, `previous_step.py`) multiply too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from rbla_secure.config import Config
from rbla_secure.config.choices import BandWeights, Factors, RowOrder
from rbla_secure.errors import PlanError
from rbla_secure.lora.adapter import AdapterLayout
from rbla_secure.lora.average import averaging_rule
from rbla_secure.lora.bands import Band
from rbla_secure.planning.promises import Promises
from rbla_secure.privacy.band_weights import expected_signal, least_noise_weights


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class BandProfile:
    """Cost and expected signal of one band that opens.

    Args:
        band: Its rows.
        cost: c_b: its share of the noise energy of an average at equal weights, per squared unit of noise on a sum.
        signal: s_b: the share of an update's squared norm that is expected in it, dimensionless.
    """

    band: Band
    cost: float
    signal: float


def check_band_weights(promises: Promises) -> None:
    """Refuse weights that nothing reads or that change nothing.

    Raises:
        PlanError: Names the argument, its value and the rule.
    """
    config, privacy = promises.config, promises.config.privacy
    if privacy.band_weights is BandWeights.EQUAL:
        if privacy.rank_decay:
            raise PlanError(
                f"privacy.rank-decay={privacy.rank_decay:g} must be 0 with privacy.band-weights=equal, which does not read it: "
                "use privacy.band-weights=holders"
            )
        return
    if not promises.noisy:
        raise PlanError(
            f"privacy.band-weights={privacy.band_weights} must be equal without noise-multiplier above 0: there is no noise to "
            "distribute"
        )
    if config.training.rows is RowOrder.IN_TURNS:
        raise PlanError(
            f"privacy.band-weights={privacy.band_weights} must be equal with training.rows=in-turns: each band is clipped alone, "
            "to an equal part of the clip norm, so that a weight would lessen signal and noise of a band alike"
        )


def band_weights(promises: Promises, layout: AdapterLayout) -> tuple[float, ...]:
    """Return a_b by band index; 1 where weights are equal, and in bands that can never open, which nobody uploads."""
    weights = [1.0] * len(promises.bands)
    if promises.config.privacy.band_weights is BandWeights.HOLDERS:
        profiles = band_profiles(promises, layout)
        found = least_noise_weights([each.cost for each in profiles], [each.signal for each in profiles])
        weights[: len(found)] = found
    return tuple(weights)


def band_profiles(promises: Promises, layout: AdapterLayout) -> tuple[BandProfile, ...]:
    """Return costs and expected signals of the bands that open, which are the first ones.

    With D_b holders of n clients, q = D_b / n, an average divides a sum by D_b, and multiplies by q^gamma on lora_B, or under
    zero padding by q on both factors. A row of a values of lora_A and b of lora_B thus costs (a + b q^(2 gamma)) / D_b^2, or
    (a + b) / n^2.
    """
    config, members = promises.config, promises.members
    opening = [each for each in promises.bands if each.opens]
    rows = [(each.band.start, each.band.stop) for each in opening]
    return tuple(
        BandProfile(
            band=each.band,
            cost=each.band.height * _row_cost(config, layout, each.holders, members),
            signal=signal,
        )
        for each, signal in zip(opening, expected_signal(rows, config.privacy.rank_decay), strict=True)
    )


def weights_used(promises: Promises, weights: Sequence[float]) -> str:
    """Return the weights of the bands that open in words, for people; empty where they are equal."""
    if promises.config.privacy.band_weights is BandWeights.EQUAL:
        return ""
    named = zip(promises.bands, weights, strict=True)
    return ", ".join(f"{weight:.3f} in {each.band}" for each, weight in named if each.opens)


def _row_cost(config: Config, layout: AdapterLayout, holders: int, members: int) -> float:
    share = holders / members
    of_b = int(layout.lora_B_columns.sum())
    of_a = 0 if config.lora.factors is Factors.LORA_B else layout.row_length - of_b
    kept = averaging_rule(config.average).noise_kept(share, of_a=of_a, of_b=of_b, gamma=config.gamma)
    return kept / holders**2
