"""All views of a folder, as one page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bfrbctl import __version__
from bfrbctl.artefacts.files import write_bytes
from bfrbctl.artefacts.folders import JOURNAL, MANIFEST, Folder, open_folder
from bfrbctl.artefacts.journals import kind_there
from bfrbctl.errors import DataError, OutputError, UsageError
from bfrbctl.evaluation import oof
from bfrbctl.inspection import named, options_of, view_of
from bfrbctl.inspection.options import Options
from bfrbctl.inspection.page import page
from bfrbctl.inspection.view import View
from bfrbctl.inspection.views.scores import matching_index
from bfrbctl.schema import ALL_SENSORS

_MODEL = ("oof", "confusion", "calibration", "training", "feature-importance", "folds", "artefact")
CONTENTS: Mapping[str, tuple[str, ...]] = {
    "dataset": ("dataset", "folds", "sequence", "artefact"),
    "features": ("features", "folds", "artefact"),
    "model": _MODEL,
    "blend": ("blend", *_MODEL),
    "predictions": ("predictions", "artefact"),
}
"""Kind of folder -> the views its report has, in order; any other kind has `artefact`."""


def report(folder: Folder, options: Options) -> tuple[str, dict[str, View], dict[str, str]]:
    """Make the page of a folder.

    Returns
    -------
    The page, the views in it, and why each of the others that its kind could have is left out.

    Raises
    ------
    DataError
        When the feature folder given is not that of the model.
    """
    if options.features is not None and folder.kind in ("model", "blend"):
        matching_index(oof.read_oof(folder)[ALL_SENSORS].keys, options.features)
    views: dict[str, View] = {}
    left_out: dict[str, str] = {}
    for name in CONTENTS.get(folder.kind, ("artefact",)):
        try:
            views[name] = view_of(name, folder, options)
        except DataError as error:
            left_out[name] = error.what.removeprefix(f"{folder.path}: ")
    title = f"{folder.kind} {folder.path.name}"
    footer = f"bfrbctl {__version__}, from the {folder.kind} folder with digest {folder.sha256}"
    return page(title, views, left_out=left_out, footer=footer), views, left_out


def write_report(
    path: Path, output: Path, *, features: Path | None = None, shap: bool = False, force: bool = False
) -> dict[str, Any]:
    """Write the page of a folder.

    Parameters
    ----------
    path
        The folder.
    output
        The HTML file.
    features
        The feature folder that a model was trained on: adds scores by orientation.
    shap
        Compute SHAP values of trees too, on a sample of `features`.
    force
        Replace the file if it is there.

    Returns
    -------
    The views in the page, why others are left out, and its size in bytes.

    Raises
    ------
    ArtefactError
        When a folder is damaged or unsafe.
    OutputError
        When the file exists or cannot be written.
    UsageError
        When the name is not that of an HTML file, or the file would lie in the folder, which then would not match
        its manifest.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(
            f"{output}: a report is an HTML page, expected a name that ends in .html",
            hint=f"write {output.with_suffix('.html')}; a browser prints it into a PDF file",
        )
    folder = open_folder(named(path))
    check_outside(output, folder.path)
    if output.exists() and not _is_page(output):
        raise OutputError(
            f"{output}: exists already and is no HTML page", hint="choose another name; --force replaces only a page"
        )
    if output.exists() and not force:
        raise OutputError(f"{output}: exists already", hint="choose another name, or replace it with --force")
    options = options_of("artefact", features=features, shap=shap)
    content, views, left_out = report(folder, options)
    write_bytes(output, content.encode())
    return {"views": list(views), "left_out": left_out, "bytes": len(content.encode())}


def _is_page(path: Path) -> bool:
    """Whether a file begins as an HTML page does."""
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip().lower().startswith((b"<!doctype html", b"<html"))
    except OSError:
        return False


def check_outside(output: Path, folder: Path) -> None:
    """Refuse to write into any folder of ours: it holds what its manifest lists, and nothing else."""
    parent = output.resolve().parent
    if parent == folder.resolve():
        raise UsageError(
            f"{output}: lies in the folder that is inspected, which then would not match its manifest",
            hint="write it beside the folder",
        )
    if any((parent / name).is_file() for name in (MANIFEST, JOURNAL)) and kind_there(parent):
        raise UsageError(
            f"{output}: lies in a {kind_there(parent)} folder, which then would not match its manifest",
            hint="write it beside that folder",
        )
