"""Train a fold's network on a few batches, to know how long whole epochs will take."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from bfrbctl.arrays.ragged import Int64, take_segments
from bfrbctl.models.interface import FoldTask, HistoryRow, Rehearsal
from bfrbctl.models.keras.inputs import Ready
from bfrbctl.models.keras.learning.augmentation import TrainingData
from bfrbctl.models.keras.learning.fitting import Fold, prepared
from bfrbctl.models.keras.model import KerasFoldModel, step_file
from bfrbctl.models.keras.settings import Config

BATCHES, EPOCHS = 8, 3
"""How much is trained on; the first epoch is left out, as networks are traced in it."""


def rehearse(task: FoldTask, config: Config) -> Rehearsal:
    """Scale the whole fold, and train a few epochs on a sample of it; raises what `fit` raises."""
    began = time.perf_counter()
    whole = prepared(task, config)
    prepare_s = time.perf_counter() - began
    n_sequences = task.train.n_sequences
    share = min(BATCHES * config.batch_size / n_sequences, 1.0)
    ends, spent = [time.perf_counter()], []

    def note(row: HistoryRow) -> None:
        ends.append(time.perf_counter())
        spent.append(float(row["seconds"]))

    short = config.model_copy(update={"epochs": EPOCHS, "seeds": 1})
    keep_steps = config.select == "other-folds"
    few = _few(whole, replace(task, on_progress=note, keep_steps=keep_steps), short, share)
    trained = few.trained(0)
    epoch_s = float(np.mean(spent[1:]))  # training and scoring, of a share of the sequences
    keeping_s = float(np.mean(np.diff(ends)[1:])) - epoch_s  # checkpoints and weights, as large as those of all
    each_epoch = _size(task.scratch / step_file(0, EPOCHS)) if keep_steps else 0
    model = KerasFoldModel(whole.spec, whole.scaler, [few.named(trained.weights)], few.summary([trained]))
    return Rehearsal(
        model=replace(model, members=model.members * config.seeds),
        start_s=max(spent[0] - epoch_s, 0.0),
        prepare_s=prepare_s,
        step_s=epoch_s / share + keeping_s,
        growth=1.0,
        kept_bytes=_size(task.scratch / "keras-0.npz") + config.epochs * each_epoch,
    )


def _size(path: Path) -> int:
    return path.stat().st_size


def _few(whole: Fold, task: FoldTask, config: Config, share: float) -> Fold:
    """Leave a share of the sequences, drawn, in a fold; the same share to learn from as to score."""
    rng = np.random.default_rng(0)
    chosen = _drawn(whole.data.labels.shape[0], share, rng)
    held = _drawn(whole.valid.labels.size, share, rng)
    data, valid = whole.data, whole.valid
    return replace(
        whole,
        task=task,
        config=config,
        data=TrainingData(
            _taken(data.data, chosen), data.labels[chosen], data.orientation[chosen], data.plan, data.turned
        ),
        valid=replace(
            valid,
            scenarios={scenario: _taken(ready, held) for scenario, ready in valid.scenarios.items()},
            labels=valid.labels[held],
        ),
    )


def _drawn(n_sequences: int, share: float, rng: np.random.Generator) -> Int64:
    n_chosen = min(max(int(np.ceil(n_sequences * share)), 1), n_sequences)
    return np.sort(rng.permutation(n_sequences)[:n_chosen]).astype(np.int64)


def _taken(data: Ready, chosen: Int64) -> Ready:
    frames, offsets = take_segments(data.frames, data.offsets, chosen)
    tof = take_segments(data.tof, data.offsets, chosen)[0]
    return Ready(frames, tof, take_segments(data.phase, data.offsets, chosen)[0], offsets, data.without)
