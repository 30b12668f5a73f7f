"""Everything `rbla_secure` raises on purpose.

    RblaSecureError
    ├── ConfigError       a key, type or value of the configuration is wrong
    ├── PlanError         the configuration is well formed, but the run it describes could not keep its promises
    ├── DataError         a data set is missing or is not what its loader expects
    ├── AdapterError      adapter rows or adapter files do not fit their layout
    ├── UpdateError       a client's own update cannot be used (not finite, wrong shape, weight out of range)
    ├── RefusalError      a participant refuses a request of the server
    ├── PrivacyError      a mechanism, a bound or a ledger of differential privacy contradicts itself
    ├── RobustnessError   a robust rule, filter or grouping cannot keep its promise, or its input is not finite
    ├── EvaluationError   an attack of an evaluation did not happen: nothing of it is scored
    ├── BudgetError       the next release would exceed max-epsilon
    ├── RunFolderError    a run folder is missing, damaged, in use or already taken
    ├── KeyFolderError    a folder of keys is missing, damaged, in use or already taken
    │   └── TrustAnchorError  a file that says whom to believe could be changed by others
    └── AbortedRunError   too many rounds in a row ended without a result

TimeLimitError stands apart: a client exceeded the time limit of an answer, and counts as silent.

A message names the argument, its value and the rule, and never contains secret bytes. The errors of the secure sums
have a class tree of their own: :mod:`protocols.errors`.
"""

from protocols.errors import capped


class RblaSecureError(Exception):
    """Base of every error that `rbla_secure` raises on purpose."""

    def __init__(self, message: str = "") -> None:
        super().__init__(capped(message))


class ConfigError(RblaSecureError):
    """A key, type or value of the configuration is wrong."""


class PlanError(RblaSecureError):
    """The configuration is well formed, but the run it describes could not keep its promises."""


class DataError(RblaSecureError):
    """A data set is missing or is not what its loader expects."""


class AdapterError(RblaSecureError):
    """Adapter rows or adapter files do not fit their layout."""


class UpdateError(RblaSecureError):
    """A client's own update cannot be used: not finite, of the wrong shape, or weighted outside [0, 1]."""


class RefusalError(RblaSecureError):
    """A participant refuses a request of the server."""


class PrivacyError(RblaSecureError):
    """A mechanism, a bound or a ledger of differential privacy contradicts itself."""


class RobustnessError(RblaSecureError):
    """A robust rule, filter or grouping cannot keep its promise with these numbers, or its input is not finite."""


class EvaluationError(RblaSecureError):
    """An attack of an evaluation did not happen (an attacker was refused, raised or fell silent): nothing of it is scored."""


class BudgetError(RblaSecureError):
    """The next release would exceed `max-epsilon`: nothing of it is revealed."""


class RunFolderError(RblaSecureError):
    """A run folder is missing, damaged, in use by another process or already taken."""


class KeyFolderError(RblaSecureError):
    """A folder of keys is missing, damaged, in use by another process or already taken."""


class TrustAnchorError(KeyFolderError):
    """A file that says whom to believe could be changed by others."""


class TimeLimitError(BaseException):
    """A client took longer for its answer than it may.

    Not an error of the client: code that handles client errors must not catch it, go on without a limit, and reveal by
    its answer where it was interrupted.
    """


class AbortedRunError(RblaSecureError):
    """Too many rounds in a row ended without a result."""
