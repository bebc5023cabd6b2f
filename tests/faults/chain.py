"""The commands on tiny data: how each is called, and how to run one here or in a process of its own."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from bfrbctl.cli import main
from tests.faults.steps import Steps, watched
from tests.raw_recordings import raw_frames, write_raw

ROOT = Path(__file__).parents[2]
LGBM = ("--set", "n_rounds=2", "--set", "min_data_in_leaf=2", "--set", "threads=1")
KERAS = ("--set", "epochs=2", "--set", "width=0.05", "--set", "batch_size=16", "--set", "network=two-branch")


@dataclass(frozen=True)
class Command:
    """One command of the chain.

    Parameters
    ----------
    words
        The verb.
    inputs
        Folders of the chain that it reads.
    options
        What follows the output.
    resumes
        Whether it has --resume.
    """

    words: tuple[str, ...]
    inputs: tuple[str, ...]
    options: tuple[str, ...] = ()
    resumes: bool = True

    def line(self, base: Path, out: Path, *more: str) -> list[str]:
        """Give the words of a run that writes `out`; folders that it reads are made where there are none yet."""
        for name in self.inputs:
            ensure(base, name)
        return [*self.words, *(str(base / name) for name in self.inputs), str(out), *self.options, "--quiet", *more]


COMMANDS = {
    "simulate": Command(
        ("simulate",), (), ("--split", "test", "--set", "test_subjects=1", "--workers", "1"), resumes=False
    ),
    "prepare": Command(("prepare",), ("raw",), ("--folds", "2", "--rows-per-file", "400")),
    "featurize": Command(
        ("featurize",), ("data",), ("--families", "motion", "--families", "moments", "--workers", "1")
    ),
    "train lgbm": Command(("train", "lgbm"), ("features",), LGBM),
    "train keras": Command(("train", "keras"), ("features",), KERAS),
    "oof-blend": Command(("oof-blend",), ("lgbm", "other")),
    "predict": Command(("predict",), ("raw", "blend")),
    "pack": Command(("pack",), ("blend",), ("--owner", "jane", "--slug", "tiny-blend", "--title", "Tiny blend")),
}
MADE_BY = {
    "data": "prepare",
    "features": "featurize",
    "lgbm": "train lgbm",
    "other": "train lgbm",
    "blend": "oof-blend",
    "keras": "train keras",
}
"""Folder of the chain -> the command that makes it."""


def run_here(words: Sequence[str], steps: Steps | None = None) -> tuple[int, str]:
    """Run the program in this process: its exit code and what it said on stderr."""
    before, handler = sys.argv, signal.getsignal(signal.SIGTERM)
    said = io.StringIO()
    sys.argv = ["bfrbctl", *words]
    try:
        with contextlib.redirect_stderr(said), watched(steps) if steps else contextlib.nullcontext():
            main()
    except SystemExit as stop:
        assert isinstance(stop.code, int)
        return stop.code, said.getvalue()
    finally:
        sys.argv = before
        signal.signal(signal.SIGTERM, handler)


def run_in_process(words: Sequence[str], steps: Steps) -> tuple[int, str]:
    """Run the program in a process of its own; a negative exit code is the signal that killed it."""
    arguments = json.dumps({"root": str(steps.root), "action": steps.action, "at": steps.at})
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    line = [sys.executable, "-m", "tests.faults.driver", arguments, *words]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stderr


def make_chain(base: Path) -> Path:
    """Make the raw recordings that all is made of."""
    write_raw(base / "raw", raw_frames(subjects=4, repeats=1))
    test = raw_frames(subjects=2, repeats=1, seed=3, labelled=False)
    write_raw(base / "raw", test.with_columns(pl.col("sequence_id").str.replace("_0", "_9")), split="test")
    return base


def ensure(base: Path, folder: str) -> Path:
    """Make a folder of the chain, and what it is made of, unless it is there."""
    out = base / folder
    if not out.exists():
        code, said = run_here(COMMANDS[MADE_BY[folder]].line(base, out))
        assert code == 0, said
    return out


def names_in(folder: Path) -> list[str]:
    """What lies in a folder, sorted."""
    return sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
