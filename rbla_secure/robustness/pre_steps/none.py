"""No step before the filter."""

from typing import final

from rbla_secure.robustness.filter import Filter, FilterOptions
from rbla_secure.robustness.pre_step import PreStep


@final
class NoPreStep(PreStep):
    """The filter alone."""

    def before(self, inner: Filter, options: FilterOptions) -> Filter:  # noqa: ARG002
        """Implement :meth:`PreStep.before`."""
        return inner


PRE_STEP = NoPreStep()
