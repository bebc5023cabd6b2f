"""Speed and memory of the simulator: a person, the 16-subject demo set, the study's full size.

Targets on two cores: 16 subjects in under 45 s; 81 subjects (575 k frames, 184 M rays) in 6 minutes, under 2.5 GB.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bfrbctl.execution.executor import Executor
from bfrbctl.simulation import SimulationConfig, simulate_subject, write_raw

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

RAYS = 5 * 64

FULL_SIZE = """
import sys
from pathlib import Path
import psutil
from bfrbctl.simulation import SimulationConfig, write_raw
from bfrbctl.execution.executor import Executor
peak = 0
def look(done, total):
    global peak
    me = psutil.Process()
    peak = max(peak, sum(p.memory_info().rss for p in [me, *me.children(recursive=True)]))
write_raw(Path(sys.argv[1]), SimulationConfig(subjects=81), split="train", executor=Executor(2), on_progress=look)
print(peak)
"""


def test_one_person(benchmark: Any) -> None:
    config = SimulationConfig()
    subject = benchmark.pedantic(lambda: simulate_subject(config, 0, split="train"), rounds=3, warmup_rounds=1)
    seconds = benchmark.stats.stats.min
    benchmark.extra_info["frames_per_s"] = round(len(subject.frames) / seconds)
    benchmark.extra_info["rays_per_s"] = round(len(subject.frames) * RAYS / seconds)


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_the_demo_set_of_16_subjects(benchmark: Any, tmp_path: Path, file_format: Any) -> None:
    def run() -> list[str]:
        return write_raw(tmp_path, SimulationConfig(), split="train", file_format=file_format, executor=Executor(2))

    names = benchmark.pedantic(run, rounds=1)
    benchmark.extra_info["bytes"] = sum((tmp_path / name).stat().st_size for name in names)


def test_the_full_size(benchmark: Any, tmp_path: Path) -> None:
    def run() -> int:
        done = subprocess.run(
            [sys.executable, "-c", FULL_SIZE, str(tmp_path)], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    benchmark.extra_info["peak_rss_gb"] = round(benchmark.pedantic(run, rounds=1) / 1e9, 2)
