"""Measure what `featurize --undo-flips auto` finds and what it is worth: the figures of docs/features.md.

    python benchmarks/flips.py data/ features/ --fold 0

Takes a prepared dataset whose people all wore the device the right way up, and its features. Tells how well one
recording and all recordings of a person tell how the device was worn, by turning them by the study's formula. Then
trains LightGBM twice, on features with two people of the training part turned round and with all as they should be,
and scores each model of all rounds on the held-out people as they are and all turned. Prints Markdown.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from fold_tasks import fold_task
from measuring import header, parser, row

from bfrbctl import features
from bfrbctl.artefacts.folders import open_folder
from bfrbctl.config import from_mapping
from bfrbctl.evaluation.metrics import score_proba
from bfrbctl.features import FeatureConfig, raised
from bfrbctl.models.interface import FoldTask
from bfrbctl.models.lightgbm.config import Config
from bfrbctl.models.lightgbm.library import silence
from bfrbctl.models.lightgbm.model import LightGBMModel, fit
from bfrbctl.recordings.dataset import FeatureBatch, read_accelerations, read_recordings
from bfrbctl.schema import SUBJECT

N_TURNED = 2
COUNTS = (1, 5, 20, 40)
DRAWS = 100


def detection(data: Path) -> None:
    """Print how often the mean of so many recordings of a person falls on the wrong side."""
    sequences, acc, offsets = read_accelerations(open_folder(data, "dataset"))
    scores = raised(acc, offsets, sequences["handedness"].to_numpy().astype(np.float32))
    subjects = sequences[SUBJECT].to_numpy()
    people = [scores[subjects == name] for name in np.unique(subjects)]
    means = np.array([np.nanmean(person) for person in people])
    print(f"{len(people)} people: mean {means.mean():.3f} g, sd {means.std():.3f}, lowest {means.min():.3f}\n")
    print(header("recordings of a person", "share below 0", "below -0.1", "turned: missed by -0.1"))
    rng = np.random.default_rng(0)
    for count in (*COUNTS, 0):
        draws = [
            np.nanmean(rng.choice(person, count, replace=False) if count else person)
            for person in people
            for _ in range(DRAWS if count else 1)
        ]
        found = np.array(draws)
        shares = [f"{share:.4f}" for share in ((found < 0).mean(), (found < -0.1).mean(), (-found >= -0.1).mean())]
        print(row(count or "all", *shares))


def turned_features(data: Path, config: FeatureConfig, subjects: set[str]) -> FeatureBatch:
    """Compute the tables of some people as if they had worn the device upside down."""
    # turning by 180 degrees undoes itself, so that the engine's own formula turns the recordings of these people
    config = replace(config, undo_flips="listed", flipped_subjects=tuple(subjects))
    dataset = open_folder(data, "dataset")
    sequences = dataset.read_parquet("sequences.parquet")
    parts = []
    for number in sequences["file"].unique().sort():
        recordings, _ = read_recordings(dataset, sequences, number)
        chosen = np.flatnonzero([subject in subjects for subject in recordings.subjects])
        if chosen.size:
            parts.append(features.compute(recordings.take(chosen), config, frames=False))
    ids = tuple(name for part in parts for name in part.sequence_ids)
    return replace(parts[0], sequence_ids=ids, table=np.concatenate([part.table for part in parts]))


def with_rows(batch: FeatureBatch, other: FeatureBatch) -> FeatureBatch:
    """Replace the rows of the sequences that another batch has."""
    position = {name: place for place, name in enumerate(batch.sequence_ids)}
    rows = np.array([(position[name], i) for i, name in enumerate(other.sequence_ids) if name in position])
    table = batch.table.copy()
    table[rows[:, 0]] = other.table[rows[:, 1]]
    return replace(batch, table=table)


def subjects_of(sequences: pl.DataFrame, fold: int) -> tuple[set[str], set[str]]:
    """Draw the people of the training part who are turned, and name those held out."""
    folds = dict(sequences.filter(split="train").select(SUBJECT, "fold").iter_rows())
    training = sorted(name for name, held in folds.items() if held != fold)
    chosen = np.random.default_rng(0).choice(training, N_TURNED, replace=False).tolist()
    return set(chosen), {name for name, held in folds.items() if held == fold}


def worth(data: Path, path: Path, fold: int) -> None:
    """Print what the two models score on the held-out people as worn, and turned."""
    task = fold_task(path, "lgbm", fold)
    config = from_mapping(
        FeatureConfig,
        {k: v for k, v in open_folder(path).config.items() if k in FeatureConfig.__dataclass_fields__},
        str(path),
    )
    chosen, held_out = subjects_of(open_folder(data, "dataset").read_parquet("sequences.parquet"), fold)
    turned = with_rows(task.valid, turned_features(data, config, held_out))
    spoilt = replace(task, train=with_rows(task.train, turned_features(data, config, chosen)))
    models = {"off": fit(spoilt, Config()), "auto": fit(task, Config())}
    print("\n" + header("trained with", "scored on", "all", "imu", "mean"))
    for name, model in models.items():
        for what, batch in (("as worn", task.valid), ("all turned", turned)):
            print(row(name, what, *scores(model, batch, task)), flush=True)


def scores(model: LightGBMModel, batch: FeatureBatch, task: FoldTask) -> list[str]:
    both = [
        score_proba(model.predict_proba(each), task.valid_labels, task.targets).score
        for each in (batch, batch.imu_only())
    ]
    return [f"{value:.4f}" for value in (*both, float(np.mean(both)))]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("data", type=Path, help="prepared dataset")
    arguments.add_argument("features", type=Path, help="its features, with the sequence table")
    arguments.add_argument("--fold", type=int, default=0, help="the fold that is held out")
    chosen = arguments.parse_args()
    silence()
    detection(chosen.data)
    worth(chosen.data, chosen.features, chosen.fold)


if __name__ == "__main__":
    main()
