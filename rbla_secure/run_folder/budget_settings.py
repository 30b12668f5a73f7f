"""The lifetime budget settings of a simulated run's clients, kept in the run folder so that the run can be resumed.

A client on a machine of its own keeps these settings itself. Here one process runs all clients, and a resumed run must
count in the same places: the audit log names the file, so that its removal is detected.
"""

import hashlib
from pathlib import Path
from typing import Final, Self

from pydantic import ValidationError

from rbla_secure.errors import ConfigError, RunFolderError
from rbla_secure.privacy.ledger_fields import Delta, Figure, Record
from rbla_secure.privacy.lifetime_ledger import Label

FILE: Final = "budgets.json"


class BudgetSettings(Record):
    """The settings of a client's lifetime budgets.

    Args:
        folder: Absolute path of the folder in which each client of a simulated run has a folder of its own.
        label: The name of the data.
        max_epsilon: Limit of epsilon at client level, 0 for none; null takes that of the label, or none if it is new.
        max_sample_epsilon: Limit of epsilon of single examples, with the same rules.
        delta: The delta of both, in (0, 1); null takes that of the label, or 1e-5.
    """

    folder: str
    label: Label
    max_epsilon: Figure | None = None
    max_sample_epsilon: Figure | None = None
    delta: Delta | None = None

    @classmethod
    def of(cls, folder: Path, label: str, **limits: float | None) -> Self:
        """Make settings from the options of a command line.

        Raises:
            ConfigError: A value is out of range.
        """
        try:
            return cls(folder=str(folder.resolve()), label=label, **limits)
        except ValidationError as error:
            fault = error.errors()[0]
            raise ConfigError(f"{fault['loc'][0]}={fault['input']!r}: {fault['msg']}") from None

    def text(self) -> str:
        """Return the only valid content of budgets.json."""
        return self.model_dump_json() + "\n"

    def digest(self) -> str:
        """Return the SHA-256 of budgets.json, hex, as the audit log names it."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    @classmethod
    def read(cls, folder: Path, digest: str) -> Self | None:
        """Read the settings of a run folder; None where its audit log names no such file.

        Args:
            folder: The run folder.
            digest: SHA-256 of the file, hex, as the log has it; empty if it names none.

        Raises:
            RunFolderError: The file is missing, or is not the one that the log names.
        """
        path = folder / FILE
        if not digest:
            if path.exists():
                raise RunFolderError(f"{path} is not in the run's events: remove it")
            return None
        try:
            data = path.read_bytes()
            wanted = cls.model_validate_json(data)
        except (OSError, ValidationError):
            data, wanted = b"", None
        if wanted is None or digest != hashlib.sha256(data).hexdigest():
            raise RunFolderError(
                f"{path} is missing or not the one that the run's events name: its clients would count nothing; restore it "
                "from a copy"
            )
        return wanted
