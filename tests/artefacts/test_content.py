from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bfrbctl.artefacts.content import CONTENT, DatasetContent, LabelledContent, ModelContent, read_content
from bfrbctl.artefacts.folders import Folder, open_folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.errors import ArtefactError
from bfrbctl.schema import SensorLayout
from tests.contents import CONTENT as SOUND


def test_every_kind_has_a_model_and_a_sound_example() -> None:
    assert set(CONTENT) == set(SOUND)
    for kind, model in CONTENT.items():
        assert read_content(model, SOUND[kind], "m") == model(**SOUND[kind])


@pytest.mark.parametrize("kind", CONTENT)
def test_every_key_that_must_be_there_is_missed(kind: str) -> None:
    for key in SOUND[kind]:
        without = {name: value for name, value in SOUND[kind].items() if name != key}
        with pytest.raises(ArtefactError, match=rf"^m: its content lacks '{key}'"):
            read_content(CONTENT[kind], without, "m")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("rate_hz", True, "a rate from 0.1 to 10000 Hz"),
        ("rate_hz", "10", "a rate from 0.1 to 10000 Hz"),
        ("rate_hz", 1e9, "a rate from 0.1 to 10000 Hz"),
        ("thm", [2, 1], "ascending numbers of sensors"),
        ("thm", [0], "ascending numbers of sensors"),
        ("thm", [1.0], "ascending numbers of sensors"),
        ("classes", "Wave", "different names"),
        ("classes", ["a", "a"], "different names"),
        ("classes", [""], "different names"),
        ("classes", ["x" * 1001], "different names"),
        ("classes", [f"{number}" for number in range(100_001)], "different names"),
        ("targets", [1], "a list of true and false"),
        ("n_folds", -1, "a count"),
        ("n_folds", 2.0, "a count"),
        ("n_folds", 2**60, "a count"),
        ("folds", [-1], "a list of counts"),
        ("prior", [1.5], "a list of shares"),
        ("features", [], "an object"),
        ("model", "", "a name"),
        ("joint", {"names": ["a"]}, "names, and a gesture of each"),
        ("trained_on", {"subjects": 5}, "digests of sequences and subjects"),
    ],
)
def test_what_cannot_be_is_refused_with_what_was_expected(key: str, value: Any, expected: str) -> None:
    with pytest.raises(ArtefactError, match=f"^m: {key} is .*, expected {expected}") as caught:
        read_content(ModelContent, {**SOUND["model"], key: value}, "m")
    assert len(str(caught.value)) < 300


def test_a_key_that_no_version_writes_is_refused() -> None:
    with pytest.raises(ArtefactError, match=r"^m: its content has a key 'clases' that this bfrbctl does not know"):
        read_content(DatasetContent, {**SOUND["dataset"], "clases": []}, "m")


@pytest.mark.parametrize("change", [{"targets": [True]}, {"prior": [0.5]}, {"classes": ["a", "b"]}])
def test_lists_by_class_have_one_length(change: dict[str, Any]) -> None:
    with pytest.raises(ArtefactError, match="classes, targets and prior do not fit each other"):
        read_content(ModelContent, {**SOUND["model"], **change}, "m")


def test_an_open_folder_gives_its_content_typed(dataset_folder: Folder) -> None:
    content = dataset_folder.typed(DatasetContent)
    assert content is dataset_folder.typed(LabelledContent)  # checked once, when the folder was opened
    assert list(content.classes) == dataset_folder.content["classes"]
    assert content.layout == SensorLayout(tuple(dataset_folder.content["thm"]), tuple(dataset_folder.content["tof"]))
    with pytest.raises(ArtefactError, match="its content "):
        dataset_folder.typed(ModelContent)


def test_a_folder_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ArtefactError, match=r"manifest\.json: kind is 'thesis', expected dataset, features"),
        open_output(tmp_path / "out", Job("thesis", {})) as output,
    ):
        output.finish({})
    with pytest.raises(ArtefactError, match="kind is 'thesis'"):
        open_folder(tmp_path / "out")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("thm", [0] * 100_001),
        ("prior", [2] * 100_001),
        ("joint", dict.fromkeys(map(str, range(100_001)), 0)),
        ("trained_on", dict.fromkeys(map(str, range(100_001)), 0)),
    ],
)
def test_a_flood_of_wrong_values_is_one_error(key: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        ModelContent(**{**SOUND["model"], key: value})
    assert caught.value.error_count() == 1
