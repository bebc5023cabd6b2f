"""Measure what `--cache-mb` keeps out of memory: the table of docs/performance.md.

    python benchmarks/cache.py features/ 0 512 100000

For each bound, in a process of its own: reads the frame channels and images of a feature folder, takes the training
and the held-out part of fold 0, and scales both for a network, as `bfrbctl train keras` does before its first epoch.
Prints the processor seconds, the most memory that belonged to the process alone (it can only be swapped), the most
that was resident (mapped files included, which the system may drop), and a digest of what the network would see.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from measuring import header, parser, row

from bfrbctl.artefacts.folders import open_folder
from bfrbctl.execution.cache import Cache
from bfrbctl.features.folder import read_features
from bfrbctl.models.keras.inputs import fit_scaler, plan_inputs, ready
from bfrbctl.models.keras.learning.turning import find_turned

PART = "--one-bound"


class Watch(threading.Thread):
    """Remembers the largest figures that the kernel told of this process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = {"RssAnon": 0, "VmRSS": 0}

    def run(self) -> None:
        """Look every few milliseconds."""
        while True:
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, told = line.partition(":")
                if name in self.most:
                    self.most[name] = max(self.most[name], int(told.split()[0]) * 1024)
            time.sleep(0.005)


def one_bound(features: Path, megabytes: int) -> None:
    """Do the work with one bound and print its row."""
    watch = Watch()
    watch.start()
    began = dict(watch.most)
    while not all(began.values()):
        began = dict(watch.most)
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(dir=features.parent) as folder:
        cache = Cache(megabytes * 2**20, Path(folder))
        index, batch = read_features(open_folder(features, "features"), parts={"frames", "tof"}, cache=cache)
        held = (index["fold"] == 0).to_numpy()
        train, valid = batch.take(np.flatnonzero(~held)), batch.take(np.flatnonzero(held))
        plan = plan_inputs(train, length=0, pad="left")
        scaler = fit_scaler(train, plan, find_turned(plan.imu))
        seen = [ready(part, plan, scaler) for part in (train, valid, valid.imu_only())]
        used = time.process_time()
        figures = [(watch.most[name] - began[name]) / 2**20 for name in ("RssAnon", "VmRSS")]
        for part in seen:
            digest.update(np.ascontiguousarray(part.frames).data.cast("B"))
    print(row(megabytes, f"{used:.1f}", *(f"{each:.0f}" for each in figures), digest.hexdigest()[:12]), flush=True)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("features", type=Path, help="feature folder with frame channels")
    arguments.add_argument("bounds", type=int, nargs="+", help="MB")
    arguments.add_argument(PART, action="store_true", help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.one_bound:
        one_bound(chosen.features, chosen.bounds[0])
        return
    print(header("--cache-mb", "cpu s", "own memory, MB", "resident, MB", "digest"), flush=True)
    for bound in chosen.bounds:
        subprocess.run([sys.executable, __file__, str(chosen.features), str(bound), PART], check=True)


if __name__ == "__main__":
    main()
