"""The frozen base of a run: read where the audit log names it, else trained; and written once the run may go on."""

from torch import nn

from rbla_secure.atomic_files import replace_folder
from rbla_secure.errors import RunFolderError
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.run_folder.verify import BASE
from rbla_secure.seeding import derive_seed
from rbla_secure.tasks.base_model import base_files, chain_digest, load_base, save_base, train_base
from rbla_secure.tasks.datasets import LabelledImages


def believed_base(folder: RunFolder, public: LabelledImages) -> nn.Sequential:
    """Read the base of a run where it is there and the audit log names it, else train it. Nothing is written.

    One that the log does not name yet, as a crash leaves it, is not believed. One that was lost comes back if it comes out
    the same.

    Raises:
        RunFolderError: It is not the one that the log names, or its files say so in other bytes than a run writes.
    """
    path = folder.path / BASE
    if not folder.history.base or not path.exists():
        trained = train_base(public, seed=derive_seed(folder.config.seed, "base"))
        folder.check_base(chain_digest(trained))
        return trained
    base = load_base(path)
    folder.check_base(chain_digest(base))
    for name, data in base_files(base).items():
        if (path / name).read_bytes() != data:
            raise RunFolderError(
                f"{path / name} is not spelt as a run writes it, so something in it may be read otherwise: restore it from a "
                "copy, or move base/ away to have it trained again"
            )
    return base


def base_on_disk(folder: RunFolder, base: nn.Sequential) -> nn.Sequential:
    """Read the base from its files, which are written first where they are not believed or not there."""
    path = folder.path / BASE
    if not folder.history.base or not path.exists():
        replace_folder(path, lambda empty: save_base(empty, base))
    folder.hold_base(chain_digest(base))
    return load_base(path)
