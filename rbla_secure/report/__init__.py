"""Output of a run for its user: lines and tables on the console, one JSON object for machines."""
