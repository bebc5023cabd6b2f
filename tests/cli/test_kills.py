"""kill -9 in the middle of the long commands, then --resume: the same result as an undisturbed run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bfrbctl import oof
from bfrbctl.folders import Folder, open_folder
from tests.recordings import raw_frames, write_raw

KERAS = ["--set", "epochs=4", "--set", "width=0.1", "--set", "batch_size=16", "--set", "network=two-branch"]
LGBM = ["--set", "n_rounds=30", "--set", "min_data_in_leaf=2"]


def bfrbctl(*words: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [sys.executable, "-m", "bfrbctl", *map(str, words), "--quiet"], stderr=subprocess.PIPE, env=environment
    )


def finish(*words: object) -> None:
    run = bfrbctl(*words)
    _, err = run.communicate(timeout=600)
    assert run.returncode == 0, err.decode()


def killed(when: Callable[[], bool], *words: object) -> bool:
    """Start a command and kill it as soon as `when()`; whether it was killed before it was done."""
    run = bfrbctl(*words)
    while not when() and run.poll() is None:
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=60)
    return run.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("kills")
    write_raw(base / "raw", raw_frames(subjects=9, repeats=3))
    finish("prepare", base / "raw", base / "data", "--folds", 3, "--rows-per-file", 500)
    finish("featurize", base / "data", base / "features", "--families", "motion", "--families", "moments")
    return base / "features"


def same_model(one: Folder, other: Folder) -> None:
    """The same probabilities: bit for bit for trees, to 1e-6 for networks, whose threads add in any order."""
    assert set(one.files) == set(other.files)
    if one.content["model"] == "lgbm":
        told = [name for name in one.files if name.startswith(("fold-", "oof"))]
        assert {name: one.files[name] for name in told} == {name: other.files[name] for name in told}
    a, b = oof.read_oof(one), oof.read_oof(other)
    for scenario in a:
        assert np.abs(a[scenario].proba - b[scenario].proba).max() < 1e-6


@pytest.mark.slow
def test_prepare_continues_after_a_kill(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", raw_frames(subjects=30, repeats=6))
    words = ["--folds", 3, "--rows-per-file", 200]
    finish("prepare", tmp_path / "raw", tmp_path / "whole", *words)
    there = tmp_path / "killed" / "frames-00005.parquet"
    assert killed(there.exists, "prepare", tmp_path / "raw", tmp_path / "killed", *words)
    finish("prepare", tmp_path / "raw", tmp_path / "killed", *words, "--resume")
    assert open_folder(tmp_path / "killed").files == open_folder(tmp_path / "whole").files


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "settings"), [("lgbm", LGBM), ("keras", KERAS)])
def test_training_continues_after_a_kill_between_folds(
    features: Path, tmp_path: Path, kind: str, settings: list[str]
) -> None:
    finish("train", kind, features, tmp_path / "whole", *settings)
    there = tmp_path / "killed" / "part-summary-0.json"
    assert killed(there.exists, "train", kind, features, tmp_path / "killed", *settings)
    finish("train", kind, features, tmp_path / "killed", *settings, "--resume")
    same_model(open_folder(tmp_path / "whole"), open_folder(tmp_path / "killed"))


@pytest.mark.slow
def test_keras_continues_after_a_kill_inside_a_fold(features: Path, tmp_path: Path) -> None:
    finish("train", "keras", features, tmp_path / "whole", *KERAS)
    scratch = tmp_path / "killed" / "part-scratch-fold-0"

    def checkpointed() -> bool:
        return scratch.exists() and any(not entry.name.startswith(".") for entry in scratch.iterdir())

    assert killed(checkpointed, "train", "keras", features, tmp_path / "killed", *KERAS)
    finish("train", "keras", features, tmp_path / "killed", *KERAS, "--resume")
    same_model(open_folder(tmp_path / "whole"), open_folder(tmp_path / "killed"))
    assert not scratch.exists()
