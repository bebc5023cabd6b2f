"""Settings of a view, and the further folders that it reads."""

from dataclasses import dataclass
from pathlib import Path

from bfrbctl.artefacts.folders import Folder


@dataclass(frozen=True)
class Options:
    """Settings of a view; each reads those that it knows.

    Parameters
    ----------
    sequence
        Which sequence `sequence` shows; the first when None.
    feature
        Which feature or channel `feature` explains; the first when None.
    other
        The second folder of `compare`, or the one that `features` looks for drift against.
    features
        The dataset or feature folder that a model was trained on: orientations for `oof`, the table for `shap`.
    model
        The model or blend that `feature` takes importances from.
    shap
        Whether `feature-importance` computes SHAP values, on held-out sequences of `features`.
    sample
        How many sequences of a fold SHAP values are computed for.
    seed
        Seed of the bootstrap and of the sample.
    inputs
        Where `artefact` looks for inputs that do not lie beside the folder: input folders, or folders that hold some.
    """

    sequence: str | None = None
    feature: str | None = None
    other: Folder | None = None
    model: Folder | None = None
    features: Folder | None = None
    shap: bool = False
    sample: int = 200
    seed: int = 0
    inputs: tuple[Path, ...] = ()
