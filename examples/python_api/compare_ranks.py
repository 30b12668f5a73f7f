"""Two short runs from Python: does a tier of rank 16 help, or would rank 4 for everybody do?

    python examples/python_api/compare_ranks.py [FOLDER]

Writes two run folders and prints their accuracies and costs. It takes some ten seconds.
"""

import sys
import tempfile
from pathlib import Path

import rbla_secure

ROUNDS = 4


def main(folder: Path) -> None:
    """Check, run, resume and account; the runs lie below the folder."""
    for name, rank in (("mixed", 16), ("equal", 4)):
        overrides = [f"rounds={ROUNDS}"] + [
            f"tiers.{tier}.rank={rank}" for tier in ("workstation", "datacenter")
        ]
        config = rbla_secure.load_config(None, overrides)
        promised = rbla_secure.check(config)
        summary = rbla_secure.run(config, out=folder / name, quiet=True)
        print(
            f"{name}: threshold {promised['threshold']}, accuracy {summary.accuracy.base:.3f} -> {summary.accuracy.final:.3f}, "
            f"{summary.bytes_up_per_client / 1000:.0f} kB up per client and round"
        )

    noisy = rbla_secure.load_config(None, [f"rounds={ROUNDS}", "noise-multiplier=4"])
    print(f"with noise-multiplier 4 it would spend epsilon {rbla_secure.account(noisy)['epsilon']:.2f}")

    try:
        rbla_secure.check(rbla_secure.load_config(None, ["masking.threshold=11"]))
    except rbla_secure.RblaSecureError as error:
        print(f"refused: {error}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
