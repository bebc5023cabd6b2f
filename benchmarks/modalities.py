"""What each modality alone, and all together, is worth to the LightGBM member: the difficulty of a study.

    python benchmarks/modalities.py features/ 0

For each set of modalities the member is trained, with its default settings
and no modality dropout, on the columns that need nothing else, and scored after its last round on the held-out subjects
of the folds named (fold 0 when none is). Prints a Markdown table.
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from fold_tasks import fold_task
from measuring import header, parser, row

from bfrbctl.arrays.ragged import Int64
from bfrbctl.evaluation.metrics import hierarchical_f1
from bfrbctl.models.interface import FoldTask
from bfrbctl.models.lightgbm import model as lightgbm_model
from bfrbctl.models.lightgbm.config import Config
from bfrbctl.models.lightgbm.library import silence
from bfrbctl.recordings.dataset import FeatureBatch

SETS = (("imu",), ("thm",), ("tof",), ("thm", "tof"), ("imu", "thm"), ("imu", "tof"), ("imu", "thm", "tof"))


def only(batch: FeatureBatch, modalities: tuple[str, ...]) -> FeatureBatch:
    """Keep the columns that need no other modality; the wearer's own go with all of them."""
    kept = [
        position
        for position, column in enumerate(batch.features)
        if set(column.modality.split("+")) <= {*modalities, "person"}
    ]
    return replace(batch, table=batch.table[:, kept], features=tuple(batch.features[k] for k in kept))


def predicted(task: FoldTask, modalities: tuple[str, ...]) -> Int64:
    """Train on the columns of some modalities and predict the held-out sequences."""
    config = Config(modality_dropout=0.0, select="last")
    with TemporaryDirectory() as scratch:
        task = replace(
            task, scratch=Path(scratch), train=only(task.train, modalities), valid=only(task.valid, modalities)
        )
        proba = lightgbm_model.fit(task, config).predict_proba(task.valid)
    return np.asarray(proba.argmax(axis=1), dtype=np.int64)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("features", type=Path, help="feature folder with the sequence table")
    arguments.add_argument("folds", type=int, nargs="*", default=[0], help="folds that are held out")
    chosen = arguments.parse_args()
    silence()
    tasks = [fold_task(chosen.features, "lgbm", fold) for fold in chosen.folds]
    truth = np.concatenate([task.valid_labels for task in tasks])
    print(header("modalities", "columns", "score", "binary F1", "macro F1"))
    for modalities in SETS:
        answers = np.concatenate([predicted(task, modalities) for task in tasks])
        score = hierarchical_f1(truth, answers, tasks[0].targets)
        figures = [f"{figure:.3f}" for figure in (score.score, score.binary_f1, score.macro_f1)]
        n_columns = len(only(tasks[0].train, modalities).features)
        print(row(" + ".join(modalities), n_columns, *figures), flush=True)


if __name__ == "__main__":
    main()
