"""The table ``robustness``: quorums, filters and checks against faulty or hostile clients."""

from typing import Annotated

from pydantic import Field

from rbla_secure.config.choices import AcrossRule, FilterName, PreStepName
from rbla_secure.config.fields import Count, CountOrZero, NotNegative, Share, Table


class RobustnessConfig(Table):
    """What stands between a faulty or hostile client and the global adapter."""

    f: CountOrZero = Field(
        0,
        description="Hostile clients of a round to stand against. A band opens over max(2f + 1, `min-holders`) holders, and over f more "
        "where the filter rejects clients or the pre-step mixes them.",
    )
    filter: FilterName = Field(
        FilterName.NONE,
        description="Filter over single updates, in plain mode only. If any, `trimmed-mean`; none withstands attackers that adapt to it. "
        "`krum` needs `min-holders` = 1.",
    )
    pre_step: PreStepName = Field(
        PreStepName.NONE,
        description="What happens to single updates before the filter. `neighbor-mixing`: each is averaged with its nearest neighbours. "
        "`bucketing`: random buckets are averaged, and count instead of holders.",
    )
    bucket_size: Annotated[int, Field(ge=1, le=10**6)] = Field(
        2, description="With `bucketing`: updates in a bucket."
    )
    bound: NotNegative = Field(
        0.0, description="With `norm-bound`: the largest L2 norm of an update. 0 takes `clip-norm` / 2."
    )
    radius: NotNegative = Field(
        0.0,
        description="With `centered-clipping`: updates that differ from the previous global step by more than this L2 norm are shortened to it. 0 takes `clip-norm`.",
    )
    root_examples: Count = Field(
        200, description="With `fl-trust`: public examples on which the server trains its reference update."
    )
    group_size: CountOrZero = Field(
        0,
        description="Masked mode: one sum for each random group of so many clients of one tier, and `group-rule` across the groups of a "
        "band, of which there must be more than 2f. Smaller sums show more; `account` says what that costs. 0: one sum over all.",
    )
    group_rule: AcrossRule = Field(
        AcrossRule.COORDINATE_MEDIAN, description="Rule that combines the averages of groups into one."
    )
    max_step_norm: NotNegative = Field(
        0.0,
        description="After the average: a global step with a larger L2 norm is scaled down to this. 0 is off.",
    )
    max_accuracy_drop: Share = Field(
        0.0,
        description="After the average: the largest loss of accuracy on public examples against the best of the last three rounds; "
        "beyond it the run goes on from the best of these. 0 is off.",
    )
    max_trigger_rise: Share = Field(
        0.0,
        description="After the average: how much more often a known backdoor trigger may work on public examples than before round 1; "
        "beyond it the adapter is rolled back as for `max-accuracy-drop`. 0 is off.",
    )

    @property
    def has_filter(self) -> bool:
        """Whether a filter looks at single updates."""
        return self.filter is not FilterName.NONE

    @property
    def judges_updates(self) -> bool:
        """Whether single updates are looked at before they are averaged, by a filter or a step before one."""
        return self.filter is not FilterName.NONE or self.pre_step is not PreStepName.NONE

    @property
    def has_pre_step(self) -> bool:
        """Whether anything happens to single updates before the filter."""
        return self.pre_step is not PreStepName.NONE
