"""Placeholder."""

import math

from rbla_secure.federation.plan import Plan


def step_limit(plan: Plan) -> float:
    """Placeholder."""
    return math.sqrt(len(plan.bands)) * plan.config.clip_norm * plan.config.server_learning_rate * 1.001
