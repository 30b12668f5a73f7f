"""The frozen base of a run: read if the audit log names it, else trained; written once the run may continue."""

from torch import nn

from rbla_secure.atomic_files import replace_folder
from rbla_secure.errors import RunFolderError
from rbla_secure.run_folder.folder import RunFolder
from rbla_secure.run_folder.verify import BASE
from rbla_secure.seeding import derive_seed
from rbla_secure.tasks.base_model import base_files, chain_digest, load_base, save_base, train_base
from rbla_secure.tasks.datasets import LabelledImages


def believed_base(folder: RunFolder, public: LabelledImages) -> nn.Sequential:
    """Read the base of a run if it exists and the audit log names it, else train it. Nothing is written.

    A base that the log does not name yet, as a crash leaves it, is not trusted. A lost base is replaced if training
    gives the same one again.

    Raises:
        RunFolderError: It is not the base that the log names, or its files differ from the bytes that a run writes.
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
    """Read the base from its files; write them first if they are missing or not trusted."""
    path = folder.path / BASE
    if not folder.history.base or not path.exists():
        replace_folder(path, lambda empty: save_base(empty, base))
    folder.hold_base(chain_digest(base))
    return load_base(path)
