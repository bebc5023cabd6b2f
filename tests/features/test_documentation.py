import doctest
from dataclasses import replace
from pathlib import Path

import pytest

from bfrbctl.arrays import ragged
from bfrbctl.features import FeatureConfig, catalogue, columns, flip_detection
from bfrbctl.features.documentation import features_markdown
from bfrbctl.features.table import plan
from bfrbctl.schema import HELIOS_LAYOUT, IMU_LAYOUT

DOCS = Path(__file__).parents[2] / "docs"


def test_features_page_is_what_the_catalogue_says() -> None:
    page = (DOCS / "features.md").read_text()
    appendices = [f"\n{(DOCS / name).read_text()}" for name in ("ablation.md", "flips.md")]
    assert page == "".join([features_markdown(), *appendices]), "write it anew: python examples/feature_docs.py"


def test_features_page_explains_every_column() -> None:
    page = features_markdown()
    for column in sum(columns(FeatureConfig(), HELIOS_LAYOUT), ()):
        assert f"| `{column.name}` | {column.modality} | {column.unit} |" in page


def test_page_of_another_device_has_no_columns_of_absent_sensors() -> None:
    assert "`thm_" not in features_markdown(IMU_LAYOUT)


@pytest.mark.parametrize("module", [ragged, plan, catalogue, flip_detection])
def test_examples_in_docstrings_hold(module: object) -> None:
    failed, attempted = doctest.testmod(module)  # type: ignore[arg-type]
    assert attempted > 0
    assert failed == 0


def test_columns_made_twice_are_equal() -> None:
    assert columns(FeatureConfig(), HELIOS_LAYOUT) == columns(FeatureConfig(), HELIOS_LAYOUT)
    first = columns(FeatureConfig(), HELIOS_LAYOUT)[0][0]
    assert replace(first) == first
    assert replace(first, name="other") != first
