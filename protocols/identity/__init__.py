"""Identities: certificates, revocations, rosters, key files, and one party's view of whom to believe."""
