"""What the model of each seed predicts by itself, on the sequences that its fold held out.

A fold's model averages networks or boosters that differ in their seed alone. How much those differ from each other
shows how far training again would move a score; predictions of the average do not show it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from bfrbctl.arrays.ragged import Float32, Int64
from bfrbctl.artefacts.folders import Folder
from bfrbctl.errors import ArtefactError
from bfrbctl.evaluation.oof import class_positions, read_oof
from bfrbctl.reprs import short_repr
from bfrbctl.schema import ALL_SENSORS, SCENARIOS, SEQUENCE_ID

SEEDS = "seeds.parquet"
"""Columns: sequence_id, scenario, seed (0..n_seeds-1), answer (the predicted gesture)."""

_TYPES = {SEQUENCE_ID: pl.String(), "scenario": pl.String(), "seed": pl.Int32(), "answer": pl.String()}


@dataclass(frozen=True)
class SeedPredictions:
    """Predictions of each seed.

    Parameters
    ----------
    truth
        int64, (n_sequences,): positions in the class list, sorted by sequence_id.
    predicted
        Scenario -> int64, (n_seeds, n_sequences).
    """

    truth: Int64
    predicted: Mapping[str, Int64]

    __repr__ = short_repr


def seed_rows(ids: pl.Series, probas: Sequence[Mapping[str, Float32]], classes: Sequence[str]) -> pl.DataFrame:
    """Make the table of the predictions of a fold.

    Parameters
    ----------
    ids
        sequence_id of the held-out sequences.
    probas
        One a seed: scenario -> float32, (n_sequences, n_classes), rows as in `ids`.
    classes
        Gesture names.
    """
    names = np.array(classes)
    parts = [
        pl.DataFrame({SEQUENCE_ID: ids, "answer": names[np.argmax(proba, axis=1)]}).with_columns(
            pl.lit(scenario).alias("scenario"), pl.lit(seed, dtype=pl.Int32).alias("seed")
        )
        for seed, by_scenario in enumerate(probas)
        for scenario, proba in by_scenario.items()
    ]
    return pl.concat(parts).select(list(_TYPES)).sort("scenario", "seed", SEQUENCE_ID)


def read_seed_predictions(folder: Folder) -> SeedPredictions | None:
    """Read the predictions of each seed of a model; None where the folder has none, or of one seed.

    Raises
    ------
    ArtefactError
        When they are not of the sequences of the out-of-fold predictions, each once a scenario and seed.
    """
    if SEEDS not in folder.files:
        return None
    what, table = folder.path / SEEDS, folder.read_parquet(SEEDS)
    if dict(table.schema) != _TYPES:
        raise ArtefactError(f"{what}: has columns {dict(table.schema)}, expected {_TYPES}", hint="train it again")
    part = read_oof(folder)[ALL_SENSORS]
    ids, seeds = part.keys[SEQUENCE_ID].to_list(), table["seed"].unique().sort().to_list()
    if len(seeds) < 2:
        return None
    predicted = {}
    for scenario in SCENARIOS:
        rows = table.filter(scenario=scenario).sort("seed", SEQUENCE_ID)
        pairs = ((seed, sequence_id) for seed in seeds for sequence_id in ids)
        if rows.height != len(seeds) * len(ids) or rows.select("seed", SEQUENCE_ID).rows() != list(pairs):
            raise ArtefactError(f"{what}: its sequences are not those of the predictions", hint="train it again")
        positions = class_positions(rows["answer"].to_list(), folder.content["classes"])
        predicted[scenario] = positions.reshape(len(seeds), len(ids))
    return SeedPredictions(part.truth, predicted)
