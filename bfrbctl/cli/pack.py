"""bfrbctl pack: a model or blend -> a folder to upload to Kaggle."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bfrbctl.cli.help import Command
from bfrbctl.cli.options import DisplayOptions, OutputOptions, command_line, grouped
from bfrbctl.cli.results import show_result

if TYPE_CHECKING:
    from bfrbctl.artefacts.folders import Folder


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("pack", cls=Command)(pack)


@grouped
def pack(
    model: Annotated[Path, typer.Argument(help="Model or blend folder.", metavar="MODEL_OR_BLEND")],
    out: Annotated[Path, typer.Argument(help="Folder to write.", metavar="OUT")],
    *,
    owner: Annotated[str, typer.Option(help="Your name on Kaggle, or that of an organisation.", metavar="NAME")],
    slug: Annotated[str, typer.Option(help="Name of the dataset in its address: 6 to 50 of a-z, 0-9 and hyphens.")],
    title: Annotated[str, typer.Option(help="Title of the dataset: 6 to 50 characters.")],
    licence: Annotated[
        str, typer.Option("--licence", "--license", help="Licence, by the name that Kaggle uses.")
    ] = "CC0-1.0",
    output: OutputOptions,
    display: DisplayOptions,
) -> None:
    """Pack a model or blend with the wheel of bfrbctl and a submission.py, ready for `kaggle datasets create`.

    The folder is flat and opens like the model itself, with the same digest. submission.py pins this digest.

    Example: bfrbctl pack blend/ upload/ --owner jane --slug my-bfrb-blend --title "My BFRB blend"
    """
    from bfrbctl.artefacts.folders import open_folder
    from bfrbctl.artefacts.outputs import Job, open_output
    from bfrbctl.config import build
    from bfrbctl.errors import UsageError
    from bfrbctl.prediction.packing import PackConfig
    from bfrbctl.prediction.packing import pack as write_pack

    config = build(PackConfig, owner=owner, slug=slug, title=title, licence=licence)
    if model.resolve() == out.resolve():
        raise UsageError(f"{out}: is the folder to be packed", hint="pack it into another one")
    folder = open_folder(model, "model", "blend")
    job = Job("pack", vars(config), (folder.ref(),), command_line())
    with open_output(out, job, force=output.force, resume=output.resume) as packing:
        packed = write_pack(folder, packing, config)
    _show(packed, out, f"{owner}/{slug}", display)


def _show(packed: "Folder", out: Path, name: str, display: DisplayOptions) -> None:
    size = sum(path.stat().st_size for path in out.iterdir())
    show_result(
        {"output": out, "id": name, "kind": packed.kind, "sha256": packed.sha256, "bytes": size},
        lines=[
            f"wrote {out}: a {packed.kind} and what a notebook needs, {size / 1e6:.1f} MB",
            f"      digest {packed.sha256}, pinned in submission.py",
        ],
        next_command=f"kaggle datasets create -p {out}",
        display=display,
    )
