"""What a run in progress, or one that was interrupted, has done so far, and how it is continued."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl

from bfrbctl.artefacts.content import RunContent, read_content
from bfrbctl.artefacts.files import MAX_JSON_BYTES, FileEntry, decode_parquet, parquet_bytes, parse_json, read_regular
from bfrbctl.artefacts.folders import JOURNAL, LOCK, PART, SCRATCH, Folder
from bfrbctl.artefacts.journals import Journal, open_journal
from bfrbctl.errors import ArtefactError, DataError
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.metrics import COMPETITION_SCORE, score_column
from bfrbctl.inspection.view import Table, View, filled
from bfrbctl.models.interface import HistoryRow
from bfrbctl.training.fold_results import HISTORY, STEPS
from bfrbctl.training.tasks import latest_rows

UNFINISHED = ("training", "oof", "artefact")
"""Views that an unfinished folder has."""

_FOLD = re.compile(r"fold-\d+")


def run_view(path: Path) -> View:
    """Show the run that writes a folder: what it is, what is done, and the command that continues it.

    Raises
    ------
    ArtefactError
        When its journal is damaged.
    """
    journal = open_journal(path)
    done = [part for part, files in journal.parts.items() if _is_there(path, files)]
    facts = {
        "kind": journal.kind,
        "state": _state(path),
        "continue_with": journal.continue_command,
        "command": " ".join(journal.command) or None,
        "pieces_done": len(done),
        "pieces_planned": len(journal.planned) or None,
        "bytes": sum(entry.size for part in done for entry in journal.parts[part].values()),
    }
    settings = tuple((key, json.dumps(value, ensure_ascii=False)) for key, value in _flat(journal.config))
    targets = journal.content.get("targets") if journal.content else None
    score = score_column(targets) if targets else COMPETITION_SCORE
    tables = (
        Table("folds", ("fold", "state", "step", f"latest {score}"), tuple(_fold_rows(path, journal, done))),
        Table("pieces done", ("piece", "files"), tuple((part, ", ".join(journal.parts[part])) for part in done)),
        Table("settings", ("setting", "value"), (("seed", str(journal.seed)), *settings)),
        Table("versions", ("library", "version"), tuple((journal.libraries or {}).items())),
    )
    when = "should it be interrupted, continue" if str(facts["state"]).startswith("in progress") else "continue"
    notes = [f"the run is unfinished: {facts['state']}; {when} it with: {journal.continue_command}"]
    if any(name.startswith(f"{PART}{STEPS}-") for part in done for name in journal.parts[part]):
        notes.append(
            "finished folds are scored after their last round or epoch; "
            "how many of them to keep is chosen by the other folds, when all folds are trained"
        )
    if not journal.command:
        notes.append("an earlier bfrbctl began it, which noted neither its command nor its library versions")
    return View(f"unfinished {journal.kind} {path.name}", facts, filled(*tables), tuple(notes))


def so_far(path: Path, what: str) -> Folder:
    """Give a model folder that holds the results of the finished folds of an unfinished training.

    For `training` it holds the history of the other folds too, as far as that is known.

    Raises
    ------
    DataError
        When no fold has anything of that kind yet, or an earlier bfrbctl began the run.
    ArtefactError
        When the run trains no model, or a file of it is not what the journal lists.
    """
    journal = open_journal(path)
    if journal.kind != "model":
        raise ArtefactError(
            f"{path}: is an unfinished {journal.kind} folder, expected a model",
            hint=f"look at it with inspect artefact, or continue it: {journal.continue_command}",
        )
    if not journal.content:
        raise DataError(
            f"{path}: is unfinished, and the earlier bfrbctl that began it did not note its classes",
            hint=f"look at it with inspect artefact, or continue it: {journal.continue_command}",
        )
    files = {name: entry for entries in journal.parts.values() for name, entry in entries.items()}
    read_content(RunContent, journal.content, str(path / JOURNAL))
    run = Folder(path, "model", journal.config, journal.content, MappingProxyType(files), "", journal.raw)
    assembled = {oof.OOF: _oof(run), HISTORY: _history(run)}
    wanted = HISTORY if what == "training" else oof.OOF
    if not assembled[wanted]:
        nothing = "no fold has trained a round or epoch" if what == "training" else "no fold is finished"
        raise DataError(f"{path}: is unfinished, and {nothing} yet", hint=f"continue it: {journal.continue_command}")
    made = {name: FileEntry(len(content), "") for name, content in assembled.items() if content}
    return Folder(
        path, "model", run.config, run.content, MappingProxyType({**files, **made}), "", journal.raw, assembled
    )


def _oof(run: Folder) -> bytes:
    parts = [decode_parquet(run.read(name), str(run.path / name)) for name in run.names(rf"{PART}oof-\d+\.parquet")]
    return parquet_bytes(pl.concat(parts).sort("scenario", "sequence_id")) if parts else b""


def _history(run: Folder) -> bytes:
    rows: list[Any] = []
    for name in run.names(rf"{PART}summary-\d+\.json"):
        rows += _finished_rows(run, name)
    finished = {row.get("fold") for row in rows}
    rows += [row for row in _rows_so_far(run.path) if row.get("fold") not in finished]
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def _finished_rows(run: Folder, name: str) -> list[Any]:
    summary = parse_json(run.read(name), str(run.path / name))
    rows = summary.get("history") if isinstance(summary, dict) else None
    if not isinstance(rows, list):
        raise ArtefactError(f"{run.path / name}: holds no history")
    return rows


def _rows_so_far(path: Path) -> list[HistoryRow]:
    """Read the history rows of the folds that are being trained, or were when the run was interrupted."""
    rows = []
    for file in sorted(path.glob(f"{SCRATCH}fold-*/progress*.jsonl")):
        rows += latest_rows(read_regular(file, limit=MAX_JSON_BYTES))
    return rows


def _fold_rows(path: Path, journal: Journal, done: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Say of every planned fold how far it is."""
    rows = _rows_so_far(path) if journal.kind == "model" else []
    for part in filter(_FOLD.fullmatch, journal.planned or journal.parts):
        fold = int(part.removeprefix("fold-"))
        if part in done:
            run = Folder(path, "model", {}, {}, journal.parts[part], "", {})
            own = [row for name in run.names(rf"{PART}summary-\d+\.json") for row in _finished_rows(run, name)]
        else:
            own = [row for row in rows if row.get("fold") == fold]
        begun = any((path / f"{SCRATCH}{part}").glob("*"))
        state = "finished" if part in done else "begun" if begun else "not begun"
        steps = [row["step"] for row in own if isinstance(row.get("step"), int)]
        scores = [row["score"] for row in own if isinstance(row.get("score"), float)]
        yield fold, state, max(steps, default=None), scores[-1] if scores else None


def _is_there(path: Path, files: Mapping[str, FileEntry]) -> bool:
    return all((path / name).is_file() for name in files)


def _state(path: Path) -> str:
    """Say whether the process that holds the lock still runs on this machine."""
    try:
        number = int((path / LOCK).read_text())
    except (OSError, ValueError):
        return "interrupted"
    if os.name == "posix":
        try:
            os.kill(number, 0)  # asks, and sends nothing
        except ProcessLookupError:
            return "interrupted, or in progress on another machine"
        except PermissionError:
            return f"in progress, process {number}"
    return f"in progress, process {number}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
