"""Screening: two numbers of every encrypted update are opened, so that a rule can reject one before it is added."""
