from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfrbctl.arrays import ragged
from bfrbctl.arrays.ragged import AnyArray

LENGTHS = st.lists(st.integers(0, 12), max_size=8)


def pieces(values: AnyArray, offsets: AnyArray) -> list[AnyArray]:
    return [values[begin:end] for begin, end in pairwise(offsets)]


def random_rows(lengths: list[int], *columns: int, gaps: float = 0.0) -> tuple[AnyArray, AnyArray]:
    rng = np.random.default_rng(len(lengths))
    offsets = ragged.offsets_of(lengths)
    values = rng.normal(size=(int(offsets[-1]), *columns))
    values[rng.random(values.shape[0]) < gaps] = np.nan
    return values, offsets


@given(LENGTHS)
def test_offsets_and_ids_describe_the_lengths(lengths: list[int]) -> None:
    offsets = ragged.offsets_of(lengths)
    assert np.diff(offsets).tolist() == lengths
    assert ragged.segment_ids(offsets).tolist() == [i for i, length in enumerate(lengths) for _ in range(length)]


@given(LENGTHS, st.data())
def test_taken_segments_are_those_segments(lengths: list[int], data: st.DataObject) -> None:
    values, offsets = random_rows(lengths, 2)
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=5) if lengths else st.just([]))
    taken, own = ragged.take_segments(values, offsets, np.array(chosen, dtype=np.int64))
    parts = pieces(values, offsets)
    for got, i in zip(pieces(taken, own), chosen, strict=True):
        assert np.array_equal(got, parts[i])


@pytest.mark.parametrize(("ufunc", "plain"), [(np.add, np.sum), (np.maximum, np.max), (np.minimum, np.min)])
@given(lengths=LENGTHS)
def test_reductions_agree_with_numpy(ufunc: np.ufunc, plain: object, lengths: list[int]) -> None:
    values, offsets = random_rows(lengths, 3)
    reduced = ragged.reduce_segments(ufunc, values, offsets, empty=-7.0)
    assert reduced.shape == (len(lengths), 3)
    for got, part in zip(reduced, pieces(values, offsets), strict=True):
        np.testing.assert_allclose(got, plain(part, axis=0) if len(part) else -7.0)  # type: ignore[operator]


@given(LENGTHS)
def test_differences_never_reach_over_a_border(lengths: list[int]) -> None:
    values, offsets = random_rows(lengths, 2)
    for got, part in zip(pieces(ragged.differences(values, offsets), offsets), pieces(values, offsets), strict=True):
        if len(part) == 1:
            assert np.isnan(got).all()
        elif len(part) > 1:
            assert np.array_equal(got[1:], np.diff(part, axis=0))
            assert np.array_equal(got[0], got[1])


@given(LENGTHS)
def test_neighbours_are_the_nearest_valid_rows_of_the_segment(lengths: list[int]) -> None:
    values, offsets = random_rows(lengths, gaps=0.5)
    valid = ~np.isnan(values)
    before, after = ragged.neighbours(valid, offsets)
    for begin, end in pairwise(offsets):
        places = [row for row in range(begin, end) if valid[row]]
        for row in range(begin, end):
            assert before[row] == max((place for place in places if place <= row), default=-1)
            assert after[row] == min((place for place in places if place >= row), default=-1)


@given(LENGTHS)
def test_gaps_are_filled_as_numpy_interpolates(lengths: list[int]) -> None:
    values, offsets = random_rows(lengths, 2, gaps=0.4)
    filled = ragged.interpolated(values, offsets)
    for got, part in zip(pieces(filled, offsets), pieces(values, offsets), strict=True):
        valid = ~np.isnan(part[:, 0])
        for column in range(2):
            if valid.any():
                expected = np.interp(np.arange(len(part)), np.flatnonzero(valid), part[valid, column])
                np.testing.assert_allclose(got[:, column], expected, atol=1e-12)
            else:
                assert np.isnan(got).all()


def test_one_missing_column_makes_the_row_missing() -> None:
    values = np.array([[0.0, 0.0], [np.nan, 9.0], [2.0, 2.0]])
    assert np.array_equal(ragged.interpolated(values, np.array([0, 3]))[1], [1.0, 1.0])


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=20))
def test_padded_length_depends_on_the_length_alone(lengths: list[int]) -> None:
    together = ragged.padded_length(np.array(lengths))
    assert together.tolist() == [ragged.padded_length(np.array([length]))[0] for length in lengths]
    assert (together >= lengths).all()
    assert (together - lengths <= np.maximum(7, np.array(lengths) / 6)).all()


@given(LENGTHS, st.integers(1, 60))
def test_length_groups_hold_every_filled_segment_once(lengths: list[int], max_rows: int) -> None:
    counts = np.array(lengths, dtype=np.int64)
    groups = ragged.length_groups(counts, max_rows)
    members = [int(i) for _, chosen in groups for i in chosen]
    assert sorted(members) == np.flatnonzero(counts > 0).tolist()
    for width, chosen in groups:
        assert (ragged.padded_length(counts[chosen]) == width).all()
        assert len(chosen) == 1 or len(chosen) * width <= max_rows


@given(LENGTHS)
def test_padded_rows_read_every_row_and_then_the_end(lengths: list[int]) -> None:
    offsets = ragged.offsets_of(lengths)
    rows = ragged.padded_rows(offsets, np.arange(len(lengths)), 12)
    assert rows.shape == (len(lengths), 12)
    for got, begin, end in zip(rows, offsets[:-1], offsets[1:], strict=True):
        assert got.tolist() == [*range(begin, end), *([offsets[-1]] * (12 - (end - begin)))]
