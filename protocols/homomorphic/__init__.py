"""Sums of encrypted vectors: BFV under a public key whose secret half the aggregator never holds."""
