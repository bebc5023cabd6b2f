"""Look into any folder of ours: summaries as data, which `cli` draws or prints as JSON.

Every view opens the folder through `folders.open_folder`, so that it says what is wrong before it shows anything, and
works on what is there: a view that needs something the folder does not have says what is missing and why.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bfrbctl import oof
from bfrbctl.blending import subject_interval
from bfrbctl.dataset import CATALOGUE, INDEX
from bfrbctl.errors import DataError
from bfrbctl.folders import Folder, open_folder
from bfrbctl.metrics import hierarchical_f1
from bfrbctl.oof import OofScenario
from bfrbctl.schema import GESTURE, NON_TARGET, ORIENTATION, SCENARIOS, SEQUENCE_ID, SUBJECT
from bfrbctl.storage import decode_parquet

TOP = 20


@dataclass(frozen=True)
class Table:
    """Rows to show under a title; cells are str, int, float or None."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    @property
    def records(self) -> list[dict[str, Any]]:
        """The rows as JSON objects."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(frozen=True)
class View:
    """What there is to see in a folder.

    Parameters
    ----------
    title
        What is shown of what.
    facts
        Headline figures by name.
    tables
        Details.
    notes
        What is missing, and why.
    """

    title: str
    facts: Mapping[str, Any]
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Give everything as JSON values."""
        return {
            "title": self.title,
            "facts": dict(self.facts),
            "tables": {table.title: table.records for table in self.tables},
            "notes": list(self.notes),
        }


def inspect(what: str, path: Path) -> View:
    """Make the view `what`, one of `VIEWS`, of a folder.

    Raises
    ------
    ArtefactError
        When the folder is damaged, unsafe, or of a kind that has no such view.
    DataError
        When the folder is of the right kind and has nothing of that to show; says what is missing.
    """
    kinds, make = VIEWS[what]
    return make(open_folder(path, *kinds))


# --------------------------------------------------------------------------------------------------------- dataset


def _dataset(folder: Folder) -> View:
    sequences = folder.read_parquet("sequences.parquet")
    quality = folder.read_parquet("quality.parquet")
    content = folder.content
    lengths = sequences["n_frames"]
    facts = {
        "sequences": sequences.height,
        "frames": content["n_frames"],
        "subjects": sequences[SUBJECT].n_unique(),
        "gestures": len(content["classes"]),
        "targets": sum(content["targets"]),
        "rate_hz": content["rate_hz"],
        "thermopiles": len(content["thm"]),
        "tof_sensors": len(content["tof"]),
        "frames_a_sequence": "{:.0f} to {:.0f}, median {:g}".format(
            *np.quantile(lengths.to_numpy(), [0, 1, 0.5]).tolist()
        ),
    }
    tables = [_splits(sequences), _gestures(sequences, content), _fold_balance(sequences), _findings(quality)]
    notes = [] if content["classes"] else ["no gesture labels: this dataset can be predicted, not trained on"]
    return View(f"dataset {folder.path.name}", facts, tuple(t for t in tables if t.rows), tuple(notes))


def _splits(sequences: pl.DataFrame) -> Table:
    rows = []
    for split, part in sequences.group_by("split", maintain_order=True):
        shares = [float(part[flag].mean() or 0.0) for flag in ("has_rot", "has_thm", "has_tof")]  # type: ignore[arg-type]
        rows.append((str(split[0]), part.height, part[SUBJECT].n_unique(), int(part["n_frames"].sum()), *shares))
    return Table(
        "splits", ("split", "sequences", "subjects", "frames", "with rotation", "with thm", "with tof"), tuple(rows)
    )


def _gestures(sequences: pl.DataFrame, content: Mapping[str, Any]) -> Table:
    counts = (
        sequences.drop_nulls(GESTURE)
        .group_by(GESTURE)
        .agg(
            pl.len(),
            pl.col(SUBJECT).n_unique(),
            pl.col(ORIENTATION).n_unique().alias("orientations"),
            pl.col("n_frames").median(),
        )
        .sort(GESTURE)
    )
    target = dict(zip(content["classes"], content["targets"], strict=True))
    rows = tuple((row[0], "target" if target[row[0]] else "", *row[1:]) for row in counts.iter_rows())
    return Table("gestures", (GESTURE, "kind", "sequences", "subjects", "orientations", "median frames"), rows)


def _fold_balance(sequences: pl.DataFrame) -> Table:
    counts = (
        sequences.drop_nulls("fold")
        .group_by("fold")
        .agg(pl.len(), pl.col(SUBJECT).n_unique(), pl.col(GESTURE).n_unique())
        .sort("fold")
    )
    return Table("folds", ("fold", "sequences", "subjects", "gestures"), tuple(counts.iter_rows()))


def _findings(quality: pl.DataFrame) -> Table:
    counts = (
        quality.group_by("column", "problem", "action")
        .agg(pl.col(SEQUENCE_ID).n_unique().alias("sequences"), pl.col("n_frames").sum())
        .sort("sequences", "column", "problem", descending=[True, False, False])
    )
    return Table("findings", ("column", "problem", "action", "sequences", "frames"), tuple(counts.iter_rows()))


