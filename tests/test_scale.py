"""Several workers here: the same bytes, kept state, no process left behind; and memory that does not grow."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest

from bfrbctl.artefacts.folders import Folder, open_folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.cli.app import app
from bfrbctl.evaluation.oof import read_oof
from bfrbctl.execution.executor import Executor
from bfrbctl.features import FeatureConfig
from bfrbctl.features.featurization import featurize
from bfrbctl.features.folder import read_features
from bfrbctl.models.interface import model_kind
from bfrbctl.models.lightgbm.config import Config
from bfrbctl.training.cross_validation import CrossValidation, cross_validate, folds_at_once
from tests.raw_recordings import raw_frames, write_raw

CONFIG = Config(n_rounds=8, min_data_in_leaf=2, log_every=2)


def call(*words: object) -> None:
    """Run the program in this process."""
    app([*map(str, words), "--quiet"], standalone_mode=False)


def train(features: Folder, path: Path, executor: Executor) -> tuple[Folder, list[tuple[int, int]]]:
    """Train and give the model, and the fold and step of every row of progress."""
    run = CrossValidation(features, model_kind("lgbm"), CONFIG)
    rows = []
    with open_output(path, Job("model", run.settings, (features.ref(),))) as output:
        for _ in cross_validate(run, output, executor=executor, on_progress=rows.append):
            pass
    return open_folder(path), [(int(row["fold"]), int(row["step"])) for row in rows]


def content_of(folder: Folder) -> dict[str, object]:
    """The files of a folder but for histories, which have seconds in them."""
    return {name: entry for name, entry in folder.files.items() if not name.startswith("history.")}


def test_folds_trained_at_once_give_the_same_model(feature_folder: Folder, tmp_path: Path) -> None:
    alone, rows = train(feature_folder, tmp_path / "alone", Executor(1))
    together, live = train(feature_folder, tmp_path / "together", Executor(2))
    assert content_of(together) == content_of(alone)
    assert alone.manifest["config"] == together.manifest["config"]
    assert sorted(live) == rows


def test_a_large_table_lies_in_several_files(
    dataset_folder: Folder, feature_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bfrbctl.features.featurization._TABLE_ROWS", 30)
    config = FeatureConfig(families=("presence", "motion", "temperature", "distance", "moments"))
    with open_output(tmp_path / "cut", Job("features", {})) as output:
        cut = featurize(dataset_folder, output, config)
    assert len(cut.parts("sequences.parquet")) > 1
    assert max(cut.read_parquet(name).height for name in cut.parts("sequences.parquet")) <= 30
    for labelled in (True, False):
        whole, many = (read_features(folder, labelled=labelled)[1] for folder in (feature_folder, cut))
        assert many.sequence_ids == whole.sequence_ids
        assert np.array_equal(many.table, whole.table, equal_nan=True)
    assert cut.read_together("sequences.parquet").equals(feature_folder.read_together("sequences.parquet"))


def test_folds_fill_the_cores_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, at_once in ((1, 1), (2, 1), (7, 1), (8, 2), (64, 16)):
        monkeypatch.setattr("bfrbctl.execution.executor.joblib.cpu_count", lambda cores=cores: cores)
        assert folds_at_once("lgbm") == at_once
        assert folds_at_once("keras") == 1
    assert Executor(16).at_once(5) == 5
    assert Executor(16).threads(5) == 12


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scale")
    write_raw(folder / "raw", raw_frames(subjects=9, repeats=3))
    call("prepare", folder / "raw", folder / "data", "--folds", 3, "--rows-per-file", 500)
    call("featurize", folder / "data", folder / "features", "--families", "motion", "--families", "moments")
    return folder


def started(*words: object) -> subprocess.Popen[str]:
    # A run started in the background may ignore SIGINT; one at a terminal has not.
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from bfrbctl.cli import main; main()"
    )
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)], stderr=subprocess.PIPE, text=True, env=environment
    )


def wait_for(what: Callable[[], bool], run: subprocess.Popen[str]) -> None:
    while not what() and run.poll() is None:
        time.sleep(0.02)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_signal_ends_the_workers_and_keeps_finished_folds(
    base: Path, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    words = ["train", "lgbm", base / "features", tmp_path / "m", "--set", "n_rounds=60", "--set", "min_data_in_leaf=2"]
    call(*words[:3], tmp_path / "whole", *words[4:])
    run = started(*words, "--workers", 2, "--quiet")
    wait_for(lambda: any((tmp_path / "m").glob("part-summary-*.json")), run)
    workers = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(sent)
    _, err = run.communicate(timeout=60)
    assert run.returncode == code, err
    assert "Traceback" not in err
    psutil.wait_procs(workers, timeout=30)
    assert alive(workers) == []
    call(*words, "--workers", 2, "--resume")
    assert content_of(open_folder(tmp_path / "m")) == content_of(open_folder(tmp_path / "whole"))


@pytest.mark.slow
def test_a_worker_killed_in_a_fold_is_replaced(base: Path, tmp_path: Path) -> None:
    words = ["train", "keras", base / "features", tmp_path / "m", "--set", "epochs=4", "--set", "width=0.1"]
    words += ["--set", "batch_size=16", "--set", "network=two-branch"]
    call(*words[:3], tmp_path / "whole", *words[4:])
    run = started(*words, "--workers", 2, "--quiet")
    wait_for(lambda: any((tmp_path / "m").glob("part-scratch-fold-*/keras-*.npz")), run)
    busy = [one for one in psutil.Process(run.pid).children() if one.memory_info().rss > 200e6]
    busy[0].kill()
    _, err = run.communicate(timeout=600)
    assert run.returncode == 0, err
    whole, mended = read_oof(open_folder(tmp_path / "whole")), read_oof(open_folder(tmp_path / "m"))
    for scenario in whole:
        assert abs(whole[scenario].proba - mended[scenario].proba).max() < 1e-6


GIVE_BACK = {
    "_RJEM_MALLOC_CONF": "dirty_decay_ms:0,muzzy_decay_ms:0",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}
"""Makes the allocators of polars, Arrow and C give memory back at once: what they hold on to varies by a sixth."""


def peak(*words: object) -> float:
    """Peak resident memory of a command, MB, as Linux tells it: a child's rusage begins with its parent's size."""
    script = (
        "from bfrbctl.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    words = (sys.executable, "-c", script, *words, "--quiet")
    environment = {**os.environ, **GIVE_BACK}
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout) / 1e3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the peak")
def test_memory_does_not_grow_with_the_data(base: Path, tmp_path: Path) -> None:
    study = raw_frames(subjects=20, repeats=6)
    call("train", "lgbm", base / "features", tmp_path / "m", "--set", "n_rounds=8", "--set", "min_data_in_leaf=2")
    peaks: dict[str, list[float]] = {"prepare": [], "featurize": [], "predict": []}

    def least(*words: object) -> float:
        """How much memory the allocator keeps differs by a tenth from run to run; what is needed does not."""
        return min(peak(*words[:-1], f"{words[-1]}-{run}") for run in range(3))

    for times in (3, 30):  # less than that, and the allocator is still growing into its size
        copies = [
            study.with_columns(pl.col(name).str.replace("_", f"_{copy:02d}") for name in ("sequence_id", "subject"))
            for copy in range(times)
        ]
        here = tmp_path / f"times-{times}"
        write_raw(here / "raw", pl.concat(copies), suffix="parquet")
        # A row group is read whole.
        pl.concat(copies).write_parquet(here / "raw" / "train.parquet", row_group_size=4000)
        one, families = ("--workers", 1), ("--families", "motion", "--families", "moments")
        peaks["prepare"].append(least("prepare", *one, "--rows-per-file", 4000, here / "raw", here / "data"))
        peaks["featurize"].append(least("featurize", *one, *families, here / "data-0", here / "features"))
        peaks["predict"].append(least("predict", *one, here / "data-0", tmp_path / "m", here / "out"))
    assert {stage: round(after / before, 2) for stage, (before, after) in peaks.items() if after > 1.15 * before} == {}
