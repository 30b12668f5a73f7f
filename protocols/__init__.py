"""Secure sums of integer vectors, without any reference to LoRA, torch or privacy budgets.

The contract is :mod:`protocols.interface`; :mod:`protocols.plain` and :mod:`protocols.masking` keep it.
"""
