"""Views that any folder, or what was predicted, has: manifest, lineage, digests; predictions."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from bfrbctl.artefacts.files import file_sha256
from bfrbctl.artefacts.folders import Folder, open_folder
from bfrbctl.errors import ArtefactError, examples
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.metrics import has_two_sides, headline, score_name
from bfrbctl.inspection.figures import Bars
from bfrbctl.inspection.options import Options
from bfrbctl.inspection.view import Table, View, filled
from bfrbctl.prediction.submission import METRICS
from bfrbctl.schema import GESTURE

MAX_LEVELS = 10


def artefact_view(folder: Folder, options: Options) -> View:
    """Show manifest, lineage and versions, and check the digest of every file.

    Raises
    ------
    ArtefactError
        Naming the files that do not match the manifest.
    """
    manifest = folder.manifest
    changed = [name for name, entry in folder.files.items() if file_sha256(folder.path / name) != entry.sha256]
    if changed:
        raise ArtefactError(
            f"{folder.path}: {examples(changed)} does not match the manifest (sha256 differs)",
            hint="it was damaged or changed; make or download the folder again",
        )
    facts = {
        "kind": folder.kind,
        "digest": folder.sha256,
        "schema_version": manifest["schema_version"],
        "bfrbctl": manifest.get("bfrbctl"),
        "seed": manifest.get("seed"),
        "command": " ".join(map(str, manifest.get("command") or [])) or None,
        "bytes": sum(entry.size for entry in folder.files.values()),
        "files_verified": len(folder.files),
    }
    files = tuple((name, entry.size, entry.sha256) for name, entry in sorted(folder.files.items()))
    settings = tuple(_flat(folder.config))
    versions = tuple(sorted((str(k), str(v)) for k, v in (manifest.get("libraries") or {}).items()))
    lineage = tuple(_lineage(folder, 1, options.inputs))
    away = sorted({row[1] for row in lineage if row[4] == "not found beside it"})
    unknown = "its own inputs are not known; give the folder it lies in with --inputs DIR"
    notes = [f"{examples(away)} is not beside this folder: {unknown}"] if away else []
    tables = (
        Table("lineage", ("level", "input", "kind", "sha256", "where"), lineage),
        Table("settings", ("setting", "value"), settings),
        Table("versions", ("library", "version"), versions),
        Table("files", ("file", "bytes", "sha256"), files, top=200),
    )
    return View(f"artefact {folder.path.name}", facts, filled(*tables), tuple(notes))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Flatten nested settings: `settings.learning_rate`, and its value as text."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield f"{prefix}{key}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{key}", "" if value is None else str(value)


def _lineage(folder: Folder, level: int, inputs: Sequence[Path]) -> Iterator[tuple[int, str, str, str, str]]:
    """Follow the inputs, those of inputs too where a folder of that digest lies beside or in one of `inputs`."""
    if level > MAX_LEVELS:
        return
    for ref in folder.manifest["inputs"]:
        name, kind, digest = (str(ref.get(key)) if isinstance(ref, dict) else "" for key in ("name", "kind", "sha256"))
        found = None if kind == "file" else _find(folder, name, digest, inputs)
        where = "raw file" if kind == "file" else "not found beside it" if found is None else "found, same digest"
        yield level, name, kind, digest, where
        if found is not None:
            yield from _lineage(found, level + 1, inputs)


def _find(folder: Folder, name: str, digest: str, inputs: Sequence[Path]) -> Folder | None:
    """Find an input beside the folder or where the user says; None when it is not there or was made again.

    The manifest may be a stranger's: no path in it is opened, and a name only if it is a plain one.
    """
    places = list(inputs)
    if name not in ("", ".", "..") and Path(name).name == name:
        places += [place / name for place in (folder.path.resolve().parent, *inputs)]
    for place in places:
        try:
            found = open_folder(place)
        except (ArtefactError, OSError, ValueError):
            continue
        if found.sha256 == digest:
            return found
    return None


# ------------------------------------------------------------------------------------------------------ predictions


def predictions_view(folder: Folder, _: Options) -> View:
    """Show what was predicted, how sure, and the score where the input had labels."""
    table = folder.read_parquet("predictions.parquet")
    content = folder.content
    target = dict(zip(content["classes"], content["targets"], strict=True))
    best = table.select(pl.max_horizontal(oof.proba_columns(len(content["classes"])))).to_series()
    facts: dict[str, Any] = {"sequences": table.height, "answered with the prior": content["n_problems"]}
    notes = []
    if table.height:
        if has_two_sides(content["targets"]):
            facts["mean target probability"] = float(table["target_proba"].to_numpy().astype(float).mean())
        facts["mean top probability"] = float(best.to_numpy().astype(float).mean())
    else:
        notes.append("the input had no sequence: nothing was predicted")
    score, warnings = content.get("score", {}), content.get("warnings", [])
    facts |= _score_facts(score, content["targets"])
    if not score:
        notes.append("the input had no labels: there is nothing to score against")
    notes += map(str, warnings)
    counts = table.group_by(GESTURE).len().sort("len", GESTURE, descending=[True, False])
    rows = tuple((name, "target" if target.get(name) else "", n, n / table.height) for name, n in counts.iter_rows())
    sure = best.to_numpy().astype(float)
    bins = tuple(int(((sure > i / 10) & (sure <= (i + 1) / 10)).sum()) for i in range(10))
    problems = folder.read_parquet("problems.parquet") if "problems.parquet" in folder.files else pl.DataFrame()
    tables = (
        Table("gestures", (GESTURE, "kind", "sequences", "share"), rows),
        _scored_gestures(folder, target),
        Table("problems", tuple(problems.columns), tuple(problems.iter_rows()), top=20),
    )
    figures = (
        Bars("Predicted gestures", "sequences", tuple(r[0] for r in rows), (("sequences", tuple(r[2] for r in rows)),)),
        Bars(
            "How sure",
            "sequences",
            tuple(f"{i / 10:.1f} to {(i + 1) / 10:.1f}" for i in range(10)),
            (("top probability", bins),),
        ),
    )
    return View(
        f"predictions {folder.path.name}", facts, filled(*tables), tuple(notes), figures if table.height else ()
    )


def _score_facts(score: Mapping[str, Any], targets: Sequence[bool]) -> dict[str, Any]:
    """Name the figures of a score that mean something, the headline first."""
    if not score or has_two_sides(targets):
        return dict(score)
    return {score_name(targets): headline(score, targets)}


def _scored_gestures(folder: Folder, target: Mapping[str, bool]) -> Table:
    """Precision, recall and F1 of every gesture, as `inspect oof` orders them; no row where nothing was scored."""
    summary = folder.read_json(METRICS) if METRICS in folder.files else {}
    kinds = {name: "target" if flag else "non-target" for name, flag in target.items()}
    try:
        rows = [
            (name, kinds[name], *(found[key] for key in ("support", "precision", "recall", "f1")))
            for name, found in summary.get("gestures", {}).items()
        ]
        rows.sort(key=lambda row: (not row[2], row[5] or 0.0, row[0]))
    except (AttributeError, KeyError, TypeError) as error:
        raise ArtefactError(f"{folder.path / METRICS}: has no figures of its gestures", hint="predict again") from error
    columns = (GESTURE, "kind", "sequences", "precision", "recall", "F1")
    return Table("scored gestures, worst first", columns, tuple(rows))
