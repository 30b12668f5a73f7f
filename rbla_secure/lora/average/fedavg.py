"""FedAvg (McMahan et al. 2017, arXiv 1602.05629), for clients of one rank."""

from collections.abc import Sequence
from typing import ClassVar, final

from rbla_secure.errors import AdapterError
from rbla_secure.lora.adapter import AdapterLayout
from rbla_secure.lora.average import rbla
from rbla_secure.lora.average.rule import AveragingRule, GroupAverage, Totals
from rbla_secure.lora.bands import Band


@final
class FedAvg(AveragingRule):
    """The weighted mean of adapters of one rank."""

    equal_ranks_only: ClassVar[bool] = True

    def average(
        self,
        totals: Totals,
        bands: Sequence[Band],
        layout: AdapterLayout,
        *,
        gamma: float,  # noqa: ARG002
    ) -> GroupAverage:
        """Implement :meth:`AveragingRule.average`.

        Raises:
            AdapterError: There is more than one band, so ranks differ.
        """
        if len(bands) != 1:
            raise AdapterError(f"fedavg needs equal ranks: {len(bands)} rank bands must be 1")
        return rbla.RULE.average(totals, bands, layout, gamma=0.0)

    def noise_kept(self, share: float, *, of_a: int, of_b: int, gamma: float) -> float:
        """Implement :meth:`AveragingRule.noise_kept`: every client holds every row, so the result is that of RBLA."""
        return rbla.RULE.noise_kept(share, of_a=of_a, of_b=of_b, gamma=gamma)


RULE = FedAvg()
