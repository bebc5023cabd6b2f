"""Views of trained models: how they learned, what trees use, and what each member of a blend adds."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from bfrbctl.arrays.ragged import Float32, Float64, Int64
from bfrbctl.artefacts.files import parse_json
from bfrbctl.artefacts.folders import Folder
from bfrbctl.ensemble.blending import notes_of, read_mixtures
from bfrbctl.ensemble.decoding import RULES, decide
from bfrbctl.ensemble.mixing import Mixture
from bfrbctl.errors import ArtefactError, DataError, UsageError, examples
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.bootstrap import score_intervals
from bfrbctl.evaluation.classes import gesture_space, read_class_space
from bfrbctl.evaluation.metrics import has_two_sides, headline, hierarchical_f1, score_column, score_name
from bfrbctl.evaluation.oof import OofScenario
from bfrbctl.features.folder import read_features
from bfrbctl.inspection.figures import Bars, Lines, Series
from bfrbctl.inspection.options import Options
from bfrbctl.inspection.view import Table, View, filled, for_each
from bfrbctl.inspection.views.scores import matching_index
from bfrbctl.models.interface import model_kind
from bfrbctl.recordings.dataset import FeatureBatch
from bfrbctl.schema import ALL_SENSORS, SCENARIOS, scenarios_of
from bfrbctl.training.fold_results import HISTORY, METRICS
from bfrbctl.training.step_choice import selection_line

TOP = 20
_OF_MEMBER = r"(member-(?P<number>\d+)\.)?"


def _member_name(folder: Folder, file: str) -> str:
    """Name the model that a file belongs to: the folder itself, or the member of a blend."""
    match = re.match(_OF_MEMBER, file)
    number = match["number"] if match else None
    return folder.path.name if number is None else str(folder.content["members"][int(number)])


def _kinds(folder: Folder) -> str:
    if folder.kind == "model":
        return f"it is a {folder.content['model']} model"
    return f"its members are {', '.join(map(str, folder.content['members']))}"


# -------------------------------------------------------------------------------------------------------- training


def training_view(folder: Folder, _: Options) -> View:
    """Show how the scores of both scenarios grew in every fold, the scores after the last step, and the seconds."""
    names = folder.names(rf"{_OF_MEMBER}{re.escape(HISTORY)}")
    if not names:
        raise DataError(
            f"{folder.path}: has no training history", hint="inspect the folders of the models that were blended"
        )
    tables, figures, facts = [], [], {}
    scenarios, score = scenarios_of(folder.content), score_column(folder.content["targets"])
    for name in names:
        who = _member_name(folder, name)
        rows = _history(folder, name)
        by_run: dict[tuple[Any, Any], list[dict[str, Any]]] = {}
        for row in rows:
            by_run.setdefault((row.get("fold"), row.get("seed", row.get("member", 0))), []).append(row)
        each = scenarios if len(scenarios) > 1 else ()
        found = tuple(_run_row(fold, run, steps, each) for (fold, run), steps in by_run.items())
        columns = ("fold", "run", "steps", f"last {score}", *(f"last {s}" for s in each), "seconds")
        tables.append(Table(f"training of {who}", columns, found))
        last = [row[3] for row in found if row[3] is not None]
        facts[f"mean last {score} {who}"] = float(np.mean(last)) if last else None
        figures += [figure for figure in (_curves(who, by_run, scenarios),) if figure.series]
    notes = [] if figures else ["the history has no scores by scenario: there is no curve to draw"]
    notes += _selection_notes(folder)
    return View(f"training of {folder.path.name}", facts, filled(*tables), tuple(notes), tuple(figures))


def _selection_notes(folder: Folder) -> tuple[str, ...]:
    """Say which steps a finished model kept, and why; nothing of blends and of models that an earlier version made."""
    if folder.kind != "model" or METRICS not in folder.files:
        return ()
    try:
        selection = folder.read_json(METRICS).get("selection")
        return (selection_line(selection),) if selection is not None else ()
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise ArtefactError(
            f"{folder.path / METRICS}: does not say how many steps were kept ({error!r})",
            hint="train again, or download the folder again",
        ) from error


def _history(folder: Folder, name: str) -> list[dict[str, Any]]:
    rows = [parse_json(line, str(folder.path / name)) for line in folder.read(name).splitlines() if line]
    if not all(isinstance(row, dict) for row in rows):
        raise ArtefactError(f"{folder.path / name}: holds something else than objects")
    for row in rows:
        strange = [key for key in row if _is_number(key) and type(row[key]) not in (int, float, type(None))]
        if strange or "step" not in row:
            what = f"{strange[0]} is {str(row[strange[0]])[:60]}, expected a number" if strange else "a row has no step"
            raise ArtefactError(f"{folder.path / name}: {what}", hint="train again, or download the folder again")
    return rows


def _is_number(key: str) -> bool:
    """Whether a column of the history holds numbers that we show."""
    return key in ("fold", "seed", "member", "step", "seconds") or key.startswith("score")


def _run_row(fold: Any, run: Any, steps: Sequence[Mapping[str, Any]], scenarios: Sequence[str]) -> tuple[Any, ...]:
    scored = [row for row in steps if isinstance(row.get("score"), float)]
    last = scored[-1] if scored else {}
    return (
        fold,
        run,
        steps[-1].get("step"),
        last.get("score"),
        *(last.get(f"score_{scenario}") for scenario in scenarios),
        _seconds(steps),
    )


def _seconds(steps: Sequence[Mapping[str, Any]]) -> float | None:
    """Give how long a run took: rows of trees (which name a seed) count from its start, those of nets by epoch."""
    seconds = [float(row["seconds"]) for row in steps if isinstance(row.get("seconds"), int | float)]
    if not seconds:
        return None
    return max(seconds) if "seed" in steps[0] else sum(seconds)


def _curves(who: str, by_run: Mapping[tuple[Any, Any], Sequence[Mapping[str, Any]]], scenarios: Sequence[str]) -> Lines:
    series = []
    for (fold, run), steps in by_run.items():
        for scenario, label in zip(scenarios, for_each(scenarios, f"fold {fold}"), strict=True):
            pairs = ((row["step"], row.get(f"score_{scenario}")) for row in steps)
            points = [(step, score) for step, score in pairs if None not in (step, score)]
            if points and run == 0:
                x, y = zip(*points, strict=True)
                colour = fold if isinstance(fold, int) else 0
                series.append(Series(label, x, y, colour, scenario != ALL_SENSORS))
    return Lines(f"Held-out score of {who} while training", "step", "score", tuple(series))


# ----------------------------------------------------------------------------------------------- feature importance


def importance_view(folder: Folder, options: Options) -> View:
    """Show what the trees use: gain and splits - and SHAP values when asked - by feature, family, modality and fold."""
    names, table = _read_importance(folder)
    measures = {"gain": table["gain"].to_numpy().astype(np.float64)}
    if options.shap:
        measures["SHAP"] = _shap(folder, names, table, options)
    facts: dict[str, Any] = {"tree models": table.select("file", "fold").unique().height}
    tables: list[Table] = []
    figures: list[Bars] = []
    for measure, values in measures.items():
        by_feature, shown, bars = _ranked(table, values, measure)
        facts |= {"features": len(by_feature), f"features_with_{measure}": sum(row[3] > 0 for row in by_feature)}
        tables += shown
        figures += bars
    notes = [] if len(names) == _n_members(folder) else ["members without trees have no importances"]
    if not options.shap:
        notes.append("SHAP values need the sequence table: give --shap --features FOLDER")
    return View(f"feature importance of {folder.path.name}", facts, tuple(tables), tuple(notes), tuple(figures))


def _read_importance(folder: Folder) -> tuple[list[str], pl.DataFrame]:
    """Read what every tree model of a folder uses: the files, and file, fold, feature, family, modality, gain, split.

    Raises
    ------
    DataError
        When no tree model is in the folder.
    ArtefactError
        When the numbers cannot be.
    """
    names = folder.names(rf"{_OF_MEMBER}importance\.parquet")
    if not names:
        raise DataError(
            f"{folder.path}: has no feature importances, since no tree model is in it ({_kinds(folder)})",
            hint="inspect the folder of a LightGBM model, or a blend with one in it",
        )
    columns = ("feature", "gain", "split", "fold", "family", "modality")
    parts = [folder.read_parquet(name).select(*columns, pl.lit(name).alias("file")) for name in names]
    table = pl.concat(parts).sort("file", "fold", "feature")
    strange = table.filter(~pl.col("split").is_between(0, 2**31))["split"].to_list()
    if strange:
        raise ArtefactError(f"{folder.path}: {examples(strange)} splits cannot be, expected 0 to {2**31}")
    return names, table


def features_by_gain(folder: Folder) -> Table:
    """Rank the features of the tree models of a folder by their mean share of the gain, the largest first.

    Raises
    ------
    DataError
        When no tree model is in the folder.
    """
    table = _read_importance(folder)[1]
    return _ranked(table, table["gain"].to_numpy().astype(np.float64), "gain")[1][0]


def _n_members(folder: Folder) -> int:
    return len(folder.content["members"]) if folder.kind == "blend" else 1


def _ranked(
    table: pl.DataFrame, values: Float64, measure: str
) -> tuple[list[tuple[Any, ...]], list[Table], list[Bars]]:
    """Rank features, families and modalities by their share, each model counting the same."""
    models = table.select(pl.struct("file", "fold").rank("dense")).to_series().to_numpy().astype(np.int64) - 1
    totals = np.bincount(models, values)
    n_models = len(totals)
    shares = values / np.where(totals > 0, totals, 1.0)[models]
    splits = table["split"].to_numpy()
    found: dict[str, list[tuple[Any, ...]]] = {}
    for group in ("feature", "family", "modality"):
        keys, place = np.unique(table[group].fill_null("unknown").to_numpy(), return_inverse=True)
        by_model = np.zeros((len(keys), n_models))
        np.add.at(by_model, (place, models), shares)
        n_splits = np.bincount(place, splits, minlength=len(keys)).astype(np.int64)
        mean, low, high = by_model.mean(axis=1), by_model.min(axis=1), by_model.max(axis=1)
        rows = zip(
            keys.tolist(),
            mean.tolist(),
            n_splits.tolist(),
            (by_model > 0).sum(axis=1).tolist(),
            low.tolist(),
            high.tolist(),
            strict=True,
        )
        found[group] = sorted(((k, m, s, n, lo, hi) for k, m, s, n, lo, hi in rows), key=lambda row: (-row[1], row[0]))
    kinds = {row[0]: row[1:] for row in table.select("feature", "family", "modality").unique("feature").iter_rows()}
    features = [(row[0], *kinds[row[0]], *row[1:]) for row in found["feature"]]
    columns = ("splits", "used in models", "least in a model", "most in a model")
    share = f"{measure} share"
    tables = [
        Table(f"features by {measure}", ("feature", "family", "modality", share, *columns), tuple(features), top=TOP)
    ]
    tables += [
        Table(f"{group} by {measure}", (group, share, *columns), tuple(found[group]))
        for group in ("family", "modality")
    ]
    bars = [_share_bars(found[group][:15], group, measure) for group in ("feature", "family")]
    return [(row[0], row[1], row[2], row[3]) for row in features], tables, bars


def _share_bars(rows: Sequence[tuple[Any, ...]], group: str, measure: str) -> Bars:
    return Bars(
        f"Importance by {group}, {measure}; whiskers are the range over folds",
        f"share of {measure}",
        tuple(str(row[0]) for row in rows),
        ((measure, tuple(row[1] for row in rows)),),
        tuple((row[4], row[5]) for row in rows),
    )


def _shap(folder: Folder, names: Sequence[str], table: pl.DataFrame, options: Options) -> Float64:
    """Mean absolute SHAP value of each row of the importance table, on a sample of what its fold held out."""
    if options.features is None or options.features.kind != "features":
        raise UsageError(
            "--shap: needs the sequence table", hint="give --features with the feature folder of the training"
        )
    matching_index(oof.read_oof(folder)[ALL_SENSORS].keys, options.features)
    index, batch = read_features(options.features, parts=frozenset({"table"}))
    folds = index["fold"].to_numpy()
    values: dict[tuple[str, int, str], float] = {}
    for name in names:
        prefix = name.removesuffix("importance.parquet")
        for fold in table.filter(pl.col("file") == name)["fold"].unique().sort().to_list():
            held = np.flatnonzero(folds == fold)
            rng = np.random.default_rng([options.seed, fold])
            chosen = np.sort(rng.permutation(held)[: options.sample])
            for feature, value in _fold_shap(folder, f"{prefix}fold-{fold}.", batch.take(chosen)).items():
                values[name, fold, feature] = value
    keys = table.select("file", "fold", "feature").rows()
    strange = [key[2] for key in keys if key not in values]
    if strange:
        raise ArtefactError(f"{folder.path}: no tree model has the feature {examples(strange)} of its importances")
    return np.array([values[key] for key in keys], dtype=np.float64)


def _fold_shap(folder: Folder, prefix: str, batch: FeatureBatch) -> dict[str, float]:
    member = prefix.partition("fold-")[0]
    content = folder.read_json(f"{member.removesuffix('.')}.json")["content"] if member else folder.content
    classes = read_class_space(content, what=str(folder.path)).classes
    files = {name.removeprefix(prefix): folder.read(name) for name in folder.names(rf"{re.escape(prefix)}lgbm.*")}
    model: Any = model_kind("lgbm").load(files, classes=classes)
    if not batch.n_sequences:
        raise DataError(f"{folder.path}: the feature folder has no sequence that {prefix}* held out")
    mean = np.abs(model.contributions(batch)).mean(axis=(0, 2))
    return dict(zip(model.features, mean.tolist(), strict=True))


# ----------------------------------------------------------------------------------------------------------- blend


def blend_view(folder: Folder, options: Options) -> View:
    """Show weights, temperatures, scores of the members and of the blend, and what each member adds."""
    scenarios, metrics = scenarios_of(folder.content), folder.read_json(METRICS)
    targets = folder.content["targets"]
    mixtures = {scenario: mixture for scenario, mixture in read_mixtures(folder).items() if scenario in scenarios}
    names = [str(name) for name in folder.content["members"]]
    try:
        members = _member_scores(names, mixtures, metrics, targets)
        scores = _blend_scores(metrics, _intervals(folder, metrics, options), scenarios, targets)
        decoding = _decoding(metrics, scenarios, targets)
        facts = {**_gain(metrics, names, targets), "pooling": mixtures[ALL_SENSORS].pooling}
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"{folder.path / METRICS}: lacks the scores of a blend ({error!r})",
            hint="blend again, or download the folder again",
        ) from error
    notes = [] if facts["gain_over_best_member"] > 0 else [f"the blend does not beat {facts['best_member']}"]
    notes += notes_of(metrics)
    removed = _removed(folder, names, mixtures)
    if removed is None and len(names) > 1:
        notes.append("what each member adds is not known: this blend was written without its members' predictions")
    tables = (members, scores, *decoding, *([removed] if removed else []))
    figures = [_weight_bars(names, mixtures)]
    figures += [_removed_bars(removed, scenarios, score_name(targets))] if removed else []
    return View(f"blend {folder.path.name}", facts, filled(*tables), tuple(notes), tuple(figures))


def _gain(metrics: Mapping[str, Any], names: Sequence[str], targets: Sequence[bool]) -> dict[str, Any]:
    """Give the headline figure of a blend, and how far it is ahead of its best member."""

    def mean(scores: Mapping[str, Any]) -> float:
        return oof.mean_score([headline(scores[scenario], targets) for scenario in SCENARIOS])

    score, each = mean(metrics["scenarios"]), {name: mean(metrics["members"][name]) for name in names}
    best = max(names, key=lambda name: each[name])
    return {score_name(targets): score, "best_member": best, "gain_over_best_member": score - each[best]}


def _intervals(folder: Folder, metrics: Mapping[str, Any], options: Options) -> Mapping[str, Any]:
    """Give the interval of each scenario's headline figure; earlier versions kept that of another where it differs."""
    if "headline" in metrics or has_two_sides(folder.content["targets"]):
        return dict(metrics["interval"])
    return score_intervals(oof.read_oof(folder), gesture_space(folder.content), seed=options.seed)


