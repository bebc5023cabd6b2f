"""The commands as a user runs them: what they print, what they write, how they fail."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest

from bfrbctl.artefacts.folders import open_folder
from bfrbctl.cli import main
from bfrbctl.errors import DataError
from tests.raw_recordings import raw_frames, write_raw


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the program in this process: words -> (exit code, stdout, stderr)."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bfrbctl", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, printed.out, printed.err

    handler = signal.getsignal(signal.SIGTERM)
    yield call
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chain")
    write_raw(folder / "raw", raw_frames(subjects=4))
    test = raw_frames(subjects=2, seed=3, labelled=False).with_columns(pl.col("sequence_id").str.replace("_0", "_9"))
    write_raw(folder / "raw", test, split="test")
    return folder


def test_the_chain_runs_from_raw_files_to_a_submission(run, base: Path) -> None:
    steps = [
        ("prepare", "raw", "data", "--folds", 2),
        ("featurize", "data", "features", "--families", "moments", "--families", "motion", "--workers", 1),
        ("train", "lgbm", "features", "lgbm", "--set", "n_rounds=8", "--set", "min_data_in_leaf=2"),
        ("train", "lgbm", "features", "other", "--set", "n_rounds=8", "--set", "min_data_in_leaf=2", "--seed", 1),
        ("oof-blend", "lgbm", "other", "blend"),
        ("predict", "raw", "blend", "predictions"),
    ]
    names = {"raw", "data", "features", "lgbm", "other", "blend", "predictions"}
    for step in steps:
        words = [base / word if word in names and step.index(word) > 0 and step[0] != word else word for word in step]
        if step[0] == "train":
            words[1] = "lgbm"
        code, out, err = run(*words)
        assert (code, err.count("error")) == (0, 0), (step, out, err)
        assert "wrote" in out
        assert " next: bfrbctl" in out
    submission = pl.read_csv(base / "predictions" / "submission.csv")
    assert submission.height == 16
    assert set(submission["gesture"]) <= set(open_folder(base / "data").content["classes"])


@pytest.mark.parametrize(
    ("what", "folder"),
    [
        ("dataset", "data"),
        ("features", "features"),
        ("oof", "lgbm"),
        ("oof", "blend"),
        ("feature-importance", "lgbm"),
        ("feature-importance", "blend"),
        ("blend", "blend"),
        ("predictions", "predictions"),
    ],
)
def test_inspect_shows_every_folder_to_users_and_scripts(run, base: Path, what: str, folder: str) -> None:
    if not (base / folder).exists():
        test_the_chain_runs_from_raw_files_to_a_submission(run, base)
    code, out, _ = run("inspect", what, base / folder)
    assert code == 0
    assert len(out.splitlines()) > 5
    code, out, err = run("inspect", what, base / folder, "--json")
    assert (code, err) == (0, "")
    assert set(json.loads(out)) == {"title", "facts", "tables", "notes"}


def test_predict_scores_against_answers(run, base: Path, tmp_path: Path) -> None:
    if not (base / "blend").exists():
        test_the_chain_runs_from_raw_files_to_a_submission(run, base)
    ids = pl.read_csv(base / "raw" / "test.csv")["sequence_id"].unique().sort()
    pl.DataFrame({"sequence_id": ids, "gesture": "Wave hello"}).tail(12).write_csv(tmp_path / "answers.csv")
    words = ("predict", base / "raw", base / "blend", tmp_path / "p", "--answers", tmp_path / "answers.csv")
    code, out, err = run(*words)
    assert code == 0, err
    assert "score against answers.csv: " in out and "binary F1" in out
    code, out, _ = run(*words, "--json", "--force")
    found = json.loads(out)
    assert (code, found["answers"]["name"]) == (0, "answers.csv")
    assert "answers.csv: has no label for 4 of 16 sequences" in found["warnings"][0]
    code, _, err = run(*words[:-1], tmp_path / "none.csv", "--force")
    assert (code, "none.csv: cannot be read" in err) == (3, True)
    code, out, _ = run("predict", base / "raw", base / "blend", tmp_path / "t", "--split", "train")
    assert code == 0
    assert "in-sample score against the labels in the input" in out


def test_options_of_training_reach_the_model(run, base: Path, tmp_path: Path) -> None:
    if not (base / "features").exists():
        test_the_chain_runs_from_raw_files_to_a_submission(run, base)
    (tmp_path / "weights.toml").write_text('"Wave hello" = 2.5\n')
    quick = ["--set", "n_rounds=3", "--set", "min_data_in_leaf=2", "--folds", 0]
    options = [
        "--seeds",
        2,
        "--select",
        "last",
        "--select-by",
        "logloss",
        "--scenario",
        "imu",
        "--modality-dropout",
        0.25,
        "--top-features",
        9,
    ]
    weights = ["--class-weight", tmp_path / "weights.toml"]
    code, _, err = run("train", "lgbm", base / "features", tmp_path / "m", *quick, *options, *weights)
    assert code == 0, err
    settings = open_folder(tmp_path / "m").config["settings"]
    expected = {"seeds": 2, "select": "last", "select_by": "logloss", "scenario": "imu", "modality_dropout": 0.25}
    expected["top_features"] = 9
    assert {key: settings[key] for key in expected} == expected
    assert settings["class_weight"] == {"Wave hello": 2.5}
    code, _, err = run("train", "lgbm", base / "features", tmp_path / "n", *quick, "--class-weight", tmp_path / "none")
    assert (code, "cannot be read" in err) == (2, True)


def test_json_prints_one_object_and_nothing_else(run, base: Path, tmp_path: Path) -> None:
    code, out, err = run("prepare", base / "raw", tmp_path / "d", "--folds", 2, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["n_sequences"] == {"test": 16, "train": 32}


def test_quiet_prints_nothing(run, base: Path, tmp_path: Path) -> None:
    assert run("prepare", base / "raw", tmp_path / "d", "--folds", 2, "--quiet") == (0, "", "")


def test_exit_codes_name_what_went_wrong(run, base: Path, tmp_path: Path) -> None:
    cases = [
        (2, ("prepare",), "Missing argument"),
        (2, ("prepare", base / "raw", tmp_path / "a", "--folds", 1), "--folds is 1, expected a whole number"),
        (2, ("prepare", base / "raw", tmp_path / "a", "--nonsense"), "--nonsense"),
        (2, ("train", "lgbm", "x", "y", "--set", "learning_rat=1"), "learning_rate"),
        (3, ("prepare", tmp_path / "nowhere", tmp_path / "a"), "there is no such file or folder"),
        (4, ("featurize", base / "raw", tmp_path / "a"), "no manifest.json"),
        (4, ("inspect", "dataset", tmp_path / "nowhere"), "there is no such folder"),
    ]
    for code, words, message in cases:
        got, out, err = run(*words)
        assert (got, out) == (code, ""), (words, err)
        assert err.startswith("error: ")
        assert message in err
        assert "Traceback" not in err
    run("prepare", base / "raw", tmp_path / "d", "--folds", 2)
    code, _, err = run("prepare", base / "raw", tmp_path / "d", "--folds", 2)
    assert code == 5
    assert "hint: choose another folder, or replace it with --force" in err
    assert run("prepare", base / "raw", tmp_path / "d", "--folds", 2, "--force")[0] == 0


def test_bad_data_leaves_nothing_behind(run, tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", raw_frames(subjects=2).with_columns(acc_x=pl.lit(None, dtype=pl.Float32)))
    code, _, err = run("prepare", raw, tmp_path / "data")
    assert code == 3
    assert "sequence SEQ_000000 has an acc_ column without any valid value" in err
    assert "and 13 more" in err
    assert not (tmp_path / "data").exists()


def test_an_unforeseen_error_is_reported_in_one_line(
    run, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the moon")

    monkeypatch.setattr("bfrbctl.recordings.raw.find_splits", broken)
    code, _, err = run("prepare", base / "raw", tmp_path / "d")
    assert code == 1
    assert err.splitlines()[0] == "error: RuntimeError: the moon"
    with pytest.raises(RuntimeError, match="the moon"):
        monkeypatch.setattr(sys, "argv", ["bfrbctl", "prepare", str(base / "raw"), str(tmp_path / "d"), "--debug"])
        main()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_a_run_and_keeps_its_state(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    raw = write_raw(tmp_path / "raw", raw_frames(subjects=30, repeats=12))
    words = ["prepare", str(raw), str(tmp_path / "data"), "--rows-per-file", "200"]
    # A run that is started in the background may ignore SIGINT; one at a terminal does not.
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from bfrbctl.cli import main; main()"
    )
    run = subprocess.Popen([sys.executable, "-c", script, *words], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "data" / "frames-00003.parquet").exists() and run.poll() is None:
        time.sleep(0.01)
    run.send_signal(sent)
    _, err = run.communicate(timeout=60)
    assert run.returncode == code, err
    assert "--resume continues it" in err
    assert "Traceback" not in err
    resumed = subprocess.run(
        [sys.executable, "-m", "bfrbctl", *words, "--resume", "--json"], capture_output=True, check=True
    )
    assert len(json.loads(resumed.stdout)["reused"]) >= 3


@pytest.mark.parametrize(
    "made_of_it", [pl.exceptions.PanicException("capsule"), DataError("cannot be read"), OSError("gone"), None]
)
def test_a_signal_ends_a_run_whatever_a_library_makes_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], made_of_it: BaseException | None
) -> None:
    def swallowing(**_: object) -> None:
        with suppress(SystemExit):
            signal.raise_signal(signal.SIGTERM)
        if made_of_it:
            raise made_of_it

    monkeypatch.setattr(sys, "argv", ["bfrbctl", "prepare"])
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("bfrbctl.cli.app.app", swallowing)
    try:
        with pytest.raises(SystemExit) as stopped:
            main()
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert stopped.value.code == 143
    assert "terminated; what was finished is kept" in capsys.readouterr().err


def test_a_panic_without_a_signal_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def panicking(**_: object) -> None:
        raise pl.exceptions.PanicException("of its own")

    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("bfrbctl.cli.app.app", panicking)
    try:
        with pytest.raises(pl.exceptions.PanicException, match="of its own"):
            main()
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_a_closed_pipe_is_no_traceback(base: Path) -> None:
    script = f"{sys.executable} -m bfrbctl --help | true"
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert "Traceback" not in done.stderr
