"""The promises of a configuration: cohorts, quorums, noise, budgets and the plan, all computed before training."""
