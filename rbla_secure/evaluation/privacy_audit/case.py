"""What an audit tries: a case is a pair of neighbours, what is claimed of it, and trials that are scored."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What observers have seen of one canary.

    Args:
        there: Whether it was.
        scores: By observer; larger means that it was there.
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
        """Unique within an audit."""

    @property
    @abstractmethod
    def relation(self) -> str:
        """In which way the neighbours differ."""

    @property
    @abstractmethod
    def delta(self) -> float:
        """Of the claims."""

    @property
    @abstractmethod
    def claims(self) -> Mapping[str, float]:
        """By observer against whom something is claimed, epsilon as the product writes it."""

    @abstractmethod
    def play(self) -> Sequence[Trial]:
        """Independent trials, of which about one half has the canary."""