# -------------------------------------------------------------------------------------------------------- features


def _features(folder: Folder) -> View:
    catalogue = folder.read_parquet(CATALOGUE)
    index = folder.read_parquet(INDEX)
    content = folder.content
    facts = {
        "sequences": index.height,
        "labelled": index[GESTURE].drop_nulls().len(),
        "sequence_features": content["n_features"],
        "frame_channels": content["n_channels"],
        "tof_images": "yes" if content["tof"] and folder.config.get("tof_images") else "no",
        "rate_hz": content["rate_hz"],
    }
    by_family = catalogue.group_by("table", "family", "modality").len().sort("table", "family", "modality")
    tables = [Table("columns", ("table", "family", "modality", "columns"), tuple(by_family.iter_rows()))]
    notes = []
    if content["n_features"]:
        tables += _feature_tables(folder.read_parquet("sequences.parquet").drop(SEQUENCE_ID))
    else:
        notes.append("no sequence table (featurized --for keras): trees cannot be trained on this folder")
    return View(f"features {folder.path.name}", facts, tuple(t for t in tables if t.rows), tuple(notes))


def _feature_tables(table: pl.DataFrame) -> list[Table]:
    nulls = table.null_count().row(0)
    shares = sorted(zip(table.columns, nulls, strict=True), key=lambda pair: (-pair[1], pair[0]))
    empty = tuple((name, count / table.height) for name, count in shares[:TOP] if count)
    constant = [name for name in table.columns if table[name].drop_nulls().n_unique() <= 1]
    return [
        Table("most often null", ("feature", "null share"), empty),
        Table("constant", ("feature",), tuple((name,) for name in constant[:TOP])),
    ]


# ------------------------------------------------------------------------------------------------------------- oof


def _oof(folder: Folder) -> View:
    scenarios = oof.read_oof(folder)
    classes, targets = folder.content["classes"], folder.content["targets"]
    summary = oof.summarise(scenarios, targets, classes)
    facts: dict[str, Any] = {"score": summary["score"], "sequences": len(scenarios[SCENARIOS[0]].truth)}
    rows = []
    for scenario, part in scenarios.items():
        told = summary["scenarios"][scenario]
        low, high = subject_interval(part.proba, part, targets, seed=0)
        rows.append(
            (
                scenario,
                told["score"],
                low,
                high,
                told["binary_f1"],
                told["macro_f1"],
                told["gesture_macro_f1"],
                told["log_loss"],
            )
        )
    columns = ("scenario", "score", "low 95", "high 95", "binary F1", "macro F1", "gesture F1", "log-loss")
    tables = [
        Table("scores", columns, tuple(rows)),
        _by_class(scenarios, classes, targets),
        Table("folds", ("fold", *SCENARIOS), tuple(tuple(row.values()) for row in summary["folds"])),
        _by_subject(scenarios, targets),
    ]
    return View(f"out-of-fold predictions of {folder.path.name}", facts, tuple(tables))


def _by_class(scenarios: Mapping[str, OofScenario], classes: Sequence[str], targets: Sequence[bool]) -> Table:
    """Precision, recall and F1 of each target and of the merged non-target class, both scenarios side by side."""
    lookup = np.array([name if target else NON_TARGET for name, target in zip(classes, targets, strict=True)])
    rows = []
    for name in [*(c for c, target in zip(classes, targets, strict=True) if target), NON_TARGET]:
        cells: list[Any] = [name, int((lookup[scenarios[SCENARIOS[0]].truth] == name).sum())]
        for part in scenarios.values():
            truth = lookup[part.truth] == name
            predicted = lookup[np.argmax(part.proba, axis=1)] == name
            hits = int((truth & predicted).sum())
            cells += [_ratio(hits, int(predicted.sum())), _ratio(hits, int(truth.sum()))]
            cells.append(_ratio(2 * hits, int(truth.sum() + predicted.sum())))
        rows.append(tuple(cells))
    columns = [f"{figure} {scenario}" for scenario in scenarios for figure in ("precision", "recall", "F1")]
    return Table("classes", ("class", "sequences", *columns), tuple(rows))


def _by_subject(scenarios: Mapping[str, OofScenario], targets: Sequence[bool]) -> Table:
    """List the subjects with the lowest scores."""
    people = scenarios[SCENARIOS[0]].keys[SUBJECT].to_numpy()
    rows: list[tuple[Any, ...]] = []
    for subject in np.unique(people):
        held = people == subject
        scores = []
        for part in scenarios.values():
            predicted = np.argmax(part.proba[held], axis=1).astype(np.int64)
            scores.append(hierarchical_f1(part.truth[held], predicted, targets).score)
        rows.append((str(subject), int(held.sum()), *scores))
    rows.sort(key=lambda row: (sum(row[2:]), row[0]))
    return Table("subjects, worst first", (SUBJECT, "sequences", *SCENARIOS), tuple(rows[:10]))


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


# ----------------------------------------------------------------------------------------------- feature importance


