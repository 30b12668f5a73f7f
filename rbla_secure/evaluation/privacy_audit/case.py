"""Cases of an audit: a pair of neighbours, the claims for it, and scored trials."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The observers' scores of one canary.

    Args:
        there: Whether the canary was present.
        scores: Score by observer; larger means that it was more likely present.
    """

    there: bool
    scores: Mapping[str, float]


class Case(ABC):
    """One pair of neighbours."""

    @property
    @abstractmethod
    def gaussian(self) -> bool:
        """Whether the claim is that of a Gaussian mechanism, which the Gaussian bound can refute."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the case, unique within an audit."""

    @property
    @abstractmethod
    def relation(self) -> str:
        """How the neighbours differ."""

    @property
    @abstractmethod
    def delta(self) -> float:
        """Delta of the claims."""

    @property
    @abstractmethod
    def claims(self) -> Mapping[str, float]:
        """Epsilon as the product writes it, by observer for whom there is a claim."""

    @abstractmethod
    def play(self) -> Sequence[Trial]:
        """Run independent trials, about one half of them with the canary."""
