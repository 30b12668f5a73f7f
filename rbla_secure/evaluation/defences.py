"""The rows of an evaluation: a configuration's own defence, and the ones it could have instead."""

from dataclasses import dataclass
from typing import Any, final

from rbla_secure.config import Config, RobustnessConfig
from rbla_secure.config.choices import FilterName
from rbla_secure.errors import PlanError
from rbla_secure.planning.checks import check_config
from rbla_secure.planning.modes import IN_THE_CLEAR, mode_of
from rbla_secure.planning.promises import Promises
from rbla_secure.robustness.registry import BEHIND_MIXING, MIXING, RECOMMENDED, filter_of

CONFIGURED = "as configured"
_OFF = RobustnessConfig()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedDefence:
    """A configuration with a name for its defence.

    Args:
        name: Name of the row.
        view: The view that the server needs for it: single updates, sums over groups, or one sum.
        config: Configuration of the unattacked run.
        refused: Why its plan is refused; empty if it is sound.
    """

    name: str
    view: str
    config: Config
    refused: str = ""


def attackers_in(config: Config, share: float) -> int:
    """Return how many clients of a round this share is, at least one."""
    return max(1, round(share * Promises.build(config).members))


def defences(config: Config, *, share: float, quick: bool = False) -> list[EvaluatedDefence]:
    """Return the rows of an evaluation: the configuration itself, and alternatives set up for its number of attackers.

    Sums over groups and single sums are evaluated in the clear: masks and ciphertexts cancel to the same integers (tests
    compare adapters byte for byte), and cost only time. The configuration's own row runs in its own mode.

    Args:
        config: The configuration as its user would run it.
        share: Share of all clients that attack, in (0, 1/2).
        quick: Whether to return only its own row, the mean and the recommended filter.
    """
    f = config.robustness.f or attackers_in(config, share)
    own = _defence(CONFIGURED, config, {})
    mean = _alternative("mean", config, "one sum", {"f": 0})
    recommended = _alternative(
        f"{RECOMMENDED}, quorum", config, "single updates", {"f": f, "filter": RECOMMENDED}
    )
    if quick:
        return [own, mean, recommended]
    found = [own, mean, _alternative("mean, quorum", config, "one sum", {"f": f})]
    for size in (3, 5):
        groups = {"f": f, "group_size": size}
        found.append(_alternative(f"median over groups of {size}", config, "sums over groups", groups))
    for name in FilterName:
        if name not in {_OFF.filter, RECOMMENDED}:
            wanted = {"f": f, "filter": name}
            found.append(_alternative(f"{name}, quorum", config, "single updates", wanted))
    mixed = {"f": f, "filter": BEHIND_MIXING, "pre_step": MIXING}
    found.append(_alternative("neighbor mixing, trimmed-mean, quorum", config, "single updates", mixed))
    return [*found, recommended]


def _alternative(name: str, config: Config, view: str, robustness: dict[str, Any]) -> EvaluatedDefence:
    """Return the same federation with another defence, summed in the clear and without noise."""
    changed = config.robustness.model_copy(
        update={"group_size": 0, "filter": _OFF.filter, "pre_step": _OFF.pre_step, **robustness}
    )
    changes: dict[str, Any] = {
        "robustness": changed,
        "secure_sum": IN_THE_CLEAR,
        "noise_multiplier": 0.0,
        "privacy": type(config.privacy)(),
    }
    if filter_of(changed.filter).publishes_one_update:
        changes["min_holders"] = 1
    return _defence(name, config, changes, view=view)


def _defence(name: str, config: Config, changes: dict[str, Any], *, view: str = "") -> EvaluatedDefence:
    changed = config.model_copy(update=changes)
    if not view:
        view = "single updates" if mode_of(changed).reads_uploads else "one sum"
        view = "sums over groups" if changed.robustness.group_size else view
    refused = ""
    try:
        check_config(changed)
    except PlanError as error:
        refused = str(error)
    return EvaluatedDefence(name=name, view=view, config=changed, refused=refused)
