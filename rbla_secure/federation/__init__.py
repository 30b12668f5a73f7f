"""The federation: round, coordinator, participants and checkpoints."""
