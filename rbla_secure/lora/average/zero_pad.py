"""Zero padding: rows that a client does not hold count as zeros."""

from collections.abc import Sequence
from typing import final

import numpy as np

from rbla_secure.lora.adapter import AdapterLayout
from rbla_secure.lora.average.rule import AveragingRule, GroupAverage, Totals, scaled_means, weight_shares
from rbla_secure.lora.bands import Band


@final
class ZeroPad(AveragingRule):
    """The mean over all clients, with zeros for rows a client does not hold: q times RBLA on lora_A and lora_B."""

    def average(
        self,
        totals: Totals,
        bands: Sequence[Band],
        layout: AdapterLayout,
        *,
        gamma: float,  # noqa: ARG002
    ) -> GroupAverage:
        """Implement :meth:`AveragingRule.average`. If the total of the first band is absent, every band is absent."""
        factors = {index: np.full(layout.row_length, share) for index, share in weight_shares(totals).items()}
        return scaled_means(totals, bands, layout, factors)

    def noise_kept(self, share: float, *, of_a: int, of_b: int, gamma: float) -> float:  # noqa: ARG002
        """Implement :meth:`AveragingRule.noise_kept`: q^2 of the noise everywhere."""
        return share**2 * (of_a + of_b)


RULE = ZeroPad()
