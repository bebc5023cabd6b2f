"""Train a fold for a few rounds, to know how long all of them will take."""

import time
from dataclasses import replace

import numpy as np

from bfrbctl.models.interface import FoldTask, HistoryRow, Rehearsal
from bfrbctl.models.lightgbm.config import Config
from bfrbctl.models.lightgbm.model import fit
from bfrbctl.models.lightgbm.training import SCREENING_ROUNDS

ROUNDS = SCREENING_ROUNDS
"""How many rounds: as many as the ranking of features takes, so that it is measured whole."""


def rehearse(task: FoldTask, config: Config) -> Rehearsal:
    """Bin the whole fold and boost a few rounds; raises what `fit` raises."""
    n_rounds = min(config.n_rounds, ROUNDS)
    ends: list[float] = []
    rows: list[HistoryRow] = []

    def note(row: HistoryRow) -> None:
        ends.append(time.perf_counter())
        rows.append(row)

    began = time.perf_counter()
    short = config.model_copy(update={"n_rounds": n_rounds, "log_every": 1, "seeds": 1})
    model = fit(replace(task, on_progress=note), short)
    step_s = float(np.mean(np.diff(ends))) if len(ends) > 1 else float(rows[0]["seconds"])
    growth = config.n_rounds / n_rounds
    size = sum(len(content) for name, content in model.encode().items() if name.endswith(".txt"))
    return Rehearsal(
        model=model,
        start_s=0.0,
        prepare_s=max(ends[0] - began - step_s, 0.0),
        step_s=step_s,
        growth=growth * config.seeds,
        kept_bytes=int(size * growth) if config.seeds > 1 or config.select == "other-folds" else 0,
    )
