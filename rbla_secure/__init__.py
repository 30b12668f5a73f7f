"""Privacy-hardened federated fine-tuning of LoRA adapters of unequal rank.

From Python: ``rbla_secure.run()``, ``resume``, ``check``, ``account``, ``load_config`` (:mod:`rbla_secure.api`). They are loaded when they
are first asked for, so that the version costs nothing. The data's way, one function per arrow, is told top to bottom by
:mod:`rbla_secure.federation.round`.
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
