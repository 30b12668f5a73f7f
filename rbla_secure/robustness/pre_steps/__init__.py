"""Steps before a filter: one file each, which bears the name that a configuration gives it."""
