"""The interface of filters over single updates: from everybody's update to the totals of the average. Plain mode, server.

A filter names what it stands against, opens only bands with as many holders as it needs against that
(:meth:`Filter.least_holders`), and answers with a verdict on every client. Three families:

- *band rules* (:mod:`~rbla_secure.robustness.band_rules`) replace the mean of each band and reject nobody,
- *bounded influence* (:mod:`~rbla_secure.robustness.bounded`) weighs or shortens whole updates,
- *selection* (:mod:`~rbla_secure.robustness.selection`) scores whole updates inside their rank tier, rejects the worst
  f and takes the RBLA mean of the others.

No filter withstands noise added to single updates before it looks: filter what is free of noise, or claim one of both.

Each filter is a file of its name in `rbla_secure/robustness/filters/` that defines `FILTER`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self, TypeVar, final

import numpy as np
import numpy.typing as npt

from rbla_secure.config import Config, RobustnessConfig
from rbla_secure.errors import RobustnessError
from rbla_secure.lora.update import BandTotal, RealVector
from rbla_secure.robustness.quorum import band_quorum
from rbla_secure.robustness.rules.matrix import combine
from rbla_secure.robustness.updates import BandUpdates, Updates
from rbla_secure.robustness.verdicts import Filtered, Verdict

Previous = Mapping[int, RealVector] | None
T = TypeVar("T")
Factors = npt.NDArray[np.float64]


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FilterOptions:
    """The sources of a filter's own parameters.

    Args:
        settings: The table `robustness`, of which each filter reads its own keys.
        clip_norm: L2 norm to which updates are clipped before the filter, in units of an update; None if it is not known.
        reference: By band, the update of this round on public examples; None where no filter asks for it.
    """

    settings: RobustnessConfig = field(default_factory=RobustnessConfig)
    clip_norm: float | None = None
    reference: Mapping[int, RealVector] | None = None

    @classmethod
    def of(cls, config: Config, *, reference: Mapping[int, RealVector] | None = None) -> Self:
        """Take the parameter sources from a configuration."""
        return cls(settings=config.robustness, clip_norm=config.clip_norm, reference=reference)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Filter(ABC):
    """A filter over the updates of one round.

    Attributes and class methods are asked before anything is built; limits on a round's step follow from them
    (federation/step_bound.py).

    Args:
        f: Attackers to stand against, wherever they are.
        privacy_quorum: The fewest contributions whose average may be published.

    Attributes:
        keeps_quorum: Whether all holders that opened a band are averaged; if not, `privacy_quorum` of them may be left.
        same_share_everywhere: Whether the average is made of updates that count with one share in all of their bands.
        bounds_length: Whether no average is longer than what goes in.
        needs_reference: Whether it compares with an update on public examples.
        publishes_one_update: Whether an average may be the rows of one client, so that `privacy_quorum` must be 1.

    Raises:
        RobustnessError: f is negative, `privacy_quorum` below 1, or another number without meaning.
    """

    keeps_quorum: ClassVar[bool] = False
    same_share_everywhere: ClassVar[bool] = True
    bounds_length: ClassVar[bool] = True
    needs_reference: ClassVar[bool] = False
    publishes_one_update: ClassVar[bool] = False

    f: int
    privacy_quorum: int

    def __post_init__(self) -> None:
        band_quorum(self.f, self.privacy_quorum)

    @classmethod
    def of(cls, f: int, privacy_quorum: int, options: FilterOptions) -> Self:  # noqa: ARG003
        """Build it from a configuration.

        Args:
            f: Attackers to stand against.
            privacy_quorum: The fewest contributions whose average may be published.
            options: The sources of parameters of its own.

        Raises:
            RobustnessError: A parameter that it needs is missing or has no meaning.
        """
        return cls(f=f, privacy_quorum=privacy_quorum)

    @classmethod
    def stretch(cls, f: int) -> float:  # noqa: ARG003
        """Return the factor >= 1 by which a squared average can exceed the mean of the squared updates."""
        return 1.0

    @classmethod
    def update_limit(cls, options: FilterOptions) -> float:  # noqa: ARG003
        """Return the L2 norm to which it shortens updates, in units of an update; infinite if it does not."""
        return math.inf

    @classmethod
    def least_holders(cls, f: int, privacy_quorum: int) -> int:
        """The fewest holders of a band with which this kind of filter keeps its promise against f attackers among them.

        2f + 1 where every holder counts and the rule bounds each of them, or where the rule is one of the middle. A filter
        that leaves holders out, or copies one, says itself what it needs. The plan's check, the terms of a round and the filter in
        that round all ask here.

        Raises:
            RobustnessError: f is negative or `privacy_quorum` is below 1.
        """
        return band_quorum(f, privacy_quorum)

    @property
    def quorum(self) -> int:
        """The fewest holders of positive weight with which a band opens."""
        return self.least_holders(self.f, self.privacy_quorum)

    @abstractmethod
    def apply(self, updates: Updates, *, previous: Previous, seed: int) -> Filtered:
        """Filter the updates of one round.

        Args:
            updates: Updates of all clients whose upload counts.
            previous: By band index, the average of the round before, not yet times the server's learning rate; bands that
                were closed then are missing. None in the first round.
            seed: Seed of this round, >= 0, drawn after the updates are fixed: attackers must not know what is checked.

        Guarantees: deterministic; every client has a verdict; a band is in either `totals` or `closed`. Never raises
        because of what clients sent or how many dropped out: bands without a quorum stay closed.
        """

    def opened(self, updates: Updates) -> tuple[dict[int, BandUpdates], dict[int, str]]:
        """The bands with a quorum, and why the others stay closed."""
        opened, closed = {}, {}
        for index, band in updates.bands.items():
            count = int((updates.weights[band.holders] > 0).sum())
            if count >= self.quorum:
                opened[index] = band
            else:
                closed[index] = f"{count} holders, {self.quorum} needed against f={self.f}"
        return opened, closed


def needed(option: str, value: T | None) -> T:
    """Return an option that a filter cannot do without.

    Raises:
        RobustnessError: It was not given.
    """
    if value is None:
        raise RobustnessError(f"this filter needs `{option}`")
    return value


def weighted_total(updates: Updates, band: BandUpdates, factors: Factors | None = None) -> BandTotal:
    """The weighted sum of the holders' updates, each times its factor; the weights stay as they are.

    Args:
        updates: All of them.
        band: Which rows.
        factors: Shape (n,); 1 if not given.
    """
    weights = updates.weights[band.holders]
    shares = weights if factors is None else weights * factors[band.holders]
    return BandTotal(weighted_sum=combine(shares, band.values), weight=float(weights.sum()), cut_off=None)


def as_total(updates: Updates, band: BandUpdates, average: RealVector) -> BandTotal:
    """A total whose average is a rule's result, and whose weight is that of all holders."""
    weight = float(updates.weights[band.holders].sum())
    return BandTotal(weighted_sum=average * weight, weight=weight, cut_off=None)


def accept_all(
    updates: Updates, reason: str, scores: npt.NDArray[np.float64] | None = None
) -> dict[str, Verdict]:
    """Accept every client, with one reason for all."""
    return {
        client: Verdict(accepted=True, score=None if scores is None else float(scores[i]), reason=reason)
        for i, client in enumerate(updates.clients)
    }
