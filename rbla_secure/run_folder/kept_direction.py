"""The direction that updates are compared with, kept beside the last checkpoint for services that are restarted.

Where a verifier screens, that direction is the mean of the sums that were opened last. Verifier and decryptor know it in
their processes alone, and it does not follow from the adapters. So their operators ask for it after every round, and
pass it to the services that a resumed run starts (`HomomorphicServices.recall`). The file holds a
:class:`protocols.homomorphic.screening.at_verifier.Reference` in its canonical bytes, which the server knows anyway;
the audit log holds their digest.

Caveat: whoever can rewrite the whole folder, log included, can choose a direction and so have an update read along
it. Operators of services that do not trust the server keep the file themselves.
"""

import hashlib
from pathlib import Path

from rbla_secure.errors import RunFolderError
from rbla_secure.run_folder.audit_log import FILE_NAME
from rbla_secure.run_folder.history import History
from rbla_secure.run_folder.verify import RESTORE, checkpoint


def direction_file(folder: Path, number: int) -> Path:
    """Return the path of a round's direction file: checkpoints/round-0007.direction."""
    return checkpoint(folder, number).with_suffix(".direction")


def read_direction(folder: Path, history: History) -> bytes:
    """Read the direction kept from the last round that counts; empty if none was.

    Raises:
        RunFolderError: It is missing, a link, or not what the log names.
    """
    if not history.direction:
        return b""
    path = direction_file(folder, history.rounds)
    if path.is_symlink() or not path.is_file():
        raise RunFolderError(
            f"{path} is missing or no file of its own, but {FILE_NAME} names it: the next updates would be screened by another "
            f"direction; {RESTORE}"
        )
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != history.direction:
        raise RunFolderError(f"{path} is not the one whose digest {FILE_NAME} holds: {RESTORE}")
    return data


def drop_directions(folder: Path, *rounds: int) -> None:
    """Remove the directions of these rounds, which are not the last: only what is needed is kept."""
    for path in (direction_file(folder, number) for number in rounds if number > 0):
        if path.is_file() or path.is_symlink():
            path.unlink()
