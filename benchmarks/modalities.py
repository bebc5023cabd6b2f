"""What each modality alone, and all together, is worth to the LightGBM member: the difficulty of a study.

usage: python benchmarks/modalities.py FEATURES [FOLD ...]
FEATURES is a folder of `bfrbctl featurize`. For each set of modalities the member is trained, with its default settings
and no modality dropout, on the columns that need nothing else, and scored after its last round on the held-out subjects
of the folds named (fold 0 when none is). Prints a Markdown table.
"""

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bfrbctl.dataset import FeatureBatch
from bfrbctl.feature_folder import read_features
from bfrbctl.folders import open_folder
from bfrbctl.metrics import hierarchical_f1
from bfrbctl.models import FoldTask, lightgbm_model
from bfrbctl.oof import class_positions

SETS = (("imu",), ("thm",), ("tof",), ("thm", "tof"), ("imu", "thm"), ("imu", "tof"), ("imu", "thm", "tof"))


def only(batch: FeatureBatch, modalities: tuple[str, ...]) -> FeatureBatch:
    """Keep the columns that need no other modality; the wearer's own go with all of them."""
    kept = [
        position
        for position, column in enumerate(batch.features)
        if set(column.modality.split("+")) <= {*modalities, "person"}
    ]
    return replace(batch, table=batch.table[:, kept], features=tuple(batch.features[k] for k in kept))


def main(path: Path, folds: list[int]) -> None:
    """Train and score every set."""
    folder = open_folder(path, "features")
    index, everything = read_features(folder, parts={"table"})
    classes, targets = tuple(folder.content["classes"]), tuple(folder.content["targets"])
    labels = class_positions(index["gesture"].to_list(), classes)
    config = lightgbm_model.Config(modality_dropout=0.0, select="last")
    print("| modalities | columns | score | binary F1 | macro F1 |\n|---|---|---|---|---|")
    for modalities in SETS:
        batch = only(everything, modalities)
        truth, predicted = [], []
        for fold in folds:
            held = (index["fold"] == fold).to_numpy()
            with TemporaryDirectory() as scratch:
                task = FoldTask(
                    fold=fold,
                    classes=classes,
                    targets=targets,
                    train=batch.take(np.flatnonzero(~held)),
                    train_labels=labels[~held],
                    valid=batch.take(np.flatnonzero(held)),
                    valid_labels=labels[held],
                    seed=0,
                    rate_hz=float(folder.content["rate_hz"]),
                    scratch=Path(scratch),
                    on_progress=lambda _: None,
                )
                model = lightgbm_model.fit(task, config)
            predicted.append(np.argmax(model.predict_proba(task.valid), axis=1).astype(np.int64))
            truth.append(labels[held])
        score = hierarchical_f1(np.concatenate(truth), np.concatenate(predicted), targets)
        figures = f"{score.score:.3f} | {score.binary_f1:.3f} | {score.macro_f1:.3f}"
        print(f"| {' + '.join(modalities)} | {len(batch.features)} | {figures} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(word) for word in sys.argv[2:]] or [0])
