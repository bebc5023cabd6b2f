"""Measure memory and time of prepare, featurize and predict on a study and on many times as much: docs/scale.md.

    bfrbctl simulate raw/ --subjects 81 --split train
    python benchmarks/scale.py repeat raw/ once/ --times 1
    python benchmarks/scale.py repeat raw/ many/ --times 10
    python benchmarks/scale.py run prepare once/ work/one --workers 1
    python benchmarks/scale.py run prepare many/ work/ten --workers 1
    python benchmarks/scale.py run featurize work/one/data work/one --workers 2
    python benchmarks/scale.py run predict work/one/data model/ work/one --workers 2 ... and so on

`repeat` writes the recordings of a Parquet study many times over, as other sequences of other subjects. `run` runs one
command and prints a Markdown row: frames, seconds, processor seconds of the command and all its workers, those a
million frames, and peak resident memory in GB of its largest process and of all of them together, looked at every tenth
of a second. With `--seconds S` it stops the command after so long; run it again and it goes on, adding up.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from measuring import parser, row

from bfrbctl.artefacts.folders import open_folder

LOOK_S = 0.1
TOGETHER = 9
"""People a row group: the footer takes a kilobyte of memory for each column of each group, and columns are 341."""


@dataclass
class Cost:
    """What a command took, in all the times that it was begun."""

    seconds: float = 0.0
    processor_seconds: float = 0.0
    largest: float = 0.0
    together: float = 0.0
    done: bool = False


def repeat(raw: Path, out: Path, times: int) -> None:
    out.mkdir(parents=True)
    source = pq.ParquetFile(raw / "train.parquet")
    people = pl.read_csv(raw / "train_demographics.csv")
    with pq.ParquetWriter(out / "train.parquet", source.schema_arrow, compression="zstd") as writer:
        for copy in range(times):
            for begin in range(0, source.num_row_groups, TOGETHER):
                groups = list(range(begin, min(begin + TOGETHER, source.num_row_groups)))
                table = pl.from_arrow(source.read_row_groups(groups))
                assert isinstance(table, pl.DataFrame)
                renamed = table.with_columns(other("sequence_id", copy), other("row_id", copy), other("subject", copy))
                arrow: pa.Table = renamed.to_arrow(compat_level=pl.CompatLevel.oldest())
                writer.write_table(arrow.cast(source.schema_arrow))
    copies = [people.with_columns(other("subject", copy)) for copy in range(times)]
    pl.concat(copies).write_csv(out / "train_demographics.csv")


def other(column: str, copy: int) -> pl.Expr:
    """SEQ_000007 -> SEQ_03-000007: names of another copy, in the same order."""
    return pl.col(column).str.replace("_", f"_{copy:02d}-")


def chunk(command: list[str], seconds: float, cost: Cost) -> None:
    """Run a command until it is done or its time is over; adds to the cost."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    watched, stopped = psutil.Process(process.pid), False
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        sizes = [memory(watched), *map(memory, children(watched))]
        cost.largest, cost.together = max(cost.largest, *sizes), max(cost.together, sum(sizes))
        if not stopped and time.perf_counter() - began > seconds:
            process.send_signal(signal.SIGTERM)
            stopped = True
        time.sleep(LOOK_S)
    _, status, usage = os.wait4(process.pid, 0)
    cost.seconds += time.perf_counter() - began
    cost.processor_seconds += usage.ru_utime + usage.ru_stime
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 128 + signal.SIGTERM):
        raise SystemExit(f"{' '.join(command)} failed with {code}")
    cost.done = code == 0


def children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def memory(process: psutil.Process) -> float:
    """Resident memory in GB."""
    try:
        return float(process.memory_info().rss / 1e9)
    except psutil.NoSuchProcess:
        return 0.0


def run(stage: str, inputs: list[Path], out: Path, *, seconds: float, options: list[str]) -> None:
    folder = out / {"prepare": "data", "featurize": "features", "predict": "predictions"}[stage]
    note = out / f"{stage}.json"
    cost = Cost(**json.loads(note.read_text())) if note.exists() else Cost()
    if not cost.done:
        again = ["--resume"] if folder.exists() else []
        command = [sys.executable, "-m", "bfrbctl", stage, *map(str, [*inputs, folder]), "--quiet", *again, *options]
        chunk(command, seconds, cost)
        note.write_text(json.dumps(vars(cost)))
    if not cost.done:
        print(f"{stage} was stopped after {cost.seconds:.0f} s; run it again to go on")
        return
    content = open_folder(folder).content
    n_frames = content.get("n_frames") or open_folder(inputs[0]).content["n_frames"]
    figures = [f"{cost.seconds:.0f}", f"{cost.processor_seconds:.0f}", f"{cost.processor_seconds / n_frames * 1e6:.1f}"]
    peaks = [f"{cost.largest:.2f}", f"{cost.together:.2f}"]
    print(row(" ".join([stage, *options]), f"{n_frames:,}", *figures, *peaks), flush=True)


def main() -> None:
    arguments = parser(__doc__)
    verbs = arguments.add_subparsers(dest="verb", required=True)
    repeating = verbs.add_parser("repeat")
    repeating.add_argument("raw", type=Path)
    repeating.add_argument("out", type=Path)
    repeating.add_argument("--times", type=int, default=10)
    running = verbs.add_parser("run")
    running.add_argument("stage", choices=["prepare", "featurize", "predict"])
    running.add_argument("folders", type=Path, nargs="+", help="inputs of the command, then where its output goes")
    running.add_argument("--seconds", type=float, default=1e9)
    chosen, options = arguments.parse_known_args()
    if chosen.verb == "repeat":
        repeat(chosen.raw, chosen.out, chosen.times)
        return
    chosen.folders[-1].mkdir(parents=True, exist_ok=True)
    run(chosen.stage, chosen.folders[:-1], chosen.folders[-1], seconds=chosen.seconds, options=options)


if __name__ == "__main__":
    main()
