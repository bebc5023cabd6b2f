"""The tree member of the ensemble: LightGBM on the sequence table.

Each training sequence stands once with all sensors, and a drawn share of them a second time as an IMU-only device would
have seen it (modality dropout), so that one model serves both kinds of recordings. After every round the held-out
sequences are scored in both scenarios; from these curves the number of rounds is chosen for the other folds.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import joblib
import numpy as np

from bfrbctl.arrays.ragged import Float32, Float64, Int64
from bfrbctl.artefacts.files import parse_json
from bfrbctl.errors import ArtefactError, DataError, examples
from bfrbctl.evaluation.selection import Curve, mean_curve
from bfrbctl.models.interface import FoldTask, HistoryRow, Rehearsal
from bfrbctl.models.lightgbm.config import Config
from bfrbctl.models.lightgbm.fast_row import FastRow
from bfrbctl.models.lightgbm.library import lgb, silence
from bfrbctl.models.lightgbm.members import train_members
from bfrbctl.models.lightgbm.text import Trees, checked, first_rounds
from bfrbctl.recordings.dataset import Column, FeatureBatch
from bfrbctl.reprs import short_repr
from bfrbctl.schema import ALL_SENSORS, IMU_ONLY

__all__ = [
    "NEEDS",
    "Config",
    "Forest",
    "Importance",
    "LightGBMModel",
    "ensemble",
    "fit",
    "fit_member",
    "load",
    "load_step",
]

NEEDS = frozenset({"table"})
FORMAT = 1
FEW = 8
"""Up to so many rows the fast path of single rows answers sooner than a batch."""

SMALL_BATCH = 64
"""Up to so many rows one thread answers sooner than several."""

_ROUNDS_AFTER = "rounds_after"
"""Name in the summary of a model of all rounds: by seed, how many rounds of trees there are after every round."""


@dataclass(frozen=True)
class Importance:
    """How much each feature was used; one entry a feature, in the order of the table.

    Parameters
    ----------
    features
        Names.
    gain
        float64, (n_features,): loss saved by splits on it, averaged over seeds.
    split
        int64, (n_features,): splits on it, of all seeds.
    """

    features: tuple[str, ...]
    gain: Float64
    split: Int64

    __repr__ = short_repr


@dataclass(frozen=True)
class LightGBMModel:
    """A trained model of one fold: a few boosters whose probabilities are averaged.

    Parameters
    ----------
    classes
        Gesture names; the columns of every proba.
    features
        Names of the columns of the table, in order.
    selected
        int64: the columns that the boosters see; all of them unless `top_features` was set.
    texts
        Model texts, one a seed.
    trees
        What each text holds.
    boosters
        LightGBM's own form of the texts.
    summary
        Rounds, scores, sizes; JSON values only.
    history
        Rows reported while training; empty after `load`.
    curve
        Figures of the held-out sequences after every round, the mean over seeds; None after `load`.
    """

    classes: tuple[str, ...]
    features: tuple[str, ...]
    selected: Int64
    texts: tuple[bytes, ...]
    trees: tuple[Trees, ...]
    boosters: tuple[Any, ...]
    summary: Mapping[str, Any]
    history: list[HistoryRow] = field(default_factory=list)
    curve: Curve | None = None

    __repr__ = short_repr

    def predict_proba(self, batch: FeatureBatch) -> Float32:
        """Give the probability of each gesture: float32, (n_sequences, n_classes).

        A row's answer does not depend on what else is in the batch.

        Raises
        ------
        DataError
            When the batch has other features than the model was trained on.
        """
        self.check_features(batch.features)
        return self.answer(batch.table)

    def answer(self, table: Float32) -> Float32:
        """Give the probability of each gesture for rows whose features were checked: float32, (n_rows, n_classes)."""
        if len(table) == 0:
            return np.zeros((0, len(self.classes)), dtype=np.float32)
        seen = np.ascontiguousarray(table if self.sees_all else table[:, self.selected])
        n_threads = 1 if len(seen) <= SMALL_BATCH else joblib.cpu_count()
        total = np.zeros((len(seen), len(self.classes)))
        for booster in self.boosters:
            total += booster.predict(seen, num_threads=n_threads)
        return np.asarray(total / len(self.boosters), dtype=np.float32)

    def each_seed(self) -> list["LightGBMModel"]:
        """Give the boosters apart, a model each."""
        each = zip(self.texts, self.trees, self.boosters, strict=True)
        return [replace(self, texts=(text,), trees=(trees,), boosters=(booster,)) for text, trees, booster in each]

    def contributions(self, batch: FeatureBatch) -> Float64:
        """Give the SHAP value of each feature for each gesture, by LightGBM's own TreeSHAP.

        Returns
        -------
        float64, (n_sequences, n_features, n_classes): what the feature adds to the gesture's raw score (log-odds up to
        a constant), averaged over seeds; with the expectation that is left out here they sum to the raw score.

        Raises
        ------
        DataError
            When the batch has other features than the model was trained on.

        Notes
        -----
        Source: Lundberg et al., "From local explanations to global understanding with explainable AI for trees", 2020.
        """
        self.check_features(batch.features)
        n, n_seen, n_classes = batch.n_sequences, self.selected.size, len(self.classes)
        total = np.zeros((n, len(self.features), n_classes))
        if n == 0:
            return total
        table = np.ascontiguousarray(batch.table[:, self.selected])
        for booster in self.boosters:
            told = np.asarray(booster.predict(table, pred_contrib=True)).reshape(n, n_classes, n_seen + 1)
            total[:, self.selected] += told[:, :, :-1].transpose(0, 2, 1)
        return total / len(self.boosters)

    def encode(self) -> dict[str, bytes]:
        """Give the model as files: suffix -> content. Same model, same bytes."""
        about = {
            "format": FORMAT,
            "classes": list(self.classes),
            "features": list(self.features),
            "selected": None if self.sees_all else self.selected.tolist(),
            "summary": dict(self.summary),
        }
        files = dict(zip(_text_names(len(self.texts)), self.texts, strict=True))
        return {**files, "lgbm.json": json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False).encode()}

    def importance(self) -> Importance:
        """Give how much each feature was used."""
        gain = np.zeros(len(self.features))
        split = np.zeros(len(self.features), dtype=np.int64)
        for trees in self.trees:
            columns = self.selected[trees.split_feature]
            gain += np.bincount(columns, trees.split_gain, minlength=gain.size) / len(self.trees)
            split += np.bincount(columns, minlength=gain.size)
        return Importance(self.features, gain, split)

    @property
    def sees_all(self) -> bool:
        """Whether the boosters see all columns of the table."""
        return self.selected.size == len(self.features)

    def check_features(self, columns: Sequence[Column]) -> None:
        """Raise DataError when a table has other columns than the model was trained on."""
        names = tuple(column.name for column in columns)
        if names == self.features:
            return
        known, given = set(self.features), set(names)
        missing = [name for name in self.features if name not in given]
        extra = [name for name in names if name not in known]
        hint = "compute the features with the version and the settings the model was trained with"
        if missing:
            raise DataError(f"{len(missing)} features of the model are missing: {examples(missing)}", hint=hint)
        if extra:
            raise DataError(f"{len(extra)} features that the model does not know: {examples(extra)}", hint=hint)
        place = next((i for i, pair in enumerate(zip(names, self.features, strict=False)) if pair[0] != pair[1]), -1)
        raise DataError(
            f"feature {place} is {names[place]!r}, the model expects {self.features[place]!r} there", hint=hint
        )


class Forest:
    """The LightGBM member's ensemble: the average of its folds, bit for bit, without looking at all twice.

    Parameters
    ----------
    models
        One a fold.
    """

    def __init__(self, models: Sequence[LightGBMModel]) -> None:
        self.models = tuple(models)
        self._checked: Sequence[Column] | None = None
        self._rows = [
            [
                FastRow(booster, n_features=model.selected.size, n_classes=len(model.classes))
                for booster in model.boosters
            ]
            for model in self.models
        ]

    def predict_proba(self, batch: FeatureBatch) -> Float32:
        """Average the folds: float32, (n_sequences, n_classes).

        Raises
        ------
        DataError
            When the batch has other features than a fold was trained on.
        """
        if batch.features is not self._checked:  # columns of the same settings are the same object
            for model in self.models:
                model.check_features(batch.features)
            self._checked = batch.features
        if 0 < batch.n_sequences <= FEW:
            return np.stack([self._row(row) for row in batch.table])
        total = np.zeros((batch.n_sequences, 1), dtype=np.float64)
        for model in self.models:
            total = total + model.answer(batch.table)
        return (total / len(self.models)).astype(np.float32)

    def _row(self, row: Float32) -> Float32:
        total = np.zeros(1, dtype=np.float64)
        for model, boosters in zip(self.models, self._rows, strict=True):
            seen = np.ascontiguousarray(row if model.sees_all else row[model.selected])
            fold = np.zeros(len(model.classes))
            for booster in boosters:
                fold += booster.predict(seen)
            total = total + (fold / len(boosters)).astype(np.float32)
        return np.asarray(total / len(self.models), dtype=np.float32)

    def warm(self) -> None:
        """Nothing is slow at first."""


def ensemble(models: Sequence[LightGBMModel]) -> Forest:
    """Put folds together: the same bits as asking each of them and averaging."""
    return Forest(models)


def fit(task: FoldTask, config: Config) -> LightGBMModel:
    """Train one fold.

    Bins, the ranking of `top_features`, and the weights see the training sequences only; the held-out ones are scored
    after every round and decide nothing. The model has all rounds, so every one of them is kept. The data is binned
    once for all seeds. The result depends on `task` and `config` but not on the number of threads. Of several seeds
    each is kept in `task.scratch`, and those that are there are not trained again.

    Raises
    ------
    DataError
        When there is nothing to learn from.
    UsageError
        When the configuration does not fit the data.
    """
    runs = train_members(task, config, range(config.seeds))
    features = tuple(column.name for column in task.train.features)
    selected, texts = runs[0].selected, tuple(run.text for run in runs)
    model = _assemble(task.classes, features, selected=selected, texts=texts, summary={})
    summary = {
        "rounds": [trees.n_rounds for trees in model.trees],
        "n_features": int(selected.size),
        "n_leaves": sum(trees.n_leaves for trees in model.trees),
        "n_rows": runs[0].n_rows,
        "quantized": [run.quantized for run in runs],
        **_final_scores(model, task),
    }
    if task.keep_steps:
        summary[_ROUNDS_AFTER] = [list(run.rounds) for run in runs]
    history = [row for run in runs for row in run.history]
    return replace(model, summary=summary, history=history, curve=mean_curve([run.curve for run in runs]))


def fit_member(task: FoldTask, config: Config, member: int) -> None:
    """Train one seed of a fold and leave it in `task.scratch` for `fit`; raises what that raises."""
    train_members(task, config, [member])


def rehearse(task: FoldTask, config: Config) -> Rehearsal:
    """Train a few steps of a fold and measure what they take; raises what `fit` raises."""
    module: Any = import_module("bfrbctl.models.lightgbm.rehearsal")
    found: Rehearsal = module.rehearse(task, config)
    return found


def load(files: Mapping[str, bytes], *, classes: tuple[str, ...]) -> LightGBMModel:
    """Rebuild a model from what `encode` gave.

    Raises
    ------
    ArtefactError
        When the bytes are not a sound model of these classes.
    """
    silence()
    about = _read_about(files, classes)
    texts = sorted(name for name in files if name != "lgbm.json")
    names = _text_names(len(texts))
    if not texts or texts != sorted(names):
        raise ArtefactError(f"model files are {examples(sorted(files))}, expected lgbm.json and lgbm.txt", hint=_HINT)
    selected = about["selected"]
    positions = np.array(range(len(about["features"])) if selected is None else selected, dtype=np.int64)
    contents = tuple(files[name] for name in names)
    return _assemble(classes, tuple(about["features"]), selected=positions, texts=contents, summary=about["summary"])


def load_step(files: Mapping[str, bytes], step: int, *, classes: tuple[str, ...]) -> LightGBMModel:
    """Rebuild a model as it was after so many rounds; its summary leaves out the scores, which are of all rounds.

    Raises
    ------
    ArtefactError
        When the bytes are not a sound model of these classes.
    """
    whole = load(files, classes=classes)
    rounds = _rounds_after(whole, step)
    each = zip(whole.texts, rounds, strict=True)
    texts = tuple(first_rounds(text, n_rounds, n_classes=len(classes)) for text, n_rounds in each)
    model = _assemble(classes, whole.features, selected=whole.selected, texts=texts, summary={})
    sizes = {
        "rounds": [trees.n_rounds for trees in model.trees],
        "n_leaves": sum(trees.n_leaves for trees in model.trees),
    }
    left_out = ("score", "logloss", _ROUNDS_AFTER)
    kept = {key: value for key, value in whole.summary.items() if not key.startswith(left_out)}
    return replace(model, summary={**kept, **sizes})


def _rounds_after(whole: LightGBMModel, step: int) -> list[int]:
    """Give by seed how many rounds of trees there were after so many rounds, of which some may have left none."""
    try:
        found = [after[min(step, len(after)) - 1] for after in whole.summary[_ROUNDS_AFTER]]
    except (KeyError, TypeError, IndexError):
        found = []
    if len(found) != len(whole.texts) or not all(type(each) is int and each > 0 for each in found):
        raise ArtefactError("lgbm.json does not tell what each round left: not a model of all rounds", hint=_HINT)
    return found


def _final_scores(model: LightGBMModel, task: FoldTask) -> dict[str, float]:
    """Score the averaged model on the held-out sequences."""
    proba = {ALL_SENSORS: model.predict_proba(task.valid), IMU_ONLY: model.predict_proba(task.valid.imu_only())}
    scores = {name: task.score(each).score for name, each in proba.items()}
    losses = {f"logloss_{name}": task.loss(each) for name, each in proba.items()}
    return {
        "score": float(np.mean(list(scores.values()))),
        **{f"score_{name}": value for name, value in scores.items()},
        **losses,
    }


def _assemble(
    classes: tuple[str, ...],
    features: tuple[str, ...],
    *,
    selected: Int64,
    texts: tuple[bytes, ...],
    summary: Mapping[str, Any],
) -> LightGBMModel:
    """Check every text, then hand it to the library."""
    names = _text_names(len(texts))
    trees = tuple(
        checked(text, n_features=selected.size, n_classes=len(classes), name=name)
        for name, text in zip(names, texts, strict=True)
    )
    try:
        boosters = tuple(lgb.Booster(model_str=text.decode("ascii")) for text in texts)
    except lgb.basic.LightGBMError as error:
        raise ArtefactError(f"LightGBM does not read {examples(names)}: {error}", hint=_HINT) from None
    return LightGBMModel(classes, features, selected, texts, trees, boosters, summary)


def _text_names(n_texts: int) -> list[str]:
    return ["lgbm.txt"] if n_texts == 1 else [f"lgbm-{i + 1}.txt" for i in range(n_texts)]


def _read_about(files: Mapping[str, bytes], classes: tuple[str, ...]) -> dict[str, Any]:
    """Read lgbm.json and check every value of it."""
    if "lgbm.json" not in files:
        raise ArtefactError("lgbm.json is missing", hint=_HINT)
    about = parse_json(files["lgbm.json"], "lgbm.json")
    if not isinstance(about, dict) or set(about) != {"format", "classes", "features", "selected", "summary"}:
        raise ArtefactError("lgbm.json does not describe a LightGBM member", hint=_HINT)
    if about["format"] != FORMAT:
        raise ArtefactError(f"lgbm.json has format {about['format']!r}, expected {FORMAT}", hint="update bfrbctl")
    names, selected = about["features"], about["selected"]
    if about["classes"] != list(classes):
        raise ArtefactError("lgbm.json is about other gestures than the rest of the folder", hint=_HINT)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ArtefactError("lgbm.json: features are no list of names", hint=_HINT)
    if len(set(names)) != len(names):
        raise ArtefactError("lgbm.json: a feature stands twice", hint=_HINT)
    if selected is not None and not _ascends(selected, len(names)):
        raise ArtefactError("lgbm.json: selected are no ascending positions of features", hint=_HINT)
    if not isinstance(about["summary"], dict):
        raise ArtefactError("lgbm.json: summary is no object", hint=_HINT)
    return about


def _ascends(positions: Any, n_features: int) -> bool:
    """Tell whether these are positions in ascending order, each at most once."""
    if not isinstance(positions, list) or not positions or not all(type(each) is int for each in positions):
        return False
    return positions == sorted(set(positions)) and positions[0] >= 0 and positions[-1] < n_features


_HINT = "the model is damaged or was edited; copy it again or train it anew"
