"""Filters, and steps before them, by name.

To add a filter, write a file in `rbla_secure/robustness/filters/` that defines `FILTER`, a subclass of :class:`Filter`, and add its
name to `FilterName` in rbla_secure/config/choices.py. For a step before filters: `pre_steps/`, `PRE_STEP`, `PreStepName`.
"""

from abc import ABCMeta
from functools import cache

from rbla_secure.config.choices import FilterName, PreStepName
from rbla_secure.implementations import implementation
from rbla_secure.robustness import filters, pre_steps
from rbla_secure.robustness.filter import Filter, FilterOptions
from rbla_secure.robustness.pre_step import PreStep

# What a user who has to take one should take; no filter withstands an attacker that adapts to it, and this one does not either.
RECOMMENDED = FilterName.TRIMMED_MEAN
# What was measured of the one that is recommended and of the one that was. Said wherever a filter is chosen or evaluated.
# The figures are those of benchmarks/results/robustness.json (a test compares them).
MEASURED = (
    "No filter tried here withstands an attacker that adapts. Measured with two of ten clients attacking on four seeds: under "
    "trimmed-mean with the quorum the trigger works for 2 to 2 % where it lies where digits have no ink, and for 70 to 98 % where it "
    "does not. Under tier-dnc-cosine, which was recommended before and is not any more, it works for 91 to 100 % and for "
    "98 to 99 % (with bands of seven holders or more, which it needs against two)."
)


# The pair that evaluations compare with filters on their own.
MIXING, BEHIND_MIXING = PreStepName.NEIGHBOR_MIXING, FilterName.TRIMMED_MEAN

DEFAULTS = FilterOptions()


@cache
def filter_of(name: FilterName) -> type[Filter]:
    """Return the filter of this name, not built yet.

    Raises:
        TypeError: The file of this name defines something else.
    """
    found = implementation(filters.__name__, name, "FILTER", ABCMeta)
    if not issubclass(found, Filter):
        raise TypeError(f"{found.__qualname__} must be a subclass of Filter to implement {name.value!r}")
    return found


@cache
def pre_step_of(name: PreStepName) -> PreStep:
    """Return the step of this name."""
    return implementation(pre_steps.__name__, name, "PRE_STEP", PreStep)  # type: ignore[type-abstract]  # any step


def build(
    name: FilterName,
    *,
    f: int,
    privacy_quorum: int,
    pre_step: PreStepName = PreStepName.NONE,
    options: FilterOptions = DEFAULTS,
) -> Filter:
    """Build the filter of this name, behind its pre-step.

    Args:
        name: Which filter.
        f: Attackers to stand against.
        privacy_quorum: The fewest contributions whose average may be published.
        pre_step: What happens before it.
        options: The sources of parameters that not all filters have.

    Raises:
        RobustnessError: A parameter that the filter needs is missing or has no meaning.
    """
    return pre_step_of(pre_step).before(filter_of(name).of(f, privacy_quorum, options), options)


def least_holders(
    name: FilterName, *, f: int, privacy_quorum: int, pre_step: PreStepName = PreStepName.NONE
) -> int:
    """Return the fewest holders of a band (behind bucketing: buckets of holders) that a filter needs: :meth:`Filter.least_holders`.

    Known without the filter's other parameters, so that a plan and its check can ask before anything is built.

    Raises:
        RobustnessError: f is negative or `privacy_quorum` is below 1.
    """
    inner = filter_of(name).least_holders(f, privacy_quorum)
    return pre_step_of(pre_step).least_holders(inner, f=f, privacy_quorum=privacy_quorum)
