"""Encryption itself: BFV and CKKS by TenSEAL, their parameters, and ciphertexts as polynomials."""
