import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bfrbctl.errors import ArtefactError
from bfrbctl.models.lightgbm.model import LightGBMModel, fit, load
from tests.tree_batches import CLASSES, N_FEATURES, quick, task


@pytest.fixture(scope="module")
def model() -> LightGBMModel:
    return fit(task(), quick())


def edited(model: LightGBMModel, **changes: Any) -> dict[str, bytes]:
    files = model.encode()
    about = {**json.loads(files["lgbm.json"]), **changes}
    return {**files, "lgbm.json": json.dumps(about).encode()}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": 2}, "has format 2, expected 1"),
        ({"classes": ["Wave hello"]}, "other gestures"),
        ({"features": []}, "no list of names"),
        ({"features": "abc"}, "no list of names"),
        ({"features": ["a"] * N_FEATURES}, "stands twice"),
        ({"features": ["a", "b"]}, "max_feature_idx"),
        ({"selected": [0, 1]}, "max_feature_idx"),
        ({"selected": [1, 0]}, "ascending"),
        ({"selected": [0, N_FEATURES]}, "ascending"),
        ({"selected": [-1]}, "ascending"),
        ({"selected": [True]}, "ascending"),
        ({"selected": []}, "ascending"),
        ({"summary": 1}, "summary"),
        ({"summary": float("nan")}, "NaN is not a JSON number"),
        ({"other": 1}, "does not describe"),
    ],
)
def test_a_wrong_description_is_refused(model: LightGBMModel, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ArtefactError, match=match):
        load(edited(model, **changes), classes=CLASSES)


def test_wrong_files_are_refused(model: LightGBMModel) -> None:
    files = model.encode()
    text = files["lgbm.txt"]
    for wrong in (
        {"lgbm.json": files["lgbm.json"]},
        {"lgbm.txt": text},
        {**files, "lgbm-2.txt": text},
        {"lgbm.json": files["lgbm.json"], "lgbm-1.txt": text},
        {**files, "lgbm.json": b"[" * 100_000},
        {**files, "lgbm.json": b"\xff"},
    ):
        with pytest.raises(ArtefactError):
            load(wrong, classes=CLASSES)


@given(st.data())
@settings(max_examples=100, deadline=None, database=None)
def test_changed_bytes_of_the_description_are_refused_or_harmless(data: st.DataObject) -> None:
    files = trained_once().encode()
    content = bytearray(files["lgbm.json"])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        loaded = load({**files, "lgbm.json": bytes(content)}, classes=CLASSES)
    except ArtefactError:
        return
    assert loaded.selected.size == N_FEATURES


_TRAINED: list[LightGBMModel] = []


def trained_once() -> LightGBMModel:
    if not _TRAINED:
        _TRAINED.append(fit(task(), quick(n_rounds=2)))
    return _TRAINED[0]
