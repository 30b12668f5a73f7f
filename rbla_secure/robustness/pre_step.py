"""The interface of steps before a filter, and of the filters around a filter that they build."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from rbla_secure.errors import RobustnessError
from rbla_secure.robustness.filter import Filter, FilterOptions


class PreStep(ABC):
    """A step before the filter, as a configuration can name it. Stateless.

    Each is a file of its name in `rbla_secure/robustness/pre_steps/` that defines `PRE_STEP`.

    Attributes:
        mixes: Whether what is averaged are mixtures, other ones in each band.
        in_buckets: Whether buckets of clients are filtered in the place of clients.
    """

    mixes: ClassVar[bool] = False
    in_buckets: ClassVar[bool] = False

    @abstractmethod
    def before(self, inner: Filter, options: FilterOptions) -> Filter:
        """Build the step around a filter."""

    def least_holders(self, inner: int, *, f: int, privacy_quorum: int) -> int:  # noqa: ARG002
        """Return the fewest holders of a band (or buckets) before the step where the filter behind it needs `inner`."""
        return inner


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreStepFilter(Filter):
    """A filter with a step before `inner`; it makes the same promise as `inner`.

    Raises:
        RobustnessError: f or `privacy_quorum` differ from those of `inner`.
    """

    inner: Filter

    def __post_init__(self) -> None:
        Filter.__post_init__(self)
        if (self.f, self.privacy_quorum) != (self.inner.f, self.inner.privacy_quorum):
            raise RobustnessError(
                f"f={self.f}, privacy_quorum={self.privacy_quorum} must be those of the filter behind the pre-step: "
                f"f={self.inner.f}, privacy_quorum={self.inner.privacy_quorum}"
            )
