"""The views that there are, the kinds of folder that each reads, and how one is made.

Every view opens the folder through `folders.open_folder`, so that it reports damage before it shows anything. A view
that needs something the folder does not have says what is missing and why.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bfrbctl.artefacts.folders import JOURNAL, Folder, is_unfinished, open_folder
from bfrbctl.artefacts.journals import open_journal
from bfrbctl.errors import ArtefactError, DataError
from bfrbctl.inspection.options import Options
from bfrbctl.inspection.view import View
from bfrbctl.inspection.views.artefacts import artefact_view, predictions_view
from bfrbctl.inspection.views.calibration import calibration_view
from bfrbctl.inspection.views.comparison import compare_view
from bfrbctl.inspection.views.datasets import dataset_view, folds_view, sequence_view
from bfrbctl.inspection.views.feature import feature_view
from bfrbctl.inspection.views.features import features_view
from bfrbctl.inspection.views.models import blend_view, importance_view, training_view
from bfrbctl.inspection.views.scores import confusion_view, oof_view
from bfrbctl.inspection.views.unfinished import UNFINISHED, run_view, so_far

_MODELS = ("model", "blend")

VIEWS: Mapping[str, tuple[tuple[str, ...], Callable[[Folder, Options], View]]] = {
    "dataset": (("dataset",), dataset_view),
    "sequence": (("dataset",), sequence_view),
    "features": (("features",), features_view),
    "feature": (("features",), feature_view),
    "folds": (("dataset", "features", *_MODELS), folds_view),
    "training": (_MODELS, training_view),
    "oof": (_MODELS, oof_view),
    "confusion": (_MODELS, confusion_view),
    "calibration": (_MODELS, calibration_view),
    "feature-importance": (_MODELS, importance_view),
    "blend": (("blend",), blend_view),
    "predictions": (("predictions",), predictions_view),
    "artefact": ((), artefact_view),
    "compare": (_MODELS, compare_view),
}
"""View -> the kinds of folder it reads (any when empty), and how it is made."""


def inspect(what: str, path: Path, options: Options | None = None) -> View:
    """Make the view `what`, one of `VIEWS`, of a folder.

    Raises
    ------
    ArtefactError
        When the folder is damaged, unsafe, or of a kind that has no such view.
    DataError
        When the folder is of the right kind and has nothing of that to show; says what is missing.
    """
    if is_unfinished(path) and what in UNFINISHED:
        try:
            return _unfinished_view(what, named(path), options or Options())
        except ArtefactError:  # a fold, or the whole run, may have finished just now; damage is found again
            if is_unfinished(path):
                return _unfinished_view(what, named(path), options or Options())
    view = view_of(what, open_folder(named(path), *VIEWS[what][0]), options or Options())
    if what == "artefact" and (path / JOURNAL).is_file():
        adding = f"more is being added to it, or was when that was interrupted: {open_journal(path).continue_command}"
        view = replace(view, notes=(*view.notes, adding))
    return view


def _unfinished_view(what: str, path: Path, options: Options) -> View:
    """Make a view of what an unfinished run has done; `artefact` shows the run itself."""
    run = run_view(path)
    if what == "artefact":
        return run
    try:
        folder = so_far(path, what)
    except DataError as error:
        return replace(run, notes=(*run.notes, error.what))
    view = VIEWS[what][1](folder, options)
    return replace(
        view,
        title=f"{view.title}, unfinished",
        facts={**run.facts, **view.facts},
        tables=(*(table for table in run.tables if table.title == "folds"), *view.tables),
        notes=(*run.notes, *view.notes),
    )


def view_of(what: str, folder: Folder, options: Options) -> View:
    """Make the view `what` of an open folder; raises as `inspect` does."""
    return VIEWS[what][1](folder, options)


def named(path: Path) -> Path:
    """Give a path that has a name to show: `.` and `..` have none."""
    return path if path.name not in ("", "..") else path.resolve()


def options_of(
    what: str,
    *,
    sequence: str | None = None,
    feature: str | None = None,
    other: Path | None = None,
    model: Path | None = None,
    features: Path | None = None,
    shap: bool = False,
    sample: int = 200,
    inputs: Sequence[Path] = (),
) -> Options:
    """Open the further folders that a view reads.

    Raises
    ------
    ArtefactError
        When one is damaged, unsafe or of a kind that does not help.
    """
    return Options(
        sequence=sequence,
        feature=feature,
        model=None if model is None else open_folder(named(model), *_MODELS),
        other=None if other is None else open_folder(named(other), *VIEWS[what][0]),
        features=None if features is None else open_folder(features, "features", "dataset"),
        shap=shap,
        sample=sample,
        inputs=tuple(inputs),
    )
