"""The composition: round, coordinator and participants, checkpoints."""
