"""The cryptographic primitives, one per file: the only files that import `cryptography`."""
