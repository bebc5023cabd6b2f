"""The figures of a view as a file, SVG or PNG."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bfrbctl.inspection import View


def check_plot(path: Path, folder: Path) -> None:
    """Refuse a file that cannot be drawn, before any work is done for it."""
    from bfrbctl.errors import UsageError
    from bfrbctl.inspection.report import check_outside

    check_outside(path, folder)
    if path.suffix.lower() not in (".svg", ".png"):
        raise UsageError(f"--plot {path}: expected a name that ends in .svg or .png")
    if path.suffix.lower() == ".png":
        _check_png(path)


def write_plot(view: "View", path: Path) -> None:
    """Draw the figures of a view into an SVG or PNG file."""
    from bfrbctl.artefacts.files import write_bytes
    from bfrbctl.errors import DataError
    from bfrbctl.inspection.drawing import flattened, standalone

    if not view.figures:
        reason = f" ({view.notes[0]})" if view.notes else ""
        raise DataError(f"{view.title}: there is nothing to draw{reason}", hint="leave --plot out to read the tables")
    drawing = standalone(view.figures)
    if path.suffix.lower() == ".svg":
        write_bytes(path, drawing.encode())
    else:
        write_bytes(path, bytes(_resvg(path).svg_to_bytes(svg_string=flattened(drawing))))


def _check_png(path: Path) -> None:
    """Refuse a PNG file that would have no labels: without a font, the library leaves out all text."""
    from bfrbctl.errors import UsageError
    from bfrbctl.inspection.drawing import FONTS

    probe = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20">{}</svg>'
    text = f'<text y="15" style="font:15px {FONTS}">a</text>'
    draw = _resvg(path).svg_to_bytes
    if draw(svg_string=probe.format(text)) == draw(svg_string=probe.format("")):
        raise UsageError(
            f"--plot {path}: no font is installed to write the labels with",
            hint="draw it as .svg, or install a font such as DejaVu Sans (Debian, Ubuntu: fonts-dejavu-core)",
        )


def _resvg(path: Path) -> Any:
    """Import the library that draws PNG files; the wheel that `pack` makes can be installed without it."""
    from bfrbctl.errors import missing_library

    try:
        import resvg_py
    except ImportError as error:
        raise missing_library(f"--plot {path}", error, otherwise="draw it as .svg") from error
    return resvg_py
