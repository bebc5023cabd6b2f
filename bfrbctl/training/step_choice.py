"""How many steps (rounds, epochs) the models have: the last one, or the one that is best on the other folds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bfrbctl.artefacts.outputs import Output
from bfrbctl.evaluation.selection import Curve, select_steps
from bfrbctl.execution.cache import Cache
from bfrbctl.features.folder import read_features
from bfrbctl.training.fold_results import (
    STEPS,
    FoldRecord,
    TrainedFold,
    importance_of,
    model_files,
    part_name,
    predict_fold,
)
from bfrbctl.training.job import CrossValidation
from bfrbctl.training.labelled import LabelledSequences

_SELECTED = "selected-"
"""Prefix of the names of what is made after the numbers of steps were chosen."""


@dataclass(frozen=True)
class Selection:
    """How the numbers of steps came about; what metrics.json keeps.

    Parameters
    ----------
    select
        `other-folds` or `last`.
    why
        Why it is `last` where `other-folds` was asked for; else empty.
    step
        What a step is called.
    by, scenario
        The figure that chose; empty where nothing was chosen.
    kept
        Steps of the models that are kept for prediction, at most.
    folds
        Fold -> steps of the model that its held-out sequences are scored with.
    """

    select: str
    why: str
    step: str
    by: str
    scenario: str
    kept: int
    folds: Mapping[str, int]


def why_last(job: CrossValidation, folds: Sequence[int]) -> str:
    """Say why the last step is kept though `select` is `other-folds`; empty where it is chosen, or was asked for."""
    if job.kind.load_step is None or job.config.select != "other-folds":
        return ""
    if job.config.why_last:
        return str(job.config.why_last)
    return "one fold is trained alone, and it must not choose for itself" if len(folds) < 2 else ""


def keeps_steps(job: CrossValidation, folds: Sequence[int]) -> bool:
    """Whether every step of the folds is kept, as the other folds choose one."""
    return job.kind.load_step is not None and job.config.select == "other-folds" and not why_last(job, folds)


def selected_name(fold: int) -> str:
    """Name the part of a run that publishes a fold with its chosen step."""
    return f"{_SELECTED}{fold}"


def selection_line(selection: Mapping[str, Any]) -> str:
    """Say in one line how the numbers of steps came about, from what metrics.json holds."""
    step, kept, steps = selection["step"], selection["kept"], sorted(selection["folds"].values())
    if selection["select"] == "last":
        return f"kept: all {kept} {step}s{f', as {why}' if (why := selection['why']) else ''}"
    span = f"{steps[0]}" if steps[0] == steps[-1] else f"{steps[0]} to {steps[-1]}"
    return f"kept: {kept} {step}s, best on all folds; a fold is scored with those that are best on the others ({span})"


@dataclass(frozen=True)
class _StepFiles(Mapping[str, bytes]):
    """The files of a fold's model of all steps, by suffix, read when they are asked for."""

    output: Output
    fold: int

    def __getitem__(self, suffix: str) -> bytes:
        if suffix not in set(self):
            raise KeyError(suffix)
        return self.output.read(part_name(STEPS, self.fold, suffix))

    def __iter__(self) -> Iterator[str]:
        prefix = part_name(STEPS, self.fold, "")
        return (name.removeprefix(prefix) for name in self.output.parts[f"fold-{self.fold}"] if name.startswith(prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def keep_last(job: CrossValidation, folds: Sequence[int]) -> Selection:
    """Keep the last step of every model."""
    steps = {str(fold): job.config.n_steps for fold in folds}
    return Selection("last", why_last(job, folds), job.config.STEP, "", "", job.config.n_steps, steps)


def select(
    job: CrossValidation, output: Output, data: LabelledSequences, records: Mapping[int, FoldRecord]
) -> tuple[Selection, dict[int, FoldRecord]]:
    """Choose the numbers of steps, predict the held-out sequences again, cut the models, and publish them.

    Parameters
    ----------
    job, output, data
        The training.
    records
        By fold: what was left after the last step.

    Returns
    -------
    How the numbers came about, and by fold the record of the model with the chosen step.
    """
    if job.kind.load_step is None:
        raise TypeError(f"{job.kind.name} cannot be cut to a step")
    curves = {fold: _curve(record, output) for fold, record in records.items()}
    rule = job.config.rule
    chosen = select_steps(curves, rule)
    _, batch = read_features(job.features, parts=job.kind.needs, cache=Cache(job.cache_bytes, output.path))
    selected = {}
    for fold in records:
        valid = batch.take(np.flatnonzero(data.held_out(fold)))
        files = _StepFiles(output, fold)
        scored = job.kind.load_step(files, chosen.folds[fold], classes=data.space.classes)
        same = chosen.kept == chosen.folds[fold]
        kept = scored if same else job.kind.load_step(files, chosen.kept, classes=data.space.classes)
        predictions = predict_fold(data, fold, scored, valid)
        selected[fold] = FoldRecord(fold, predictions, importance_of(kept, fold), kept.summary)
        output.publish(selected_name(fold), TrainedFold(selected[fold], model_files(kept, fold)).files(_SELECTED))
    steps = {str(fold): step for fold, step in chosen.folds.items()}
    return Selection("other-folds", "", job.config.STEP, rule.by, rule.scenario, chosen.kept, steps), selected


def _curve(record: FoldRecord, output: Output) -> Curve:
    if record.curve is None:
        return Curve.of_content(None, what=f"fold {record.fold} of {output.path}")
    return record.curve
