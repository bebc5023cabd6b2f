"""NumPy 2.4.6 fills a strided `out=` of isnan, isinf, isfinite and signbit with wrong values on some processors.

So no call of ours passes them one, and every other ufunc that is given a place to write to is compared with itself.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bfrbctl
from bfrbctl.models.keras.inputs import fit_scaler, plan_inputs, ready
from bfrbctl.models.keras.learning.turning import find_turned
from tests.keras_batches import made

PREDICATES = ("isnan", "isinf", "isfinite", "signbit")
CHECKED = ("add", "clip", "divide", "greater", "maximum", "multiply", "not_equal", "subtract", "tanh")
WITHOUT_LOOPS = ("matmul", "take")
"""They copy or call BLAS where an array is not contiguous, and are compared with plain products elsewhere."""


def nodes() -> Iterator[tuple[str, ast.AST]]:
    for path in Path(bfrbctl.__file__).parent.rglob("*.py"):
        yield from ((path.name, node) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def test_predicates_are_called_with_what_they_look_at_and_nothing_else() -> None:
    named, sound = [], []
    for file, node in nodes():
        if isinstance(node, ast.Attribute) and node.attr in PREDICATES:
            named.append((file, node.lineno, node.col_offset))
        if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
            sound.append((file, node.func.lineno, node.func.col_offset))
    assert len(named) > 40
    assert [place for place in named if place not in sound] == []


def test_every_ufunc_that_is_given_a_place_to_write_to_is_compared_here() -> None:
    given = {
        ast.unparse(node.func)
        for _, node in nodes()
        if isinstance(node, ast.Call) and any(keyword.arg == "out" for keyword in node.keywords)
    }
    assert given <= {f"np.{name}" for name in (*CHECKED, *WITHOUT_LOOPS)}


def strided(shape: tuple[int, ...], dtype: Any) -> Iterator[Any]:
    """Give views of larger arrays: columns, inner columns, every other row, backwards, transposed."""
    n, m = shape
    yield np.empty((n, m + 3), dtype)[:, 1 : m + 1]
    yield np.empty((n, 2 * m), dtype)[:, ::2]
    yield np.empty((2 * n, m), dtype)[::2]
    yield np.empty((m, n), dtype).T
    yield np.empty((n, m), dtype)[::-1, ::-1]
    yield np.empty((n, m, 5), dtype)[:, :, 2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CHECKED)
def test_a_strided_place_gets_the_values_that_a_new_array_would(name: str, dtype: type[np.floating[Any]]) -> None:
    rng = np.random.default_rng(3)
    shape, ufunc = (517, 37), getattr(np, name)
    values = rng.normal(size=(2, *shape)).round(1).astype(dtype)
    values[rng.random(values.shape) < 0.2] = np.nan
    arguments = {"tanh": values[:1], "clip": (values[0], dtype(-1), dtype(1))}.get(name, values)
    with np.errstate(all="ignore"):
        expected = ufunc(*arguments)
        for out in strided(shape, expected.dtype):
            ufunc(*arguments, out=out)
            np.testing.assert_array_equal(out, expected)
            for seen in strided(shape, dtype):
                seen[...] = arguments[0]
                ufunc(seen, *arguments[1:], out=out)
                np.testing.assert_array_equal(out, expected)


def test_flags_of_scaled_channels_tell_what_is_missing_frame_by_frame() -> None:
    batch, _ = made(40)
    batch.frames[::7, 7] = np.nan
    batch.frames[::3, 2] = np.nan
    plan = plan_inputs(batch, length=0, pad="left")
    data = ready(batch, plan, fit_scaler(batch, plan, find_turned(plan.imu)))
    n_imu, flag = plan.n_imu - 1, plan.n_imu + len(plan.other) + plan.single.index(0)
    for frame, row in zip(batch.frames.tolist(), data.frames, strict=True):
        measured = [value == value and abs(value) != float("inf") for value in frame]
        assert row[n_imu] == pytest.approx(sum(measured[:n_imu]) / n_imu)
        assert row[flag] == measured[7]
