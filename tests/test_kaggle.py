import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest

from bfrbctl import kaggle
from bfrbctl.errors import UsageError
from bfrbctl.folders import Folder
from bfrbctl.prediction import Predictor
from tests.recordings import raw_frames


class Gateway:
    """What the competition's server does, in this process: one sequence a call, in random order, answers checked."""

    served: list[str]

    def __init__(self, *listeners: Callable[..., str]) -> None:
        self.listeners = {listener.__name__: listener for listener in listeners}
        Gateway.served = []

    def serve(self) -> None:
        Gateway.served.append("serve")

    def run_local_gateway(self, data_paths: tuple[str, str]) -> None:
        test, people = (pl.read_csv(path) for path in data_paths)
        rows = []
        names = test["sequence_id"].unique().sort().to_numpy()
        for name in np.random.default_rng(0).permutation(names):
            sequence = test.filter(pl.col("sequence_id") == name)
            answer = self.listeners["predict"](sequence, people.filter(pl.col("subject") == sequence["subject"][0]))
            assert type(answer) is str
            rows.append((str(name), answer))
        pl.DataFrame(rows, schema=["sequence_id", "gesture"], orient="row").write_parquet("submission.parquet")


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    package, module = ModuleType("kaggle_evaluation"), ModuleType("kaggle_evaluation.cmi_inference_server")
    module.CMIInferenceServer = Gateway  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kaggle_evaluation", package)
    monkeypatch.setitem(sys.modules, "kaggle_evaluation.cmi_inference_server", module)
    monkeypatch.delenv(kaggle.RERUN, raising=False)
    yield


def test_the_local_gateway_gets_the_answers_of_predict(
    gateway: None, blend_folder: Folder, raw_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = (raw_folder / "test.csv", raw_folder / "test_demographics.csv")
    kaggle.serve(blend_folder.path, paths)
    answers = dict(pl.read_parquet("submission.parquet").rows())
    assert answers == Predictor.open(blend_folder.path).predict_many(*map(pl.read_csv, paths))


def test_the_rerun_serves(gateway: None, blend_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kaggle.RERUN, "1")
    kaggle.serve(blend_folder.path)
    assert Gateway.served == ["serve"]


def test_a_failure_inside_is_logged_and_answered(
    blend_folder: Folder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = kaggle.answering(lambda: Predictor.open(blend_folder.path))
    assert answer.__name__ == "predict"

    def broken(*_: object, **__: object) -> str:
        raise RuntimeError("the moon")

    monkeypatch.setattr(Predictor, "predict", broken)
    with caplog.at_level(logging.ERROR):
        given = answer(raw_frames(subjects=1, repeats=1), pl.DataFrame())
    assert given in blend_folder.content["classes"]
    assert "sequence SEQ_000000 failed" in caplog.text
    assert "the moon" in caplog.text


def test_the_model_is_opened_once(blend_folder: Folder) -> None:
    opened = []

    def open_predictor() -> Predictor:
        opened.append(1)
        return Predictor.open(blend_folder.path)

    answer = kaggle.answering(open_predictor)
    table = raw_frames(subjects=1, repeats=1, labelled=False).filter(pl.col("sequence_id") == "SEQ_000001")
    assert answer(table, pl.DataFrame()) == answer(table, pl.DataFrame())
    assert opened == [1]


def test_without_kaggles_package_or_data_it_says_so(blend_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(kaggle.RERUN, raising=False)
    with pytest.raises(UsageError, match=r"expected test\.csv and test_demographics\.csv"):
        kaggle.serve(blend_folder.path)
    monkeypatch.setenv(kaggle.RERUN, "1")
    with pytest.raises(UsageError, match="kaggle_evaluation is not installed"):
        kaggle.serve(blend_folder.path)