def _decoding(metrics: Mapping[str, Any], scenarios: Sequence[str], targets: Sequence[bool]) -> list[Table]:
    """Scores of the decoding rules, and of the assignment of joint labels where there is one; all nested.

    Where all classes are of one side there is one rule: the most probable gesture.
    """
    rows = []
    for scenario in scenarios if has_two_sides(targets) else ():
        rules = metrics["rules"][scenario]
        threshold = rules["threshold"]
        scores = [float(rules["scores"][rule]) for rule in RULES]
        by_group = list(dict(rules.get("by_group", {})).values())  # not in folders of earlier versions
        agree = f"{by_group.count(rules['chosen'])} of {len(by_group)}" if by_group else "-"
        rows.append((scenario, *scores, str(rules["chosen"]), agree, "-" if threshold is None else float(threshold)))
    about = ("scenario", *RULES, "chosen", "groups that chose it", "threshold")
    tables = [Table("decoding", about, tuple(rows))]
    assignment = []
    for scenario, scored in metrics["assignment"].items():
        if scenario in scenarios:
            orders = [headline(each, targets) for each in scored["orders"]]
            without = headline(metrics["scenarios"][scenario], targets)
            assignment.append((scenario, without, oof.mean_score(orders), *orders))
    if assignment:
        numbered = [f"order {number + 1}" for number in range(len(assignment[0]) - 3)]
        columns = ("scenario", "without", "with, mean", *numbered)
        figure = "" if has_two_sides(targets) else f", {score_name(targets)}"
        tables.append(Table(f"causal assignment{figure}", columns, tuple(assignment)))
    return tables


