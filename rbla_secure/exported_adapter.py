"""The result of a run in PEFT's format: the contents of adapter/, their comparison and their export."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from rbla_secure.atomic_files import replace_folder, write_atomic
from rbla_secure.config import Config
from rbla_secure.errors import RunFolderError
from rbla_secure.lora.adapter import Adapter
from rbla_secure.lora.peft_io import WEIGHTS_FILE, adapter_files
from rbla_secure.planning.band_weights import band_weights, weights_used
from rbla_secure.planning.opening import opening_rule
from rbla_secure.planning.promises import Promises
from rbla_secure.report.privacy import PrivacySummary, SamplePrivacySummary
from rbla_secure.run_folder.audit_log import FILE_NAME
from rbla_secure.run_folder.folder import Progress, RunFolder
from rbla_secure.run_folder.verify import ADAPTER
from rbla_secure.tasks.base_model import model_card


def exported_files(
    folder: RunFolder, progress: Progress, spent: tuple[PrivacySummary | None, SamplePrivacySummary | None]
) -> dict[str, bytes]:
    """Return, by name, the files that adapter/ must hold once all rounds are over.

    They follow from checkpoint, metrics, ledgers and plan.

    Args:
        folder: The run folder.
        progress: State after the last round, with the records of all rounds.
        spent: Privacy spent at client level and at example level; None where that level has no noise.
    """
    adapter = progress.adapter
    if adapter is None:  # a run has at least one round, and every round leaves an adapter
        raise AssertionError("a finished run has an adapter")
    claims = [text for summary in spent if summary for text in summary.lines()]
    return adapter_files(adapter, card=model_card(_facts(adapter, progress, folder.config, claims)))


def check_exported(folder: RunFolder, files: Mapping[str, bytes]) -> None:
    """Compare the files in adapter/ with those that the run exports (weights, configuration, card), byte by byte.

    A missing file is no difference: it is written again. Files of other names are not compared.

    Raises:
        RunFolderError: A file differs, or the log names another result than the last checkpoint gives.
    """
    if folder.history.adapter_file != hashlib.sha256(files[WEIGHTS_FILE]).hexdigest():
        raise RunFolderError(
            f"{folder.path / FILE_NAME} names an adapter_file that the checkpoint of the last round does not give: restore it "
            "from a copy, or go on with the version of rbla-secure that exported it"
        )
    for name, data in files.items():
        path = folder.path / ADAPTER / name
        if path.exists() and path.read_bytes() != data:
            raise RunFolderError(
                f"{path} is not the one that the run exports: restore it from a copy, or move it away to have it written again"
            )


def export(folder: RunFolder, files: Mapping[str, bytes]) -> str:
    """Write adapter/, as far as it is not already there, and return the SHA-256 of its tensors' file.

    An adapter/ that the log does not name is not trusted and is replaced as a whole.
    """
    path = folder.path / ADAPTER
    if not folder.history.exported or not path.exists():
        replace_folder(path, lambda empty: _write(empty, files))
    else:
        _write(path, {name: data for name, data in files.items() if not (path / name).exists()})
    return hashlib.sha256(files[WEIGHTS_FILE]).hexdigest()


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        write_atomic(folder / name, data)


def _facts(adapter: Adapter, progress: Progress, config: Config, claims: Sequence[str]) -> dict[str, object]:
    """Return the facts about the adapter that the model card states."""
    clients = sum(tier.clients for tier in config.tiers.values())
    ranks = sorted({tier.rank for tier in config.tiers.values()})
    promises = Promises.build(config)
    weights = weights_used(promises, band_weights(promises, adapter.layout))
    return {
        "rank": f"{adapter.rank}; any smaller prefix of the rows is a valid adapter too",
        "alpha / r": f"{config.lora.scaling:g}, at every rank",
        "rounds": progress.round,
        "clients": f"{clients}, of ranks {', '.join(map(str, ranks))}",
        "data": f"{config.task.data}, {config.task.partition} partition",
        "average": f"{config.average}, gamma {config.gamma:g}; {opening_rule(promises)}",
        "secure sum": str(config.secure_sum),
        "clip norm": f"{config.clip_norm:g}" + (f", rank bands weighted: {weights}" if weights else ""),
        "differential privacy": " ".join(claims) or "none: no noise was added",
        "accuracy on held-out examples": f"{progress.records[-1].accuracy:.3f}",
    }
