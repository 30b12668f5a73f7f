"""Privacy-hardened federated fine-tuning of LoRA adapters of unequal rank.

The data's way, one function per arrow, is told top to bottom by :mod:`rbla_secure.federation.round`.
"""

__version__ = "0.1.0"
