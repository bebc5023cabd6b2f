"""Damaged files: refused in words, or read rightly; never a crash, a hang, a flood of memory, or another result."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from tests.faults.chain import COMMANDS, ensure, run_here
from tests.faults.steps import Steps
from tests.faults.targets import TARGETS
from tests.faults.test_kills import Record
from tests.faults.watching import watch

QUICK = {"raw CSV": 70, "tables of a dataset": 60, "weights of a blend": 70}
"""Cases of the fast lane; the slow one goes on behind them."""

CASES = 3100
TOTAL = sum(target.share for target in TARGETS.values())
NETWORKS = [name for name, target in TARGETS.items() if target.folder == "keras"]


def n_cases(name: str) -> int:
    """How many cases a target gets in the slow lane."""
    return -(-CASES * TARGETS[name].share // TOTAL)


@pytest.fixture(scope="session")
def folders(chain: Path) -> Path:
    """Add to the chain what only damage needs: raw Parquet, and a run that was stopped."""
    ensure(chain, "blend")
    (chain / "rawp").mkdir()
    pl.read_csv(chain / "raw" / "train.csv").write_parquet(chain / "rawp" / "train.parquet")
    shutil.copy(chain / "raw" / "train_demographics.csv", chain / "rawp")
    out = chain / "unfinished"
    code, _ = run_here(COMMANDS["prepare"].line(chain, out), Steps(out, "sigterm", 8))
    assert code == 143
    return chain


def check(folders: Path, name: str, n: int, record_property: Record) -> None:
    outcomes = watch(folders, name, n)
    assert outcomes.findings == []
    assert sum(outcomes.counts.values()) == n
    assert outcomes.counts["refused"] > 0
    record_property("damaged files", n)
    record_property("of them refused", outcomes.counts["refused"])


@pytest.mark.parametrize("name", QUICK)
def test_a_damaged_file_is_refused_or_read_rightly(folders: Path, record_property: Record, name: str) -> None:
    check(folders, name, QUICK[name], record_property)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TARGETS if name not in NETWORKS])
def test_any_damaged_file_is_refused_or_read_rightly(folders: Path, record_property: Record, name: str) -> None:
    check(folders, name, n_cases(name), record_property)


@pytest.fixture(scope="session")
def networks(folders: Path) -> Path:
    ensure(folders, "keras")
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_any_damaged_network_is_refused_or_read_rightly(networks: Path, record_property: Record, name: str) -> None:
    check(networks, name, n_cases(name), record_property)
