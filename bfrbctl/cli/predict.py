"""bfrbctl predict: recordings and a model or blend -> predictions and a submission."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bfrbctl.cli import shared


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("predict")(predict)


def predict(
    recordings: Annotated[Path, typer.Argument(help="Raw folder or file, or a prepared dataset.", metavar="INPUT")],
    model: Annotated[Path, typer.Argument(help="Model or blend folder.", metavar="MODEL_OR_BLEND")],
    out: Annotated[Path, typer.Argument(help="Folder to write the predictions into.", metavar="OUT")],
    split: Annotated[
        str | None, typer.Option(help="train or test, where the input has both [default: test].", metavar="NAME")
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(help="Table of sequence_id and gesture, CSV or Parquet, to score against.", metavar="FILE"),
    ] = None,
    strict: Annotated[
        bool | None, typer.Option("--strict", help="Stop at a sequence, or a member of the blend, that cannot be used.")
    ] = None,
    without: shared.Without = None,
    expect_sha256: Annotated[
        str | None, typer.Option(help="Refuse the model unless it has this digest.", metavar="HEX")
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes; 0 means one a core, or none beside this one for a small input.", min=0)
    ] = 0,
    scheduler: shared.Scheduler = None,
    force: shared.Force = False,
    resume: shared.Resume = False,
    quiet: shared.Quiet = False,
    as_json: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Predict the gesture of every sequence; with labels in the input, or --answers, score it as well.

    Writes predictions.parquet (with all probabilities), submission.parquet, submission.csv and problems.parquet.

    Example: bfrbctl predict cmi-detect-behavior/ blend/ predictions/
    """
    from bfrbctl.artefacts.folders import open_folder
    from bfrbctl.artefacts.journals import interrupted_run
    from bfrbctl.artefacts.outputs import Job, open_output
    from bfrbctl.prediction.predictor import Predictor
    from bfrbctl.prediction.scoring import read_labels
    from bfrbctl.prediction.submission import input_refs, open_input
    from bfrbctl.prediction.submission import predict as run

    begun = interrupted_run(out, "predictions", resume=resume)
    remembered, answers = shared.remembered_path(begun, "answers", answers)
    labels = read_labels(answers) if answers else None
    earlier = begun.config
    split = earlier.get("split") if split is None else split
    strict = bool(earlier.get("strict") if strict is None else strict)
    without = list(earlier.get("without", ())) if without is None else without
    predictor = Predictor.open(model, expect_sha256=expect_sha256, without=without, strict=strict)
    source = open_input(recordings, predictor, split=split)
    refs = (*input_refs(recordings), open_folder(model).ref())
    config = {"split": split, "strict": strict, "without": list(predictor.left_out)}
    job = Job("predictions", config, refs, shared.command_line(), options=remembered)
    processes = workers if scheduler or workers else source.fitting_workers
    with (
        shared.executor(processes, scheduler, quiet=quiet) as executor,
        open_output(out, job, force=force, resume=resume) as output,
        shared.progress("predict", source.total, quiet=quiet, unit=source.unit, scale=source.scale) as advance,
    ):
        folder = run(source, predictor, output, strict=strict, labels=labels, executor=executor, on_frames=advance)
    content = folder.content
    lines = [f"wrote {out}: {content['n_sequences']} sequences, submission.parquet and submission.csv"]
    if content["n_problems"]:
        lines.append(f"      {content['n_problems']} could not be used and got the prior: {out / 'problems.parquet'}")
    lines += _score_lines(content)
    shared.tell(
        {"output": out, **content},
        lines=lines,
        next_command=f"bfrbctl inspect predictions {out}",
        as_json=as_json,
        quiet=quiet,
    )


def _score_lines(content: Mapping[str, Any]) -> list[str]:
    """Tell the scores, where there are any; that they are in-sample was warned of."""
    if "score" not in content:
        return []
    source = content["answers"]["name"] if "answers" in content else "the labels in the input"
    score, n_all = content["score"], content["n_sequences"]
    part = f"; {content['n_labelled']} of {n_all} sequences scored" if content["n_labelled"] < n_all else ""
    counts = content["in_sample"]
    sort = "in-sample " if counts["sequences"] or counts["of_known_subjects"] else ""
    figures = f"{score['score']:.4f}"
    if score["binary_f1"] is not None:
        figures += f" (binary F1 {score['binary_f1']:.4f}, macro F1 {score['macro_f1']:.4f})"
        figures += f"; macro F1 over all gestures {score['gesture_macro_f1']:.4f}"
    return [f"      {sort}{content['headline']} against {source}: {figures}{part}"]
