"""Time `bfrbctl prepare` on a CSV against `polars.read_csv` of the same file, in turn, with peak memory.

    bfrbctl simulate raw/ --subjects 81 --split train --format csv
    python benchmarks/prepare.py raw/ 3

Prints seconds and peak resident memory of each process, and the ratio of the medians.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import parser


def measure(command: list[str]) -> tuple[float, float]:
    """Run a command; give its wall seconds and its peak resident memory in GB."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - begin, usage.ru_maxrss / 1e6


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("raw", type=Path, help="folder with train.csv and train_demographics.csv")
    arguments.add_argument("runs", type=int, nargs="?", default=3, help="runs of each")
    chosen = arguments.parse_args()
    compare(chosen.raw, chosen.runs)


def compare(raw: Path, runs: int) -> None:
    """Measure both in turn."""
    csv = raw / "train.csv"
    print(f"{csv}: {csv.stat().st_size / 1e9:.2f} GB")
    read = [sys.executable, "-c", f"import polars; polars.read_csv({str(csv)!r}, infer_schema_length=10000)"]
    seconds: dict[str, list[float]] = {"polars.read_csv": [], "bfrbctl prepare": []}
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            out = f"{folder}/data"
            prepare = [sys.executable, "-m", "bfrbctl", "prepare", str(raw), out, "--workers", "1", "--quiet"]
            for name, command in (("polars.read_csv", read), ("bfrbctl prepare", prepare)):
                taken, memory = measure(command)
                seconds[name].append(taken)
                print(f"{name:16} {taken:7.2f} s  peak {memory:5.2f} GB")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"ratio of medians: {medians['bfrbctl prepare'] / medians['polars.read_csv']:.2f}")


if __name__ == "__main__":
    main()
