"""The competition's gateway: one sequence a call; the response is the name of a gesture, whatever comes.

Source of the protocol: the competition's `kaggle_evaluation` package, which Kaggle provides in its notebooks; it is no
dependency of ours. Listeners are registered by the function's `__name__`, which must be "predict".
"""

import gc
import logging
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import polars as pl

from bfrbctl.ensemble.assignment import Assigner
from bfrbctl.errors import UsageError
from bfrbctl.prediction.predictor import Predictor
from bfrbctl.schema import SEQUENCE_ID

RERUN = "KAGGLE_IS_COMPETITION_RERUN"
_SERVER_MODULE = "kaggle_evaluation.cmi_inference_server"
_log = logging.getLogger("bfrbctl.kaggle")

Listener = Callable[[pl.DataFrame, pl.DataFrame], str]


def make_listener(open_predictor: Callable[[], Predictor]) -> Listener:
    """Make the function that the gateway calls.

    Parameters
    ----------
    open_predictor
        Opens the model; called once, at the first sequence, unless the listener's `warm` was called before.

    Returns
    -------
    A function named `predict`. It never raises for a sequence: when one fails inside, the failure is logged with its
    sequence_id, and the response is the gesture most frequent in training.
    """
    opened: list[tuple[Predictor, Assigner | None]] = []

    def warm() -> tuple[Predictor, Assigner | None]:
        if not opened:
            model = open_predictor()
            opened.append((model, model.new_assigner()))
        return opened[0]

    def predict(sequence: pl.DataFrame, demographics: pl.DataFrame) -> str:
        model, assigner = warm()
        try:
            return model.predict(sequence, demographics, assigner=assigner)
        except (Exception, pl.exceptions.PanicException):  # polars' panics are no Exception
            _log.exception("sequence %s failed: the response is the most frequent gesture", _name(sequence))
            return model.classes[int(np.argmax(model.prior))]

    predict.warm = warm  # type: ignore[attr-defined]
    return predict


def _name(sequence: object) -> object:
    """Name a sequence as far as it has a name; what came may be no table at all."""
    if isinstance(sequence, pl.DataFrame) and SEQUENCE_ID in sequence.columns and sequence.height:
        return sequence[SEQUENCE_ID][0]
    return "without a name"


def serve(
    path: Path | str,
    data_paths: Sequence[Path | str] = (),
    *,
    expect_sha256: str | None = None,
    without: Sequence[str] = (),
) -> None:
    """Run a model or blend behind the competition's gateway.

    In the competition's rerun it serves until the gateway is done; elsewhere it runs the local gateway over
    `data_paths`, which writes submission.parquet into the working folder.

    Parameters
    ----------
    path
        Model or blend folder.
    data_paths
        test.csv and test_demographics.csv, for the local gateway.
    expect_sha256
        The digest that the folder must have; any when None.
    without
        Members of the blend to leave out.

    Raises
    ------
    ArtefactError
        When the folder is damaged, unsafe, or has another digest.
    UsageError
        When Kaggle's package is not there, or there is nothing to run over.
    """
    rerun = bool(os.getenv(RERUN))
    if not rerun and len(data_paths) != 2:
        raise UsageError(
            f"{len(data_paths)} data paths, expected test.csv and test_demographics.csv",
            hint=f"give both with --data-paths, or set {RERUN} as the competition does",
        )
    listener = make_listener(lambda: Predictor.open(path, expect_sha256=expect_sha256, without=without))
    try:
        server = import_module(_SERVER_MODULE).CMIInferenceServer(listener)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{_SERVER_MODULE.split('.')[0]} is not installed: Kaggle provides it in the competition's notebooks",
            hint="add the competition as input of the notebook, or use bfrbctl predict elsewhere",
        ) from error
    listener.warm()  # type: ignore[attr-defined]
    gc.collect()
    gc.freeze()  # what libraries made stays anyway; a further garbage collection takes longer than a prediction
    if rerun:
        server.serve()
    else:
        server.run_local_gateway(data_paths=tuple(map(str, data_paths)))
