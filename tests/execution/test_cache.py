"""Arrays beyond the bound lie in mapped files and hold the same bits; a fold trained on them is the same fold."""

import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfrbctl.arrays.ragged import AnyArray, offsets_of, take_segments
from bfrbctl.artefacts.folders import Folder, open_folder
from bfrbctl.cli.train import keras, lgbm
from bfrbctl.errors import OutputError
from bfrbctl.execution.cache import Cache, default_bound, settle
from bfrbctl.features.folder import read_features
from bfrbctl.recordings.dataset import FeatureBatch


def is_mapped(array: AnyArray) -> bool:
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def contents(batch: FeatureBatch) -> list[bytes]:
    return [
        np.asarray(values).tobytes() for values in (batch.table, batch.frames, batch.tof, batch.offsets, batch.phase)
    ]


def test_memory_that_was_given_back_can_be_taken_again(tmp_path: Path) -> None:
    cache = Cache(1000, tmp_path)
    first = cache.empty((200,), np.float32)
    assert not is_mapped(first)
    assert is_mapped(cache.empty((60,), np.float32))
    view = first[10:]
    del first
    assert is_mapped(cache.empty((60,), np.float32))
    del view
    assert not is_mapped(cache.empty((250,), np.float32))
    assert list(tmp_path.iterdir()) == []


def test_arrays_without_elements_need_no_file(tmp_path: Path) -> None:
    assert Cache(0, tmp_path).zeros((0, 3), np.float32).shape == (0, 3)


def test_mapped_arrays_keep_what_was_written_when_their_pages_are_dropped(tmp_path: Path) -> None:
    array = Cache(0, tmp_path).zeros((5, 4000), np.float32)
    assert is_mapped(array)
    assert not array.any()
    array[1:3] = 7
    settle(array[2])
    assert array.sum() == 2 * 4000 * 7


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=8).flatmap(
        lambda lengths: st.tuples(st.just(lengths), st.lists(st.integers(0, len(lengths) - 1), max_size=12))
    )
)
def test_segments_are_taken_as_without_a_cache(case: tuple[list[int], list[int]]) -> None:
    lengths, picked = case
    offsets, chosen = offsets_of(np.array(lengths)), np.array(picked, dtype=np.int64)
    values = np.arange(offsets[-1] * 3, dtype=np.float32).reshape(-1, 3)
    assert np.array_equal(Cache().take(values, offsets, chosen), take_segments(values, offsets, chosen)[0])


def test_large_segments_are_taken_in_blocks(tmp_path: Path) -> None:
    offsets = offsets_of(np.full(40, 30_000))
    values = np.arange(offsets[-1] * 16, dtype=np.float32).reshape(-1, 16)
    chosen = np.arange(39, -1, -3)
    got = Cache(0, tmp_path).take(values, offsets, chosen)
    assert is_mapped(got)
    assert np.array_equal(got, take_segments(values, offsets, chosen)[0])


def test_features_are_the_same_bits_in_mapped_files(tmp_path: Path, feature_folder: Folder) -> None:
    _, expected = read_features(feature_folder)
    _, got = read_features(feature_folder, cache=Cache(0, tmp_path))
    chosen = np.arange(expected.n_sequences - 1, 0, -2)
    for one, other in (
        (expected, got),
        (expected.take(chosen), got.take(chosen)),
        (expected.imu_only(), got.imu_only()),
    ):
        assert contents(one) == contents(other)
        assert is_mapped(other.frames)
        assert is_mapped(other.table)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"no space for 4 MB of features beside it \(No space left on device\)"):
        Cache(0, tmp_path).empty((2**20,), np.float32)


def test_the_default_bound_is_half_of_what_the_container_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bfrbctl.execution.cache.available_memory", lambda: 4000)
    assert default_bound() == 2000
    monkeypatch.setattr("bfrbctl.execution.cache.available_memory", lambda: None)
    assert default_bound() is None


def test_trees_are_the_same_whatever_the_cache(tmp_path: Path, feature_folder: Folder) -> None:
    settings = ["n_rounds=5", "min_data_in_leaf=2"]
    digests = set()
    for bound in (0, 1000):
        out = tmp_path / f"lgbm-{bound}"
        lgbm(feature_folder.path, out, cache_mb=bound, settings=settings, workers=1, quiet=True)
        digests.add(open_folder(out).files["fold-0.lgbm.txt"].sha256)
    assert len(digests) == 1


@pytest.mark.slow
def test_networks_are_the_same_whatever_the_cache(tmp_path: Path, feature_folder: Folder) -> None:
    digests = set()
    for bound in (0, 1000):
        out = tmp_path / f"keras-{bound}"
        settings = ["width=0.25", "batch_size=8", "deterministic=true"]
        keras(feature_folder.path, out, [0], epochs=2, cache_mb=bound, settings=settings, workers=1, quiet=True)
        digests.add(open_folder(out).files["oof.parquet"].sha256)
    assert len(digests) == 1


_READS = """
import sys
from pathlib import Path
import numpy as np
from bfrbctl.execution.cache import Cache
offsets = np.arange(0, 400_001, 100)
cache = Cache(int(sys.argv[1]), Path(sys.argv[2]))
values = cache.empty((400_000, 100), np.float32)
for begin in range(0, 400_000, 10_000):
    values[begin : begin + 10_000] = begin
taken = cache.take(values, offsets, np.arange(0, 4000, 2))
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("RssAnon")][0], taken.sum())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_bound_keeps_features_out_of_memory(tmp_path: Path) -> None:
    def run(bound: int) -> tuple[int, str]:
        words = [sys.executable, "-c", _READS, str(bound), str(tmp_path)]
        kib, total = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
        return int(kib) * 1024, total

    (mapped, total), (held, same) = run(0), run(2**40)
    assert total == same
    assert held - mapped > 200 * 10**6
