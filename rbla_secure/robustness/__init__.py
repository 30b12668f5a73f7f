"""Defences of the average against a few bad contributions: rules, filters, groups, and checks after the sum."""
