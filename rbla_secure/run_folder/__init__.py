"""What a run leaves on disk: settings, checkpoints, records, ledgers and the signed audit log, held against each other."""
