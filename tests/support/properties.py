"""Settings that all properties share."""

from hypothesis import HealthCheck, settings

# No deadline, as no test is timed, and no database on disk.
PROPERTY = settings(
    deadline=None, database=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
