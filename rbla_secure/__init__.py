"""Privacy-hardened federated fine-tuning of LoRA adapters of unequal rank.

From Python: ``rbla_secure.run()``, ``resume``, ``check``, ``account``, ``load_config`` (:mod:`rbla_secure.api`).
They are loaded on first use, so that asking for the version costs nothing. :mod:`rbla_secure.federation.round` shows
the data flow from top to bottom, one function per arrow.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rbla_secure.api import (
        Adapter,
        Config,
        ProtocolError,
        RblaSecureError,
        Summary,
        account,
        check,
        load_config,
        resume,
        run,
    )

__all__ = [
    "Adapter",
    "Config",
    "ProtocolError",
    "RblaSecureError",
    "Summary",
    "__version__",
    "account",
    "check",
    "load_config",
    "resume",
    "run",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rbla_secure import api  # noqa: PLC0415  # it brings pydantic, numpy and more

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
