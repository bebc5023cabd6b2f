"""Watch over processes that read damaged files: one that dies, hangs or grows is a finding, and the next goes on."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.chain import ROOT

SECONDS_OF_WORK = 20
SECONDS_OF_SILENCE = 240
"""A process may wait for other work of the machine; one that hangs is silent for longer."""


@dataclass
class Outcomes:
    """What became of the cases."""

    counts: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def take(self, name: str, result: dict[str, Any]) -> None:
        """Note one case."""
        outcome = str(result["outcome"])
        self.counts[outcome.partition(":")[0]] += 1
        if outcome.startswith("wrong"):
            self.findings.append(f"{name} {result['end']}: {outcome}")
        if result["seconds"] > SECONDS_OF_WORK:
            self.findings.append(f"{name} {result['end']}: took {result['seconds']:.0f} s")


def watch(base: Path, name: str, n_cases: int) -> Outcomes:
    """Run the cases of a target in processes that may die."""
    outcomes, first = Outcomes(), 0
    while first < n_cases:
        first = _one_process(base, name, first, n_cases, outcomes)
    return outcomes


def _one_process(base: Path, name: str, first: int, last: int, outcomes: Outcomes) -> int:
    """Run cases until they are done or the process dies; the number of the next one."""
    line = [sys.executable, "-m", "tests.faults.damage_worker", str(base), name, str(first), str(last)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "POLARS_MAX_THREADS": "2", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    lines: queue.Queue[str | None] = queue.Queue()
    said: list[str] = []
    readers = [
        threading.Thread(target=_read, args=(process.stdout, lines.put), daemon=True),
        threading.Thread(target=_read, args=(process.stderr, lambda text: said.append(text or "")), daemon=True),
    ]
    for reader in readers:
        reader.start()
    current: int | None = None
    try:
        while (text := lines.get(timeout=SECONDS_OF_SILENCE)) is not None:
            line = json.loads(text)
            current = line.get("begin")
            if "end" in line:
                outcomes.take(name, line)
                first = line["end"] + 1
    except queue.Empty:
        process.kill()
        outcomes.findings.append(f"{name} {current}: hung")
    code = process.wait()
    for reader in readers:
        reader.join()
    process.stdout.close()
    process.stderr.close()
    if current is None and code == 0:
        return last
    if current is None:
        raise AssertionError(f"the harness failed at {name}: {''.join(said)[-2000:]}")
    outcomes.findings.append(f"{name} {current}: the process died ({code}): {''.join(said)[-300:]}")
    return current + 1


def _read(stream: Any, take: Any) -> None:
    for line in stream:
        take(line)
    take(None)
