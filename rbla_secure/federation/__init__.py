"""The composition: plan, cohort, round, coordinator and participants, checkpoints."""
