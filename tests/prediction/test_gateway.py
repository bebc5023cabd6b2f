import json
import logging
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bfrbctl.artefacts.folders import Folder
from bfrbctl.errors import ArtefactError, UsageError
from bfrbctl.prediction import gateway as kaggle
from bfrbctl.prediction.predictor import Predictor
from bfrbctl.prediction.wheel import build_wheel
from tests.packages import needed_by_the_wheel
from tests.raw_recordings import raw_frames

ROOT = Path(__file__).parents[2]


class Gateway:
    """What the competition's server does, in this process: one sequence a call, in random order, responses checked."""

    served: list[str]

    def __init__(self, *listeners: Callable[..., str]) -> None:
        self.listeners = {listener.__name__: listener for listener in listeners}
        Gateway.served = []

    def serve(self) -> None:
        Gateway.served.append("serve")

    def run_local_gateway(self, data_paths: tuple[str, str]) -> None:
        test, demographics = (pl.read_csv(path) for path in data_paths)
        rows = []
        names = test["sequence_id"].unique().sort().to_numpy()
        for name in np.random.default_rng(0).permutation(names):
            sequence = test.filter(pl.col("sequence_id") == name)
            response = self.listeners["predict"](
                sequence, demographics.filter(pl.col("subject") == sequence["subject"][0])
            )
            assert type(response) is str
            rows.append((str(name), response))
        pl.DataFrame(rows, schema=["sequence_id", "gesture"], orient="row").write_parquet("submission.parquet")


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    package, module = ModuleType("kaggle_evaluation"), ModuleType("kaggle_evaluation.cmi_inference_server")
    module.CMIInferenceServer = Gateway  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kaggle_evaluation", package)
    monkeypatch.setitem(sys.modules, "kaggle_evaluation.cmi_inference_server", module)
    monkeypatch.delenv(kaggle.RERUN, raising=False)
    yield


