"""Who is who: certificates, revocations, rosters, key files, and one party's view of whom to believe."""
