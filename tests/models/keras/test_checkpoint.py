"""Checkpoints of networks: whole or not there, whatever a crash or a second writer left."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bfrbctl.models.interface import HistoryRow
from bfrbctl.models.keras.learning.checkpoint import META, load_state, pack_arrays, save_state
from bfrbctl.models.keras.model import fit
from bfrbctl.models.keras.settings import Config
from tests.keras_batches import task

TINY = Config(width=0.1, epochs=2, batch_size=16, network="two-branch")
ARRAYS = {"variable00000": np.arange(3000, dtype=np.float32), "slot00000": np.ones((2, 2), dtype=np.float32)}
CONTENT = {"digest": "d", "epoch": 1}


def test_a_checkpoint_survives_a_round_trip(tmp_path: Path) -> None:
    save_state(tmp_path / "a.npz", ARRAYS, CONTENT)
    found = load_state(tmp_path / "a.npz")
    assert found is not None
    assert found[1] == CONTENT
    assert all(np.array_equal(found[0][name], ARRAYS[name]) for name in ARRAYS)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut in half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "no zip file": lambda content: b"x" * 500,
    "a changed number": lambda content: content[:1000] + bytes([content[1000] ^ 1]) + content[1001:],
    "without its JSON": lambda content: pack_arrays(ARRAYS),
    "JSON that is none": lambda content: pack_arrays({META: np.frombuffer(b'{"digest"', dtype=np.uint8)}),
    "JSON of a list": lambda content: pack_arrays({META: np.frombuffer(b"[]", dtype=np.uint8)}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_counts_as_none_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    path = tmp_path / "keras-0.npz"
    save_state(path, ARRAYS, CONTENT)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert load_state(path) is None
    assert "keras-0.npz: the checkpoint is damaged" in caplog.text


def test_no_damage_of_a_checkpoint_raises(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, rng = tmp_path / "keras-0.npz", np.random.default_rng(0)
    save_state(path, ARRAYS, CONTENT)
    content = path.read_bytes()
    for _ in range(400):
        damaged = bytearray(content)
        near_end = len(content) - 1 - int(rng.integers(400))
        for at in (near_end, int(rng.integers(len(content))))[: int(rng.integers(1, 3))]:
            damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged[: int(rng.integers(len(damaged)))] if rng.random() < 0.3 else damaged)
        found = load_state(path)
        assert found is None or found[1].keys() <= {*CONTENT}


def test_two_writers_of_a_checkpoint_leave_one_of_theirs(tmp_path: Path) -> None:
    """The second is a worker that was taken for dead and still writes."""
    path = tmp_path / "keras-0.npz"

    def write(value: int) -> None:
        for _ in range(30):
            save_state(path, {"a": np.full(20_000, value, dtype=np.int64)}, {"value": value})

    def read(_: int) -> None:
        for _ in range(100):
            found = load_state(path)
            if found is not None:
                seen.append(set(found[0]["a"].tolist()) == {found[1]["value"]})

    seen: list[bool] = []
    with ThreadPoolExecutor(3) as threads:
        doing = [*(threads.submit(write, value) for value in (1, 2)), threads.submit(read, 0)]
        for each in doing:
            each.result()
    assert all(seen)
    assert load_state(path) is not None
    assert [entry.name for entry in tmp_path.iterdir()] == ["keras-0.npz"]


def test_a_checkpoint_of_an_earlier_version_is_left_aside_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = fit(task(tmp_path), TINY)
    path = tmp_path / "keras-0.npz"
    found = load_state(path)
    assert found is not None and not [name for name in found[0] if name.startswith("best")]
    arrays = {**found[0], "best00000": np.ones(3, dtype=np.float32)}
    save_state(path, arrays, {"digest": "other", "epoch": 1, "best_epoch": 0, "best_rank": [0.5, -1.0], "history": []})
    rows: list[HistoryRow] = []
    again = fit(replace(task(tmp_path), on_progress=rows.append), TINY)
    assert [row["step"] for row in rows] == [1, 2]
    assert again.encode() == whole.encode()
    assert not caplog.text


@pytest.mark.parametrize("damage", ["torn", "of another network"])
def test_training_starts_again_from_a_damaged_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    whole = fit(task(tmp_path), TINY)
    path = tmp_path / "keras-0.npz"
    found = load_state(path)
    assert found is not None
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        arrays = {name: values for name, values in found[0].items() if name != "slot00001"}
        save_state(path, arrays, found[1])
    rows: list[HistoryRow] = []
    again = fit(replace(task(tmp_path), on_progress=rows.append), TINY)
    assert [row["step"] for row in rows] == [1, 2]
    assert again.encode() == whole.encode()
    assert "the checkpoint is damaged" in caplog.text
