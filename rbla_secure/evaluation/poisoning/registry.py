"""The attacks by name, with the properties that mounting and measuring them depends on."""

from enum import StrEnum


class AttackName(StrEnum):
    """An attack on the model."""

    NONE = "none"
    SIGN_FLIP = "sign-flip"
    GAUSSIAN = "gaussian"
    LABEL_FLIP = "label-flip"
    IPM = "ipm"
    ALIE = "alie"
    MIMIC = "mimic"
    MIN_MAX = "min-max"
    SCALING = "scaling"
    FREE_RIDER = "free-rider"
    BACKDOOR = "backdoor"
    DBA = "dba"
    RANK_INFLATION = "rank-inflation"
    SOLE_OWNER = "sole-owner"
    WEIGHT_INFLATION = "weight-inflation"
    ROW_STUFFING = "row-stuffing"
    ADAPTIVE = "adaptive"


class TriggerName(StrEnum):
    """The pixels that the trigger of a backdoor turns white (`triggers.py`)."""

    CORNER = "corner"
    SCATTERED = "scattered"


# Their aim is a trigger that works, not a model that does not.
BACKDOORS = frozenset(
    {
        AttackName.SCALING,
        AttackName.BACKDOOR,
        AttackName.DBA,
        AttackName.RANK_INFLATION,
        AttackName.SOLE_OWNER,
        AttackName.WEIGHT_INFLATION,
        AttackName.ROW_STUFFING,
        AttackName.ADAPTIVE,
    }
)

# Mounted by the examples alone, with honest training on them. Weight inflation also lies about their number, which
# `placement.claimed_examples` does.
BY_DATA = frozenset({AttackName.LABEL_FLIP, AttackName.BACKDOOR, AttackName.DBA, AttackName.WEIGHT_INFLATION})

# The literature lets these see every honest update of the round; colluders see their own.
OMNISCIENT = frozenset({AttackName.IPM, AttackName.ALIE, AttackName.MIMIC, AttackName.MIN_MAX})
