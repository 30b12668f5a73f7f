"""Decryptor, verifier and worker as services, each in a process of its own."""