def _member_scores(
    names: Sequence[str], mixtures: Mapping[str, Mixture], metrics: Mapping[str, Any], targets: Sequence[bool]
) -> Table:
    rows = []
    for number, name in enumerate(names):
        cells: list[Any] = [name]
        for scenario, mixture in mixtures.items():
            score = headline(metrics["members"][name][scenario], targets)
            cells += [mixture.weights[number], mixture.temperatures[number], score]
        rows.append(tuple(cells))
    columns = for_each(mixtures, "weight", "temperature", score_column(targets))
    return Table("members", ("member", *columns), tuple(rows))


def _blend_scores(
    metrics: Mapping[str, Any], intervals: Mapping[str, Any], scenarios: Sequence[str], targets: Sequence[bool]
) -> Table:
    rows = []
    for scenario in scenarios:
        low, high = map(float, intervals[scenario])
        nested, optimistic = (headline(metrics[key][scenario], targets) for key in ("scenarios", "optimistic"))
        rows.append((scenario, nested, low, high, optimistic))
    columns = ("scenario", "nested (honest)", "low 95", "high 95", "in-sample (optimistic)")
    return Table("scores" if has_two_sides(targets) else score_name(targets), columns, tuple(rows))


def _removed(folder: Folder, names: Sequence[str], mixtures: Mapping[str, Mixture]) -> Table | None:
    """Score the blend without each member, the other weights scaled up; all in-sample, so that they compare."""
    tables = [_member_oof(folder, number) for number in range(len(names))]
    members = [table for table in tables if table is not None]
    if len(members) < len(names) or len(names) < 2:
        return None
    targets = folder.content["targets"]
    rows = []
    for number, name in enumerate(names):
        cells: list[Any] = [name]
        for scenario, mixture in mixtures.items():
            probas, truth = [member[scenario].proba for member in members], members[0][scenario].truth
            whole = _score(mixture, probas, truth, targets)
            rest = [i for i in range(len(names)) if i != number]
            without = _score(mixture.only(rest), [probas[i] for i in rest], truth, targets)
            cells += [without, whole - without]
        rows.append(tuple(cells))
    columns = for_each(mixtures, f"{score_column(targets)} without it", "it adds")
    return Table("what each member adds, in-sample", ("member", *columns), tuple(rows))


def _score(mixture: Mixture, probas: Sequence[Float32], truth: Int64, targets: Sequence[bool]) -> float:
    return hierarchical_f1(truth, decide(mixture.mix(probas), targets, mixture.threshold), targets).score


def _member_oof(folder: Folder, number: int) -> dict[str, OofScenario] | None:
    name = f"member-{number}.{oof.OOF}"
    if name not in folder.files:
        return None
    return oof.split_scenarios(folder.read_parquet(name), folder.content["classes"], what=str(folder.path / name))


def _weight_bars(names: Sequence[str], mixtures: Mapping[str, Mixture]) -> Bars:
    groups = tuple((f"scenario {scenario}", mixture.weights) for scenario, mixture in mixtures.items())
    return Bars("Weights of the members", "weight", tuple(names), groups)


def _removed_bars(table: Table, scenarios: Sequence[str], score: str) -> Bars:
    labels = tuple(row[0] for row in table.rows)
    groups = tuple(
        (f"scenario {scenario}", tuple(row[table.columns.index(name)] for row in table.rows))
        for scenario, name in zip(scenarios, for_each(scenarios, "it adds"), strict=True)
    )
    return Bars("What each member adds, in-sample", f"{score} lost without it", labels, groups)
