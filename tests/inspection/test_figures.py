import math
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bfrbctl.inspection.drawing import drawn, flattened, standalone, ticks
from bfrbctl.inspection.figures import Bars, Figure, Images, Lines, Matrix, Ranges, Series, describe
from bfrbctl.inspection.view import cell_text
from bfrbctl.inspection.views.calibration import ece, reliability
from bfrbctl.inspection.views.datasets import sparkline
from bfrbctl.inspection.views.features import kolmogorov_smirnov, stability

LINES = Lines("Score", "step", "score", (Series("a", (1.0, 2.0, 3.0), (0.1, None, 0.4)),), (1.0, 2.0, "gesture"))
FIGURES: list[Figure] = [
    LINES,
    Lines("Empty", "x", "y", ()),
    Lines("Flat", "x", "y", (Series("a", (1.0, 1.0), (2.0, 2.0)),)),
    Bars("F1", "F1", ("a", "b"), (("all", (0.5, None)), ("imu", (0.25, -0.5)))),
    Bars("None", "F1", (), ()),
    Ranges("Range", "m", ("a", "b"), ((0.0, 1.0, 2.0, 3.0, 9.0), None), (0, 1)),
    Ranges("Same", "m", ("a",), ((2.0,) * 5,)),
    Matrix(
        "Confusion", "predicted", "truth", ("a", "b"), ("a", "b"), ((1.0, 0.0), (0.5, 0.5)), (("2", ""), ("1", "1"))
    ),
    Images("ToF", "seconds", ("tof_1",), ("0.0", "1.0"), (((0.0, None, -1.0, 1.0), (0.5,) * 4),)),
]


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.title)
def test_a_figure_is_well_formed_inside_its_box_and_described_in_words(figure: Figure) -> None:
    root = ET.fromstring(drawn(figure))
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    assert root[0].text == figure.title
    assert root[1].text == describe(figure)
    for node in root.iter():
        for name, limit in (("x", width), ("y", height), ("cx", width), ("cy", height)):
            assert -0.6 <= float(node.attrib.get(name, 0)) <= limit
        assert "nan" not in " ".join(node.attrib.values())
    ET.fromstring(standalone([figure, figure]))


def texts(svg: str, kind: str) -> list[str]:
    """Texts of a drawing that have a class."""
    nodes = [node for node in ET.fromstring(svg).iter() if node.tag.endswith("text")]
    return ["".join(node.itertext()) for node in nodes if kind in node.attrib.get("class", "").split()]


def test_a_title_is_written_whole_in_as_many_lines_as_it_needs() -> None:
    title = "Reliability of the top probability, before and after the temperature, of a model with a long name"
    lines = texts(drawn(replace(LINES, title=title)), "h")
    assert len(lines) > 1
    assert " ".join(lines) == title
    assert texts(drawn(replace(LINES, title=title), titled=False), "h") == []
    assert "".join(texts(drawn(replace(LINES, title="x" * 300)), "h")) == "x" * 300


def test_a_label_that_is_too_wide_takes_two_lines_and_is_shortened_only_beyond_them() -> None:
    name = "Feel around in tray and pull out an object"
    (label,) = texts(drawn(Bars("F1", "F1", (name,), (("all", (0.5,)),))), "e")
    assert "".join(label.split()) == "".join(name.split())
    (label,) = texts(drawn(Bars("F1", "F1", (name * 9,), (("all", (0.5,)),))), "e")
    assert label.startswith(name * 9)  # the whole of it, to be shown under the pointer
    assert label.endswith("…")


def test_every_bar_has_its_value_beside_it() -> None:
    bars = Bars("F1", "F1", ("a", "b"), (("all", (0.512, None)), ("imu", (0.25, 0.75))))
    assert texts(drawn(bars), "v") == ["0.512", "0.25", "0.75"]


@pytest.mark.parametrize(("n", "dots"), [(10, 10), (24, 24), (25, 0)])
def test_the_points_of_a_curve_are_marked_where_they_are_few_and_all_drawn(n: int, dots: int) -> None:
    series = Series("a", tuple(map(float, range(n))), tuple(map(float, range(n))))
    svg = drawn(Lines("x", "x", "y", (series,)))
    assert svg.count("<circle") == dots
    (path,) = (each.attrib["d"] for each in ET.fromstring(svg).iter() if "L" in each.attrib.get("d", ""))
    assert path.count("L") == n - 1


def test_words_tell_ranges_and_the_strongest_confusion() -> None:
    assert describe(LINES) == "Lines of score over step: a from 0.1 to 0.4, last 0.4."
    assert describe(next(each for each in FIGURES if isinstance(each, Matrix))).endswith("strongest b / a 1.")


@given(st.text(max_size=30))
def test_any_text_is_text_in_a_drawing(text: str) -> None:
    root = ET.fromstring(drawn(Bars(text, text, (text,), ((text, (1.0,)),))))
    assert {node.tag.rpartition("}")[2] for node in root.iter()} <= {"svg", "title", "desc", "text", "path", "rect"}


def test_a_light_drawing_has_no_variables() -> None:
    assert "var(" not in flattened(standalone([LINES]))
    assert "#0969da" in flattened(standalone([LINES]))


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_and_inside(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert 1 <= len(found) <= 12
    assert all(low - span * 1e-6 <= tick <= low + span * (1 + 1e-6) for tick in found)


def test_ticks_of_nothing_are_one() -> None:
    assert ticks(3.0, 3.0) == [3.0]
    assert ticks(0.0, math.inf) == [0.0]


@given(hnp.arrays(np.float64, st.integers(1, 90), elements=st.floats(-1e3, 1e3) | st.just(math.nan)))
def test_a_sparkline_has_a_block_where_something_was_measured(values: np.ndarray) -> None:
    line = sparkline(values)
    assert len(line) == min(len(values), 40)
    assert (line.strip() == "") == bool(np.all(np.isnan(values)))


def test_a_sparkline_of_values_that_hardly_differ_has_both_ends() -> None:
    assert sparkline(np.array([-2.2e-313, 0.0])) == "▁█"
    assert sparkline(np.array([3.0, 3.0])) == "▁▁"


def test_perfect_confidence_has_no_calibration_error() -> None:
    truth = np.array([0, 1, 2, 0], dtype=np.int64)
    assert ece(reliability(np.eye(3, dtype=np.float32)[truth], truth)) == 0.0
    assert ece(reliability(np.eye(3, dtype=np.float32)[(truth + 1) % 3], truth)) == 1.0


@given(hnp.arrays(np.float32, st.integers(1, 80), elements=st.floats(-10, 10, width=32) | st.just(math.nan)))
def test_equal_samples_do_not_drift(values: np.ndarray) -> None:
    assert stability(values, values[::-1]) == pytest.approx(0.0, abs=1e-12)
    assert kolmogorov_smirnov(values, values[::-1]) in (0.0, None)


def test_apart_samples_drift_as_far_as_can_be() -> None:
    low, high = np.arange(50.0), np.arange(50.0) + 1000
    assert kolmogorov_smirnov(low, high) == 1.0
    assert stability(low, high) > 5
    assert stability(low, np.full(50, np.nan)) > 5


def test_text_cannot_steer_the_terminal() -> None:
    assert cell_text("\x1b[2Jgesture\n") == "\N{REPLACEMENT CHARACTER}[2Jgesture\N{REPLACEMENT CHARACTER}"


def test_the_same_figure_gives_the_same_bytes() -> None:
    assert drawn(LINES) == drawn(replace(LINES))
