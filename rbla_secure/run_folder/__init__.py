"""The files of a run: settings, checkpoints, records, ledgers and the signed audit log, compared with each other."""
