"""Filters over single updates: one file each, which bears the name that a configuration gives it."""
