"""Recordings made of random numbers, as the device could have measured them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bfrbctl.arrays.ragged import Bool, Int64, offsets_of, take_segments
from bfrbctl.recordings.dataset import RecordingBatch
from bfrbctl.schema import HELIOS_LAYOUT, SensorLayout


def random_recordings(
    lengths: Sequence[int], *, seed: int = 0, layout: SensorLayout = HELIOS_LAYOUT, rate_hz: float = 10.0
) -> RecordingBatch:
    """Make recordings with gaps: lost quaternions, some sequences without any, absent thermopiles and ToF sensors."""
    rng = np.random.default_rng(seed)
    offsets = offsets_of(lengths)
    n, n_frames = len(lengths), int(offsets[-1])
    owner = np.repeat(np.arange(n), lengths)
    rot = np.cumsum(rng.normal(scale=0.05, size=(n_frames, 4)), axis=0) + rng.normal(size=4)
    rot /= np.linalg.norm(rot, axis=1, keepdims=True)
    rot[rot[:, 3] < 0] *= -1.0
    rot[(rng.random(n_frames) < 0.03) | (rng.random(n) < 0.1)[owner]] = np.nan
    acc = np.round(rng.normal([0.0, 3.0, 9.0], 3.0, size=(n_frames, 3)) * 256) / 256
    thm = 28 + np.cumsum(rng.normal(scale=0.05, size=(n_frames, len(layout.thm))), axis=0)
    tof = np.clip(rng.integers(-300, 300, size=(n_frames, len(layout.tof), 64)), -1, 249)
    for position in range(len(layout.thm)):
        thm[(rng.random(n) < 0.2)[owner], position] = np.nan
    for position in range(len(layout.tof)):
        tof[(rng.random(n) < 0.2)[owner] | (rng.random(n_frames) < 0.02), position] = -2
    demographics = rng.normal(50.0, 20.0, size=(n, 7))
    demographics[:, 3] = rng.random(n) < 0.7
    return RecordingBatch(
        sequence_ids=tuple(f"SEQ_{i:06d}" for i in range(n)),
        subjects=tuple(f"SUBJ_{i % 5:06d}" for i in range(n)),
        offsets=offsets,
        acc=acc.astype(np.float32),
        rot=rot.astype(np.float32),
        thm=thm.astype(np.float32),
        tof=tof.astype(np.int16),
        demographics=demographics.astype(np.float32),
        layout=layout,
        rate_hz=rate_hz,
    )


def taken(batch: RecordingBatch, chosen: Sequence[int]) -> RecordingBatch:
    """Pick sequences by position, in the order given."""
    rows: Int64 = np.asarray(chosen, dtype=np.int64)
    parts = {name: take_segments(getattr(batch, name), batch.offsets, rows)[0] for name in ("acc", "rot", "thm", "tof")}
    return replace(
        batch,
        sequence_ids=tuple(batch.sequence_ids[i] for i in rows),
        subjects=tuple(batch.subjects[i] for i in rows),
        offsets=offsets_of(np.diff(batch.offsets)[rows]),
        demographics=batch.demographics[rows],
        **parts,
    )


def without_sensors(batch: RecordingBatch, *modalities: str) -> RecordingBatch:
    """Give the same recordings with all thermopile (`thm`), ToF (`tof`) or rotation (`rot`) readings null."""
    out = batch
    if "thm" in modalities:
        out = replace(out, thm=np.full_like(out.thm, np.nan))
    if "tof" in modalities:
        out = replace(out, tof=np.full_like(out.tof, -2))
    if "rot" in modalities:
        out = replace(out, rot=np.full_like(out.rot, np.nan))
    return out


def partly_imu_only(batch: RecordingBatch, alone: Bool) -> RecordingBatch:
    """Give the same recordings, those of bool (n_sequences,) `alone` without thermopile and ToF readings."""
    rows, bare = np.repeat(alone, np.diff(batch.offsets)), without_sensors(batch, "thm", "tof")
    thm = np.where(rows[:, None], bare.thm, batch.thm)
    return replace(batch, thm=thm, tof=np.where(rows[:, None, None], bare.tof, batch.tof))
