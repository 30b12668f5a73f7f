"""What a round costs now and at an earlier commit, side by side in one run: protocol time and bytes, server and client.

    python benchmarks/version_cost.py --baseline 0f3fbff [--rounds 10] [--pairs 3] [--out benchmarks/results/version_cost.json]

The default job of each version, in masking and in homomorphic mode, in a process of its own with one torch thread, in turns: old,
new, old, new. Nothing else may run on the machine. Server is everything of the protocol that is not a client's, with the services of
the homomorphic mode; client is the sum over the ten clients of the job; training and evaluation are neither. Bytes are those
of the stage requests and replies of one client and round, in the mean, adapter included; those between the server and its
services are told apart.

Medians over pairs are reported; the ratio is that of the medians, and `lowest` and `highest` are those of single pairs.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODES = ("masking", "homomorphic")
FIGURES = {
    "server_ms": "server, ms per round",
    "clients_ms": "clients together, ms per round",
    "protocol_ms": "both, ms per round",
    "kB_up": "up, kB per client and round",
    "kB_down": "down, kB per client and round",
    "services_kB": "server and services, kB per round",
}
# Runs inside a version's own process, against that version's own code: only what all versions have.
DRIVER = """
import io, json, sys
from contextlib import redirect_stdout
from pathlib import Path
from rbla_secure.cli import main
from rbla_secure.federation.client.participant import Participant

mode, rounds, out = sys.argv[1:]
up = down = 0
handle = Participant.handle

def counted(self, request):
    global up, down
    reply = handle(self, request)
    up, down = up + len(reply), down + len(request)
    return reply

Participant.handle = counted
printed = io.StringIO()
with redirect_stdout(printed):
    code = main(["run", "--json", "--out", out, "--set", f"secure-sum={mode}", "--set", f"rounds={rounds}"])
assert code == 0, printed.getvalue()
services = json.loads(printed.getvalue().splitlines()[-1])["services"]
seconds = [json.loads(line) for line in (Path(out) / "timings.jsonl").read_text().splitlines()]
cohorts = [len(json.loads(line)["cohort"]) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
clients = sum(line["clients"] for line in seconds) / len(seconds)
protocol = sum(line["protocol"] for line in seconds) / len(seconds)
print(json.dumps({
    "server_ms": 1000 * (protocol - clients),
    "clients_ms": 1000 * clients,
    "protocol_ms": 1000 * protocol,
    "kB_up": up / sum(cohorts) / 1000,
    "kB_down": down / sum(cohorts) / 1000,
    "services_kB": sum(each["bytes_to"] + each["bytes_from"] for each in services) / len(seconds) / 1000,
}))
"""

Figures = Mapping[str, float]


def measure(code: Path, mode: str, rounds: int) -> Figures:
    """One run of one version."""
    environment = os.environ | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(  # noqa: S603 - this interpreter, on this project's own code
            [sys.executable, "-c", DRIVER, mode, str(rounds), f"{folder}/run"],
            env=environment,
            cwd=code,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"{code}, {mode}: {done.stderr}")
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def checked_out(commit: str, folder: Path) -> Path:
    """The files of a commit of this repository."""
    command = ["git", "archive", commit]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout  # noqa: S603 - nothing of others
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def side_by_side(before: Sequence[Figures], now: Sequence[Figures]) -> dict[str, dict[str, float]]:
    """Of every figure: both medians, their ratio, and the ratios of single pairs."""
    table = {}
    for name in FIGURES:
        old, new = [run[name] for run in before], [run[name] for run in now]
        ratios = [b / a for a, b in zip(old, new, strict=True) if a] or [float("nan")]
        first, second = statistics.median(old), statistics.median(new)
        table[name] = {
            "before": first,
            "now": second,
            "ratio": second / first if first else float("nan"),
            "lowest": min(ratios),
            "highest": max(ratios),
        }
    return table


def main() -> None:
    """Measure both versions in turns, print a table and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baseline", required=True, help="commit to compare with")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    result: dict[str, object] = {"baseline": arguments.baseline, "rounds": arguments.rounds}
    with tempfile.TemporaryDirectory() as folder:
        old = checked_out(arguments.baseline, Path(folder))
        for mode in MODES:
            runs: dict[Path, list[Figures]] = {old: [], ROOT: []}
            for _ in range(arguments.pairs):
                for code, found in runs.items():
                    found.append(measure(code, mode, arguments.rounds))
            table = side_by_side(runs[old], runs[ROOT])
            result[mode] = table
            print(f"{mode:<38}{'before':>10}{'now':>10}{'ratio':>8}   pairs")
            for name, row in table.items():
                if row["before"] or row["now"]:
                    print(
                        f"  {FIGURES[name]:<36}{row['before']:>10.1f}{row['now']:>10.1f}{row['ratio']:>8.2f}"
                        f"   {row['lowest']:.2f} to {row['highest']:.2f}"
                    )
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
