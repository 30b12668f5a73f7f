"""What keeps a few bad contributions from steering the average: rules, filters, groups, and checks after the sum."""
