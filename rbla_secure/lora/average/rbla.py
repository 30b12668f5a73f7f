"""RBLA (Chen et al. 2024, arXiv 2408.08699) and the family around it."""

from collections.abc import Sequence
from typing import final

import numpy as np

from rbla_secure.lora.adapter import AdapterLayout
from rbla_secure.lora.average.rule import AveragingRule, GroupAverage, Totals, scaled_means, weight_shares
from rbla_secure.lora.bands import Band


@final
class Rbla(AveragingRule):
    """The weighted mean of each row over exactly its holders, times q^gamma on the columns of lora_B."""

    def average(
        self, totals: Totals, bands: Sequence[Band], layout: AdapterLayout, *, gamma: float
    ) -> GroupAverage:
        """Implement :meth:`AveragingRule.average`. Equal ranks give FedAvg for every gamma.

        With gamma > 0 and the total of the first band absent, no share of the weight is known and every band is absent.
        """
        shares = weight_shares(totals) if gamma else dict.fromkeys(totals, 1.0)
        factors = {
            index: np.where(layout.lora_B_columns, share**gamma, 1.0) for index, share in shares.items()
        }
        return scaled_means(totals, bands, layout, factors)

    def noise_kept(self, share: float, *, of_a: int, of_b: int, gamma: float) -> float:
        """Implement :meth:`AveragingRule.noise_kept`: all of the noise in lora_A, q^(2 gamma) of it in lora_B."""
        return of_a + of_b * float(share ** (2 * gamma))


RULE = Rbla()
