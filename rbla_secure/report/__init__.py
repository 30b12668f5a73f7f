"""What a run tells its user: lines and tables on the console, one JSON object for machines."""