def test_the_local_gateway_gets_the_predictions_of_predict(
    gateway: None, blend_folder: Folder, raw_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = (raw_folder / "test.csv", raw_folder / "test_demographics.csv")
    kaggle.serve(blend_folder.path, paths)
    submitted = dict(pl.read_parquet("submission.parquet").rows())
    assert submitted == Predictor.open(blend_folder.path).predict_many(*map(pl.read_csv, paths))


def test_the_rerun_serves(gateway: None, blend_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kaggle.RERUN, "1")
    kaggle.serve(blend_folder.path)
    assert Gateway.served == ["serve"]


def test_a_failure_inside_is_logged_and_gets_a_gesture(
    blend_folder: Folder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = kaggle.make_listener(lambda: Predictor.open(blend_folder.path))
    assert listener.__name__ == "predict"

    def broken(*_: object, **__: object) -> str:
        raise RuntimeError("the moon")

    monkeypatch.setattr(Predictor, "predict", broken)
    with caplog.at_level(logging.ERROR):
        given = listener(raw_frames(subjects=1, repeats=1), pl.DataFrame())
    assert given in blend_folder.content["classes"]
    assert "sequence SEQ_000000 failed" in caplog.text
    assert "the moon" in caplog.text


@pytest.mark.parametrize(
    "sequence",
    [
        pl.DataFrame(),
        pl.DataFrame({"sequence_id": []}),
        pl.DataFrame({"sequence_id": ["SEQ_000001"]}),
        pl.DataFrame({"sequence_id": ["SEQ_000001"], "acc_x": ["much"]}),
        None,
    ],
    ids=["empty", "no rows", "no columns", "text for numbers", "no table"],
)
def test_any_input_gets_a_gesture(sequence: pl.DataFrame, blend_folder: Folder) -> None:
    listener = kaggle.make_listener(lambda: Predictor.open(blend_folder.path))
    for demographics in (pl.DataFrame(), None):
        assert listener(sequence, demographics) in blend_folder.content["classes"]  # type: ignore[arg-type]


def test_a_sequence_that_cannot_be_used_is_logged_by_its_name(
    blend_folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    listener = kaggle.make_listener(lambda: Predictor.open(blend_folder.path))
    still = raw_frames(subjects=1, repeats=1, labelled=False).filter(pl.col("sequence_id") == "SEQ_000001")
    with caplog.at_level(logging.WARNING):
        given = listener(still.with_columns(acc_x=pl.lit(None, dtype=pl.Float32)), pl.DataFrame())
    assert given == blend_folder.content["classes"][int(np.argmax(blend_folder.content["prior"]))]
    assert "sequence SEQ_000001 has an acc_ column without any valid value" in caplog.text


def test_a_panic_inside_polars_gets_a_gesture(blend_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(*_: object) -> None:
        raise pl.exceptions.PanicException("overflow")

    monkeypatch.setattr(Predictor, "predict", panic)
    listener = kaggle.make_listener(lambda: Predictor.open(blend_folder.path))
    assert listener(raw_frames(subjects=1, repeats=1), pl.DataFrame()) in blend_folder.content["classes"]


def test_the_model_is_loaded_after_the_server_is_there_and_before_it_serves(
    gateway: None, blend_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    made, opened, served = Gateway.__init__, Predictor.open, Gateway.serve
    monkeypatch.setattr(Gateway, "__init__", lambda *words: (steps.append("server"), made(*words))[1])
    monkeypatch.setattr(Predictor, "open", lambda *words, **named: (steps.append("open"), opened(*words, **named))[1])
    monkeypatch.setattr(Gateway, "serve", lambda server: (steps.append("serve"), served(server))[1])
    monkeypatch.setenv(kaggle.RERUN, "1")
    kaggle.serve(blend_folder.path, expect_sha256=blend_folder.sha256)
    assert steps == ["server", "open", "serve"]


def test_another_digest_than_the_expected_one_is_not_served(
    gateway: None, blend_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kaggle.RERUN, "1")
    with pytest.raises(ArtefactError, match=f"expected {'0' * 64}"):
        kaggle.serve(blend_folder.path, expect_sha256="0" * 64)
    assert Gateway.served == []


def test_the_model_is_opened_once(blend_folder: Folder) -> None:
    opened = []

    def open_predictor() -> Predictor:
        opened.append(1)
        return Predictor.open(blend_folder.path)

    listener = kaggle.make_listener(open_predictor)
    table = raw_frames(subjects=1, repeats=1, labelled=False).filter(pl.col("sequence_id") == "SEQ_000001")
    assert listener(table, pl.DataFrame()) == listener(table, pl.DataFrame())
    assert opened == [1]


def test_without_kaggles_package_or_data_it_says_so(blend_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(kaggle.RERUN, raising=False)
    with pytest.raises(UsageError, match=r"expected test\.csv and test_demographics\.csv"):
        kaggle.serve(blend_folder.path)
    monkeypatch.setenv(kaggle.RERUN, "1")
    with pytest.raises(UsageError, match="kaggle_evaluation is not installed"):
        kaggle.serve(blend_folder.path)


# ------------------------------------------------------------------------------------------- Kaggle's own versions


def test_kaggles_versions_are_exact_and_within_what_bfrbctl_asks_for() -> None:
    lines = (ROOT / "constraints-kaggle.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+", line)] == []
    pinned = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    assert len(pinned) == len(lines)
    for text in needed_by_the_wheel(build_wheel()[1]):
        needed = Requirement(text)
        assert needed.specifier.contains(pinned[canonicalize_name(needed.name)]), text


def test_the_wheel_that_serves_needs_all_but_what_draws_charts() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    served = {Requirement(text).name for text in needed_by_the_wheel(build_wheel()[1])}
    assert {Requirement(text).name for text in project["dependencies"]} - served == {"resvg-py"}


def test_the_example_notebook_is_one_that_kaggle_can_run() -> None:
    notebook = json.loads((ROOT / "examples" / "kaggle_notebook.ipynb").read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert any("submission.py" in "".join(cell["source"]) for cell in code)
