"""The standing of a printed epsilon of a run: a bound, or a reading.

Composition theorems add up mechanisms that are fixed beforehand. The noise of a round is not where drop-outs take noise along:
who falls silent may depend on earlier results, and with it how much noise later ones have. Two notions cover that (Rogers, Roth,
Ullman, Vadhan 2016, arXiv 1605.08294). A *privacy filter* stops before a budget that was fixed beforehand is exceeded; for Gaussian
mechanisms whose noise is chosen adaptively, adding up 1 / z^2 round by round keeps it without any loss (Smith, Thakurta 2022, arXiv
2210.17520): what `max-epsilon` does, in every observer's view, for every client. A *privacy odometer* reads what was spent so far.
A reading that holds at every moment at once takes more than the sum (Whitehouse, Ramdas, Rogers, Wu 2023, arXiv 2203.05481), so
the sum alone, without a budget, is called a reading and no bound.
"""

from enum import StrEnum

from rbla_secure.config.choices import Mechanism
from rbla_secure.privacy.figures import exact
from rbla_secure.privacy.noise import NoisePlace, noise_kind


class Standing(StrEnum):
    """The standing of the epsilons of a run.

    FILTER: Bounded by a budget that was fixed beforehand, whatever drop-outs depend on.
    FIXED: Bounded by what is foretold of the configuration, as no drop-out changes the noise.
    ODOMETER: A reading of what was spent.
    """

    FILTER = "privacy-filter"
    FIXED = "fixed-beforehand"
    ODOMETER = "privacy-odometer"


def standing(mechanism: Mechanism, *, max_epsilon: float) -> Standing:
    """Return the standing of the epsilons of a run with client-level noise.

    Args:
        mechanism: Who adds the noise.
        max_epsilon: The budget; 0 for none.
    """
    if noise_kind(mechanism).place is NoisePlace.SERVER:
        return Standing.FIXED
    return Standing.FILTER if max_epsilon else Standing.ODOMETER


def standing_in_words(mechanism: Mechanism, *, max_epsilon: float, recovered: bool, colluders: int) -> str:
    """Describe the standing in words.

    Args:
        mechanism: Who adds the noise.
        max_epsilon: The budget; 0 for none.
        recovered: Whether noise is added in advance and removed for drop-outs that did not happen.
        colluders: Clients that may pool what they know.
    """
    match standing(mechanism, max_epsilon=max_epsilon):
        case Standing.FILTER:
            return (
                f"privacy.max-epsilon={exact(max_epsilon)} is a bound fixed beforehand against every observer with an epsilon, whatever "
                "drop-outs depend on: the run stops instead of exceeding it (a privacy filter: Smith and Thakurta 2022)"
            )
        case Standing.FIXED:
            return (
                "no drop-out changes the noise of a release: what 'rbla-secure account' foretells of the configuration is a bound "
                "fixed beforehand (attempts that a crash cut short are counted too, and can make the figure larger)"
            )
        case Standing.ODOMETER:
            return _READING + (_within(colluders) if recovered else "")


_READING = (
    "a reading of what was spent (privacy odometer), not a bound fixed beforehand: the noise of a round depends on who drops "
    "out, which may depend on earlier results (Whitehouse et al. 2023); privacy.max-epsilon sets a bound"
)


def _within(colluders: int) -> str:
    """Say who faces at least the planned noise with recovery: all that know no more noise than the coalition."""
    whom = (
        "every observer"
        if colluders
        else "every observer but a participant, whose own noise privacy.colluders=0 leaves out"
    )
    return (
        f"; as long as no more drop out than are made good, {whom} faces the planned noise or more, and what 'rbla-secure account' "
        "foretells of the server-with-clients bounds it beforehand"
    )
