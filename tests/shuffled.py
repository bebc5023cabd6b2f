"""Studies in which nothing can be learned: features that identify subjects, and labels shuffled within each subject.

`chance` says what the predictions of such a study score when they know nothing of the labels that they are scored by:
the labels of each subject might as well be those of any other, in any order. Permutations of that kind give the mean
and the standard deviation of every figure. Honest predictions do know the labels of the other folds; but where a
held-out subject has many of a class the training part has few, which can only lower the figure. So the bound is
one-sided.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import norm, rankdata

from bfrbctl.arrays.ragged import Float64, Int64, offsets_of
from bfrbctl.artefacts.folders import SEQUENCES, Folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.evaluation.metrics import hierarchical_f1
from bfrbctl.evaluation.oof import OofScenario
from bfrbctl.features.folder import CATALOGUE, INDEX, catalogue_table, feature_frames, feature_table
from bfrbctl.recordings.dataset import Column, FeatureBatch

FALSE_ALARM = 1e-4
"""How likely an honest figure is to exceed its bound."""

N_PERMUTATIONS = 200
N_FRAMES = 16
CHANNELS = ("acc_x", "acc_y", "acc_z", "acc_mag", "gyro_x", "gyro_y", "gyro_z")


@dataclass(frozen=True)
class ShuffledStudy:
    """A made study.

    Parameters
    ----------
    gestures
        Gesture -> is it a target?
    n_subjects, n_each
        Subjects, and sequences of each.
    n_folds
        Folds, to which whole subjects are dealt; as many as subjects hold out one each.
    thermopile
        Whether half of the features and one channel need a thermopile.
    """

    gestures: dict[str, bool]
    n_subjects: int
    n_each: int
    n_folds: int
    thermopile: bool = False


def features_of(study: ShuffledStudy, path: Path, seed: int) -> Folder:
    """Write a feature folder: class shares differ by subject, features and channels have a level of each subject."""
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(study.n_subjects), study.n_each)
    names = list(study.gestures)
    shares = rng.dirichlet(np.full(len(names), 3.0), study.n_subjects)
    labels = np.concatenate([rng.permutation(_counted(share, study.n_each)) for share in shares])
    ids = tuple(f"q{number:05d}" for number in range(len(labels)))
    index = pl.DataFrame(
        {
            "sequence_id": ids,
            "split": "train",
            "subject": [f"s{number:02d}" for number in subject],
            "gesture": [names[label] for label in labels],
            "sequence_type": ["Target" if study.gestures[names[label]] else "Non-Target" for label in labels],
            "orientation": [f"posture {number}" for number in rng.integers(0, 2, len(labels))],
            "behavior_first": "Relaxes",
            "fold": pl.Series(subject % study.n_folds, dtype=pl.Int32),
            "n_frames": pl.Series([N_FRAMES] * len(labels), dtype=pl.Int64),
            "gesture_start": pl.Series([0] * len(labels), dtype=pl.Int64),
            "has_rot": False,
            "has_thm": study.thermopile,
            "has_tof": False,
            "file": pl.Series([0] * len(labels), dtype=pl.Int32),
        }
    )
    batch = _noise(study, subject, ids, rng)
    content = {
        "rate_hz": 10.0,
        "thm": [1] if study.thermopile else [],
        "tof": [],
        "classes": names,
        "targets": list(study.gestures.values()),
        "n_folds": study.n_folds,
        "n_sequences": {"train": len(ids)},
        "n_frames": int(batch.offsets[-1]),
        "n_files": 1,
        "n_features": len(batch.features),
        "n_channels": len(batch.channels),
    }
    with open_output(path, Job("features", {"tof_images": False})) as output:
        tables = {INDEX: index, CATALOGUE: catalogue_table(batch.features, batch.channels)}
        output.publish(
            "all", {**tables, SEQUENCES: feature_table(batch), "frames-00000.parquet": feature_frames(batch, [])}
        )
        return output.finish(content)


def _counted(share: Float64, n: int) -> Int64:
    """Labels in such shares, each class there at least once, as in a recording session: int64, (n,)."""
    counts = 1 + np.floor(share * (n - len(share))).astype(np.int64)
    counts[np.argmax(counts)] += n - counts.sum()
    return np.repeat(np.arange(len(share)), counts)


def _noise(study: ShuffledStudy, subject: Int64, ids: tuple[str, ...], rng: np.random.Generator) -> FeatureBatch:
    """Normal noise around a level of each subject, in features and channels alike."""

    def levelled(n_columns: int, of: Int64) -> Float64:
        return rng.normal(size=(study.n_subjects, n_columns))[of] + rng.normal(size=(len(of), n_columns))

    def columns(names: Sequence[str], modality: str) -> list[Column]:
        return [Column(name, "noise", modality, "1", "noise") for name in names]

    features = columns([f"noise_{number}" for number in range(8)], "imu")
    features += columns([f"warm_{number}" for number in range(8)], "thm" if study.thermopile else "imu")
    channels = columns(CHANNELS, "imu") + (columns(["thm_1"], "thm") if study.thermopile else [])
    offsets = offsets_of([N_FRAMES] * len(ids))
    return FeatureBatch(
        sequence_ids=ids,
        offsets=offsets,
        table=levelled(len(features), subject).astype(np.float32),
        features=tuple(features),
        frames=levelled(len(channels), np.repeat(subject, N_FRAMES)).astype(np.float32),
        channels=tuple(channels),
        tof=np.zeros((int(offsets[-1]), 0, 64), dtype=np.uint8),
        phase=np.full(int(offsets[-1]), 255, dtype=np.uint8),
    )


@dataclass(frozen=True)
class Chance:
    """A figure of shuffled labels, averaged over studies.

    Parameters
    ----------
    found
        What the predictions score.
    expected
        The mean over permutations of the labels.
    bound
        What an honest figure exceeds with a probability below `FALSE_ALARM`.
    """

    found: float
    expected: float
    bound: float


def chance(
    studies: Sequence[Mapping[str, OofScenario]],
    targets: Sequence[bool],
    figure: Callable[[OofScenario, Int64, Sequence[bool]], float],
) -> Chance:
    """Compare the out-of-fold predictions of several independent studies with chance.

    The bound is expected + z x deviation / n: the deviation is that of the sum of the n figures over permutations, and
    z the normal quantile of `FALSE_ALARM`.
    """
    found, expected, variance = [], [], []
    for number, parts in enumerate(studies):
        part = parts["all"]
        rng = np.random.default_rng(number)
        orders = [part.truth, *(_shuffled(part.truth, part.groups, rng) for _ in range(N_PERMUTATIONS))]
        figures = [np.mean([figure(each, truth, targets) for each in parts.values()]) for truth in orders]
        found.append(figures[0])
        expected.append(np.mean(figures[1:]))
        variance.append(np.var(figures[1:], ddof=1))
    deviation = float(np.sqrt(np.sum(variance)) / len(studies))
    middle = float(np.mean(expected))
    return Chance(float(np.mean(found)), middle, middle + float(norm.isf(FALSE_ALARM)) * deviation)


def _shuffled(labels: Int64, groups: Int64, rng: np.random.Generator) -> Int64:
    """Give each group the labels of another one, in any order; all groups are of one size."""
    order = np.argsort(groups, kind="stable")
    by_group = labels[order].reshape(int(groups.max()) + 1, -1)
    out = np.empty_like(labels)
    out[order] = rng.permuted(rng.permutation(by_group), axis=1).ravel()
    return out


def pooled_auc(part: OofScenario, truth: Int64, targets: Sequence[bool]) -> float:
    """Area under the ROC curve of target or not, over all sequences."""
    flags = np.asarray(targets)
    positive = flags[truth]
    ranks = rankdata(part.proba[:, flags].sum(axis=1))
    n = int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(truth) - n)))


def macro_f1(part: OofScenario, truth: Int64, targets: Sequence[bool]) -> float:
    """Macro F1 over gestures of the predictions."""
    return hierarchical_f1(truth, part.predicted, targets).gesture_macro_f1


def score(part: OofScenario, truth: Int64, targets: Sequence[bool]) -> float:
    """The headline score of the predictions."""
    return hierarchical_f1(truth, part.predicted, targets).score