def _importance(folder: Folder) -> View:
    names = folder.names(r"(member-\d+\.)?importance\.parquet")
    if not names:
        raise DataError(
            f"{folder.path}: has no feature importances, since no tree model is in it ({_models(folder)})",
            hint="inspect the folder of a LightGBM model, or a blend with one in it",
        )
    parts = [decode_parquet(folder.read(name), str(folder.path / name)) for name in names]
    table = pl.concat(parts)
    n_folds = table["fold"].n_unique() * len(parts)
    total = float(table["gain"].sum()) or 1.0
    columns = [pl.col("gain").sum() / total, pl.col("split").sum()]
    by_feature = (
        table.group_by("feature", "family", "modality")
        .agg(*columns, (pl.col("gain") > 0).sum().alias("folds"))
        .sort("gain", "feature", descending=[True, False])
    )
    tables = [
        Table(
            "features",
            ("feature", "family", "modality", "gain share", "splits", "used in folds"),
            tuple(by_feature.head(TOP).iter_rows()),
        ),
    ]
    for group in ("family", "modality"):
        grouped = (
            table.group_by(group)
            .agg(*columns, pl.col("feature").n_unique().alias("n"))
            .sort("gain", group, descending=[True, False])
        )
        tables.append(Table(f"by {group}", (group, "gain share", "splits", "features"), tuple(grouped.iter_rows())))
    used = by_feature.filter(pl.col("gain") > 0).height
    facts = {"tree models": n_folds, "features": by_feature.height, "features used": used}
    notes = [] if len(names) == _n_members(folder) else ["members without trees have no importances"]
    return View(f"feature importance of {folder.path.name}", facts, tuple(tables), tuple(notes))


def _models(folder: Folder) -> str:
    if folder.kind == "model":
        return f"it is a {folder.content['model']} model"
    return f"its members are {', '.join(map(str, folder.content['members']))}"


def _n_members(folder: Folder) -> int:
    return len(folder.content["members"]) if folder.kind == "blend" else 1


# ----------------------------------------------------------------------------------------------------------- blend


def _blend(folder: Folder) -> View:
    weights, metrics = folder.read_json("weights.json"), folder.read_json("metrics.json")
    rows = []
    for number, name in enumerate(weights["members"]):
        cells: list[Any] = [name]
        for scenario in SCENARIOS:
            mixture = weights["scenarios"][scenario]
            score = metrics["members"][name][scenario]["score"]
            cells += [mixture["weights"][number], mixture["temperatures"][number], score]
        rows.append(tuple(cells))
    columns = [f"{what} {scenario}" for scenario in SCENARIOS for what in ("weight", "temperature", "score")]
    scores = [
        (
            scenario,
            metrics["scenarios"][scenario]["score"],
            *metrics["interval"][scenario],
            metrics["optimistic"][scenario]["score"],
        )
        for scenario in SCENARIOS
    ]
    facts = {
        "score": metrics["score"],
        "best_member": metrics["best_member"],
        "gain_over_best_member": metrics["gain"],
        "pooling": weights["scenarios"][SCENARIOS[0]]["pooling"],
    }
    tables = (
        Table("members", ("member", *columns), tuple(rows)),
        Table("scores", ("scenario", "nested (honest)", "low 95", "high 95", "in-sample (optimistic)"), tuple(scores)),
    )
    notes = () if metrics["gain"] > 0 else (f"the blend does not beat {metrics['best_member']}",)
    return View(f"blend {folder.path.name}", facts, tables, notes)


# ------------------------------------------------------------------------------------------------------ predictions


def _predictions(folder: Folder) -> View:
    table = folder.read_parquet("predictions.parquet")
    content = folder.content
    target = dict(zip(content["classes"], content["targets"], strict=True))
    best = table.select(pl.max_horizontal(oof.proba_columns(len(content["classes"])))).to_series()
    facts: dict[str, Any] = {
        "sequences": table.height,
        "answered with the prior": content["n_problems"],
        "mean target probability": float(table["target_proba"].mean() or 0.0),  # type: ignore[arg-type]
        "mean top probability": float(best.mean() or 0.0),  # type: ignore[arg-type]
    }
    notes = []
    if "score" in content:
        facts |= dict(content["score"])
    else:
        notes.append("the input had no labels: there is nothing to score against")
    counts = table.group_by(GESTURE).len().sort("len", GESTURE, descending=[True, False])
    rows = tuple((name, "target" if target.get(name) else "", n, n / table.height) for name, n in counts.iter_rows())
    return View(
        f"predictions {folder.path.name}",
        facts,
        (Table("gestures", (GESTURE, "kind", "sequences", "share"), rows),),
        tuple(notes),
    )


VIEWS: Mapping[str, tuple[tuple[str, ...], Callable[[Folder], View]]] = {
    "dataset": (("dataset",), _dataset),
    "features": (("features",), _features),
    "oof": (("model", "blend"), _oof),
    "feature-importance": (("model", "blend"), _importance),
    "blend": (("blend",), _blend),
    "predictions": (("predictions",), _predictions),
}
"""View -> the kinds of folder it reads, and how it is made."""
