"""Preparing a CSV beside reading it: run by make bench; benchmarks/prepare.py does it for a whole study."""

from pathlib import Path

import polars as pl
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.config import as_mapping
from bfrbctl.recordings.preparation import PrepareConfig, prepare
from bfrbctl.recordings.raw import find_splits
from bfrbctl.schema import HELIOS_LAYOUT
from tests.raw_recordings import raw_frames, write_raw

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = raw_frames(subjects=20, repeats=12, layout=HELIOS_LAYOUT)
    return write_raw(tmp_path_factory.mktemp("raw"), table)


@pytest.mark.benchmark(group="prepare")
def test_read_csv(benchmark: BenchmarkFixture, raw: Path) -> None:
    table = benchmark(pl.read_csv, raw / "train.csv", infer_schema_length=10_000)
    assert table.width == 341


@pytest.mark.benchmark(group="prepare")
def test_prepare(benchmark: BenchmarkFixture, raw: Path, tmp_path: Path) -> None:
    config = PrepareConfig()

    def run() -> int:
        with open_output(tmp_path / "data", Job("dataset", as_mapping(config)), force=True) as output:
            return int(prepare(find_splits(raw), output, config).content["n_sequences"]["train"])

    assert benchmark(run) == 960
