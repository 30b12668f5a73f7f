"""What an audit tries: a case is a pair of neighbours, what is claimed of it, and trials that are scored."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar


class Case(ABC):
    """One pair of neighbours.

    Attributes:
        gaussian: Whether the claim is that of a Gaussian mechanism, which the Gaussian bound can refute.
    """

    gaussian: ClassVar[bool] = True

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
    def trial(self, *, there: bool) -> Mapping[str, float]:
        """A score for each observer of one trial, with the canary or without; larger means that it was there."""
