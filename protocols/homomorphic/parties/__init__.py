"""The parties of the homomorphic mode: client, server, decryptor, verifier, and the sums they add."""
