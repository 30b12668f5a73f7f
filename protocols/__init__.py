"""Secure sums of integer vectors. Knows nothing of LoRA, torch or privacy budgets.

The contract is :mod:`protocols.interface`; :mod:`protocols.plain` and :mod:`protocols.masking` keep it.
"""
