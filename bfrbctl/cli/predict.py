"""bfrbctl predict: recordings and a model or blend -> predictions and a submission."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bfrbctl.cli.help import Command
from bfrbctl.cli.options import (
    DisplayOptions,
    ModelOptions,
    OutputOptions,
    RunOptions,
    command_line,
    grouped,
    remembered_path,
)
from bfrbctl.cli.progress import executor, progress
from bfrbctl.cli.results import show_result

if TYPE_CHECKING:
    from bfrbctl.artefacts.folders import Folder
    from bfrbctl.prediction.predictor import Predictor


@dataclass(frozen=True)
class PredictOptions:
    """What is predicted and scored."""

    split: Annotated[
        str | None, typer.Option(help="train or test, where the input has both [default: test].", metavar="NAME")
    ] = None
    answers: Annotated[
        Path | None,
        typer.Option(help="Table of sequence_id and gesture, CSV or Parquet, to score against.", metavar="FILE"),
    ] = None
    strict: Annotated[
        bool | None, typer.Option("--strict", help="Stop at a sequence, or a member of the blend, that cannot be used.")
    ] = None


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("predict", cls=Command)(predict)


@grouped
def predict(
    recordings: Annotated[Path, typer.Argument(help="Raw folder or file, or a prepared dataset.", metavar="INPUT")],
    model: Annotated[Path, typer.Argument(help="Model or blend folder.", metavar="MODEL_OR_BLEND")],
    out: Annotated[Path, typer.Argument(help="Folder to write the predictions into.", metavar="OUT")],
    *,
    options: PredictOptions,
    opening: ModelOptions,
    run: RunOptions,
    output: OutputOptions,
    display: DisplayOptions,
) -> None:
    """Predict the gesture of every sequence. With labels in the input, or --answers, score the predictions as well.

    Writes predictions.parquet (with all probabilities), submission.parquet, submission.csv and problems.parquet.

    Example: bfrbctl predict cmi-detect-behavior/ blend/ predictions/
    """
    from bfrbctl.artefacts.folders import open_folder
    from bfrbctl.artefacts.journals import interrupted_run
    from bfrbctl.artefacts.outputs import Job, open_output
    from bfrbctl.prediction.scoring import read_labels
    from bfrbctl.prediction.submission import input_refs, open_input
    from bfrbctl.prediction.submission import predict as write_predictions

    earlier = interrupted_run(out, "predictions", resume=output.resume)
    remembered, answers = remembered_path(earlier, "answers", options.answers)
    labels = read_labels(answers) if answers else None
    predictor, split, strict = _open(model, options, opening, earlier.config)
    source = open_input(recordings, predictor, split=split)
    refs = (*input_refs(recordings), open_folder(model).ref())
    config = {"split": split, "strict": strict, "without": list(predictor.left_out)}
    job = Job("predictions", config, refs, command_line(), options=remembered)
    with (
        executor(run.workers_or(lambda: source.fitting_workers), run.scheduler, quiet=display.quiet) as workers,
        open_output(out, job, force=output.force, resume=output.resume) as folder,
        progress("predict", source.total, quiet=display.quiet, unit=source.unit, scale=source.scale) as advance,
    ):
        finished = write_predictions(
            source, predictor, folder, strict=strict, labels=labels, executor=workers, on_frames=advance
        )
    _show(finished, display)


def _open(
    model: Path, options: PredictOptions, opening: ModelOptions, earlier: Mapping[str, Any]
) -> tuple["Predictor", str | None, bool]:
    """Open the model; gives it, the split and --strict. By default they and --without are those of the earlier run."""
    from bfrbctl.prediction.predictor import Predictor

    split = earlier.get("split") if options.split is None else options.split
    strict = bool(earlier.get("strict") if options.strict is None else options.strict)
    without = earlier.get("without", ()) if opening.without is None else opening.without
    predictor = Predictor.open(model, expect_sha256=opening.expect_sha256, without=list(without), strict=strict)
    return predictor, split, strict


def _show(folder: "Folder", display: DisplayOptions) -> None:
    content, path = folder.content, folder.path
    lines = [f"wrote {path}: {content['n_sequences']} sequences, submission.parquet and submission.csv"]
    if content["n_problems"]:
        lines.append(f"      {content['n_problems']} could not be used and got the prior: {path / 'problems.parquet'}")
    show_result(
        {"output": path, **content},
        lines=[*lines, *_score_lines(content)],
        next_command=f"bfrbctl inspect predictions {path}",
        display=display,
    )


def _score_lines(content: Mapping[str, Any]) -> list[str]:
    """Show the scores, where there are any; a warning has said before that they are in-sample."""
    if "score" not in content:
        return []
    source = content["answers"]["name"] if "answers" in content else "the labels in the input"
    score, n_all = content["score"], content["n_sequences"]
    part = f"; {content['n_labelled']} of {n_all} sequences scored" if content["n_labelled"] < n_all else ""
    counts = content["in_sample"]
    prefix = "in-sample " if counts["sequences"] or counts["of_known_subjects"] else ""
    figures = f"{score['score']:.4f}"
    if score["binary_f1"] is not None:
        figures += f" (binary F1 {score['binary_f1']:.4f}, macro F1 {score['macro_f1']:.4f})"
        figures += f"; macro F1 over all gestures {score['gesture_macro_f1']:.4f}"
    return [f"      {prefix}{content['headline']} against {source}: {figures}{part}"]
