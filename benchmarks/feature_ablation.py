"""What each family of features is worth to a small LightGBM, by subject-grouped cross-validation.

    python benchmarks/feature_ablation.py FEATURES [FEATURES ...] > docs/ablation.md

Each folder of `bfrbctl featurize` gets its columns of the table: the out-of-fold competition score of a first table
(mean, std, min and max over whole recordings, and the wearer), of that table and one family more, and of all features.
Half of the training recordings have their thermopile and ToF features nulled, and the held-out ones are scored with and
without. The folds are merged to three, and the trees are few and small: it is to compare, not to win.
"""

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from fold_tasks import in_first_table, read
from measuring import header, parser, row

from bfrbctl.arrays.ragged import AnyArray, Bool, Float64
from bfrbctl.evaluation.metrics import hierarchical_f1
from bfrbctl.evaluation.oof import class_positions
from bfrbctl.features import FAMILIES
from bfrbctl.models.lightgbm.library import lgb
from bfrbctl.recordings.dataset import Column

N_ROUNDS = 50
N_FOLDS = 3
SETTINGS = {
    "objective": "multiclass",
    "learning_rate": 0.1,
    "num_leaves": 8,
    "min_data_in_leaf": 10,
    "feature_fraction": 0.1,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "max_bin": 31,
    "num_threads": 1,
    "seed": 0,
    "deterministic": True,
    "force_col_wise": True,
    "verbosity": -1,
}

INTRODUCTION = """## What each family is worth

Out-of-fold competition score of a small LightGBM (50 rounds of 8 leaves, three subject-grouped folds, half of the
training recordings without thermopiles and ToF). *First table*: mean, std, min and max over whole recordings, and the
wearer. Each line adds one family to it; the gain is that of the mean of both scenarios. Written by
`python benchmarks/feature_ablation.py FEATURES ... > docs/ablation.md`.

"""

Scores = dict[str, tuple[int, float, float]]
"""Name of a choice of features -> number of features, score with all sensors, score with the IMU alone."""


def choices(features: Sequence[Column]) -> dict[str, Bool]:
    """Which features each line of the table keeps."""
    families = np.array([column.family for column in features])
    first = np.array([in_first_table(column) for column in features])
    out = {"first table": first, "all features": np.ones(len(features), dtype=np.bool_)}
    more = {f"first table + {family}": first | (families == family) for family in FAMILIES}
    return out | {name: kept for name, kept in more.items() if kept.sum() > first.sum()}


def scores(folder: Path, say: Callable[[str], None]) -> Scores:
    """Score every choice of features of one folder."""
    features, index, batch = read(folder)
    extra = np.array([("thm" in column.modality) or ("tof" in column.modality) for column in batch.features])
    labels = class_positions(index["gesture"].to_list(), features.content["classes"])
    folds = index["fold"].to_numpy() % N_FOLDS
    out: Scores = {}
    for name, kept in choices(batch.features).items():
        both = [
            hierarchical_f1(labels, predicted, features.content["targets"]).score
            for predicted in _predicted(batch.table, labels, folds, kept=kept, extra=extra)
        ]
        out[name] = (int(kept.sum()), both[0], both[1])
        say(f"{folder.name}: {name}: {out[name]}")
    return out


def _predicted(x: AnyArray, labels: AnyArray, folds: AnyArray, *, kept: Bool, extra: Bool) -> list[AnyArray]:
    """Predict every held-out recording with all sensors and with the IMU alone."""
    out = [np.zeros_like(labels), np.zeros_like(labels)]
    dropped = np.random.default_rng(0).random(len(x)) < 0.5
    bare = x.copy()
    bare[:, extra] = np.nan
    mixed = np.where(dropped[:, None], bare, x)
    for fold in np.unique(folds):
        train, valid = folds != fold, folds == fold
        data = lgb.Dataset(mixed[train][:, kept], labels[train], params=SETTINGS)
        model = lgb.train(SETTINGS | {"num_class": int(labels.max()) + 1}, data, N_ROUNDS)
        for predicted, source in zip(out, (x, bare), strict=True):
            proba: Float64 = np.asarray(model.predict(source[valid][:, kept]))
            predicted[valid] = proba.argmax(axis=1)
    return out


def markdown(named: dict[str, Scores]) -> str:
    """Put the scores of all folders side by side."""
    head = ["features"]
    for name in named:
        head += [f"{name}: n", "all sensors", "IMU only", "gain of the mean"]
    lines = [header(*head)]
    for choice in dict.fromkeys(choice for found in named.values() for choice in found):
        lines.append(row(choice, *(cell for found in named.values() for cell in _cells(found, choice))))
    return "".join(f"{line}\n" for line in lines)


def _cells(found: Scores, choice: str) -> list[str]:
    if choice not in found:
        return [""] * 4
    count, full, bare = found[choice]
    change = (full + bare - found["first table"][1] - found["first table"][2]) / 2
    return [str(count), f"{full:.4f}", f"{bare:.4f}", f"{change:+.4f}"]


def main() -> None:
    """Print the table for the folders named on the command line."""
    arguments = parser(__doc__)
    arguments.add_argument("features", type=Path, nargs="+", help="feature folders with the sequence table")
    chosen = arguments.parse_args()
    warnings.simplefilter("ignore")
    named = {path.name: scores(path, lambda line: print(line, file=sys.stderr)) for path in chosen.features}
    print(INTRODUCTION + markdown(named), end="")


if __name__ == "__main__":
    main()
