"""What a configuration promises: cohorts, quorums, noise, budgets and the plan of a run, worked out before anything is trained."""
