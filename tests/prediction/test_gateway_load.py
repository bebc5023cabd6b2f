"""The serving callable under load: any input, however often, gets a gesture, and memory stays flat."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest

from bfrbctl.artefacts.folders import Folder, open_folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.ensemble.blending import BlendConfig, blend
from bfrbctl.models.interface import model_kind
from bfrbctl.prediction import gateway
from bfrbctl.prediction.predictor import Predictor
from bfrbctl.training.cross_validation import CrossValidation, cross_validate
from tests.raw_recordings import demographics, raw_frames

Table = pl.DataFrame
Breaking = Callable[[Table, np.random.Generator], Any]
ACC = ("acc_x", "acc_y", "acc_z")
CALLS = int(os.environ.get("BFRBCTL_LOAD_CALLS", "10000"))


def repeated(table: Table, n_frames: int) -> Table:
    longer = pl.concat([table] * (n_frames // table.height + 1)).head(n_frames)
    return longer.with_columns(sequence_counter=pl.int_range(n_frames))


def filled(table: Table, value: object) -> Table:
    return table.with_columns(pl.lit(value).alias(name) for name in sensors(table))


def sensors(table: Table) -> list[str]:
    return [name for name in table.columns if name.startswith(("acc_", "rot_", "thm_", "tof_"))]


def some_missing(table: Table, rng: np.random.Generator) -> Table:
    return table.drop(rng.choice(table.columns, size=int(rng.integers(1, table.width)), replace=False).tolist())


def some_set(table: Table, rng: np.random.Generator, values: tuple[float, ...]) -> Table:
    """Replace a tenth of all readings."""
    changed = {}
    for name in sensors(table):
        column = np.array(table[name].cast(pl.Float64).to_numpy())
        hit = rng.random(column.size) < 0.1
        column[hit] = rng.choice(values, int(hit.sum()))
        changed[name] = pl.Series(name, column)
    return table.with_columns(**changed)


def as_text(table: Table, rng: np.random.Generator) -> Table:
    text = table.with_columns(pl.col(sensors(table)).cast(pl.String))
    return text.with_columns(
        pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit("n/a")).otherwise("acc_x").alias("acc_x")
    )


SOUND: dict[str, Breaking] = {
    "as it came": lambda t, rng: t,
    "any order of rows and columns": lambda t, rng: t.select(rng.permutation(t.columns).tolist()).sample(
        fraction=1.0, shuffle=True, seed=int(rng.integers(2**31))
    ),
    "more columns": lambda t, rng: t.with_columns(moon=pl.lit("full"), tof_9_v0=pl.lit(3.0), thm_8=pl.lit(None)),
    "float64 numbers": lambda t, rng: t.with_columns(pl.col(sensors(t)).cast(pl.Float64)),
    "the same row twice": lambda t, rng: pl.concat([t, t.head(3)]),
}
"""Changes that must not change the prediction of the original sequence."""

BROKEN: dict[str, Breaking] = {
    "no rows": lambda t, rng: t.clear(),
    "no columns": lambda t, rng: Table(),
    "no table": lambda t, rng: None,
    "one frame": lambda t, rng: t.head(1),
    "two frames": lambda t, rng: t.head(2),
    "3,000 frames": lambda t, rng: repeated(t, 3000),
    "nothing but nulls": lambda t, rng: t.with_columns(pl.lit(None).alias(name) for name in t.columns),
    "sensors all null": lambda t, rng: filled(t, None),
    "sensors all zero": lambda t, rng: filled(t, 0.0),
    "sensors all NaN": lambda t, rng: filled(t, float("nan")),
    "NaN and infinity here and there": lambda t, rng: some_set(t, rng, (np.nan, np.inf, -np.inf)),
    "absurd numbers here and there": lambda t, rng: some_set(t, rng, (1e38, -1e300, 1e-320, 70_000.0, -2.0, 0.5)),
    "columns missing": some_missing,
    "no acceleration": lambda t, rng: t.drop(ACC),
    "no rotation": lambda t, rng: t.drop("^rot_.*$"),
    "rotation null": lambda t, rng: t.with_columns(pl.lit(None).alias(f"rot_{name}") for name in "wxyz"),
    "an IMU-only device": lambda t, rng: t.drop("^thm_.*$", "^tof_.*$"),
    "one pixel column": lambda t, rng: t.drop([name for name in t.columns if name.startswith("tof_")][1:]),
    "counters all the same": lambda t, rng: t.with_columns(sequence_counter=1),
    "counters null": lambda t, rng: t.with_columns(sequence_counter=pl.lit(None, dtype=pl.Int64)),
    "counters with gaps": lambda t, rng: t.with_columns(
        sequence_counter=pl.Series(rng.integers(-(2**62), 2**62, t.height))
    ),
    "counters as text": lambda t, rng: t.with_columns(sequence_counter=pl.lit("first")),
    "several subjects": lambda t, rng: t.with_columns(subject=pl.Series([f"S{k % 3}" for k in range(t.height)])),
    "an unknown subject": lambda t, rng: t.with_columns(subject=pl.lit("unknown")),
    "several sequences": lambda t, rng: t.with_columns(
        sequence_id=pl.Series([f"Q{k % 4}" for k in range(t.height)], dtype=pl.String)
    ),
    "text in numbers": as_text,
    "lists in numbers": lambda t, rng: t.with_columns(acc_y=pl.lit([1.0, 2.0]), thm_1=pl.lit([1.0])),
    "structs in numbers": lambda t, rng: t.with_columns(tof_1_v3=pl.struct(pl.lit(1))),
    "dates in numbers": lambda t, rng: t.with_columns(acc_z=pl.date(2020, 1, 1), rot_w=pl.datetime(2020, 1, 1)),
    "truth values in numbers": lambda t, rng: filled(t, True),
    "categories": lambda t, rng: t.with_columns(pl.col("subject", "sequence_id").cast(pl.Categorical)),
    "numbers as names": lambda t, rng: t.with_columns(subject=pl.lit(7), sequence_id=pl.lit(8.5)),
    "small integers": lambda t, rng: t.with_columns(pl.col(sensors(t)).fill_null(0).clip(-1, 100).cast(pl.Int8)),
    "decimals": lambda t, rng: t.with_columns(pl.col(ACC).cast(pl.Decimal(20, 4))),
}
"""What must give a gesture; each maker gets a sound sequence."""

DEMOGRAPHICS: tuple[Callable[[Table], Any], ...] = (
    lambda t: t,
    lambda t: t.clear(),
    lambda t: Table(),
    lambda t: t.drop("age", "height_cm"),
    lambda t: t.with_columns(age=pl.lit("old"), sex=pl.lit(None)),
    lambda t: pl.concat([t, t]),
    lambda t: t.with_columns(subject=pl.lit(None, dtype=pl.String)),
    lambda t: None,
)


class Stream:
    """Calls in random order, sound and broken ones mixed; the same seed gives the same calls."""

    def __init__(self, predictor: Predictor, seed: int) -> None:
        table = raw_frames(subjects=3, seed=21, labelled=False)
        self.rng = np.random.default_rng(seed)
        self.people = demographics(table)
        self.sequences = [part for _, part in table.group_by("sequence_id", maintain_order=True)]
        self.expected = [predictor.predict(sequence, self.person(sequence)) for sequence in self.sequences]
        self.predictor = predictor
        self.served: dict[str, int] = {}

    def person(self, sequence: Table) -> Table:
        return self.people.filter(pl.col("subject") == sequence["subject"][0])

    def call(self, listener: Callable[[Any, Any], str], name: str) -> float:
        """Make one call, check its response, give its seconds."""
        position = int(self.rng.integers(len(self.sequences)))
        sequence = self.sequences[position]
        person = self.person(sequence)
        if name in SOUND:
            given = SOUND[name](sequence, self.rng)
        else:
            given = BROKEN[name](sequence, self.rng)
            person = DEMOGRAPHICS[int(self.rng.integers(len(DEMOGRAPHICS)))](person)
        began = time.perf_counter()
        gesture = listener(given, person)
        seconds = time.perf_counter() - began
        assert type(gesture) is str
        assert gesture in self.predictor.classes
        if name in SOUND:
            assert gesture == self.expected[position], name
        self.served[name] = self.served.get(name, 0) + 1
        return seconds

    def names(self, n_calls: int) -> list[str]:
        """Every kind as often as any other, half of the calls sound, in random order."""
        kinds = [*BROKEN, *(list(SOUND) * (len(BROKEN) // len(SOUND)))]
        return [kinds[k] for k in self.rng.permutation(np.arange(n_calls) % len(kinds))]


@pytest.fixture(autouse=True)
def unheard_logs() -> Iterator[None]:
    """Let what the callable logs go unheard: pytest would keep thousands of tracebacks, which is memory that grows."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_every_kind_of_broken_sequence_gets_a_gesture_and_harms_none_after_it(blend_folder: Folder) -> None:
    predictor = Predictor.open(blend_folder.path)
    stream = Stream(predictor, seed=1)
    listener = gateway.make_listener(lambda: predictor)
    for name in stream.names(200):
        stream.call(listener, name)
    assert set(stream.served) == {*SOUND, *BROKEN}


@pytest.mark.parametrize("name", SOUND)
def test_what_does_not_matter_changes_no_prediction(blend_folder: Folder, name: str) -> None:
    predictor = Predictor.open(blend_folder.path)
    stream = Stream(predictor, seed=2)
    for _ in range(4):
        stream.call(lambda sequence, person: predictor.predict(sequence, person), name)


@pytest.fixture(scope="module")
def served_blend(feature_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small LightGBM member and a small Keras member."""
    base = tmp_path_factory.mktemp("served")
    settings = {"lgbm": {"n_rounds": 20}, "keras": {"width": 0.25, "epochs": 1, "batch_size": 16}}
    folders = []
    for kind, values in settings.items():
        module = model_kind(kind)
        run = CrossValidation(feature_folder, module, module.config_class(**values))
        with open_output(base / kind, Job("model", {"model": kind}, (feature_folder.ref(),))) as output:
            for _ in cross_validate(run, output):
                pass
        folders.append(open_folder(base / kind, "model"))
    with open_output(base / "blend", Job("blend", {}, tuple(folder.ref() for folder in folders))) as output:
        blend(folders, output, BlendConfig(weights=("lgbm=0.5", "keras=0.5")))
    return base / "blend"


@pytest.mark.slow
def test_ten_thousand_calls_get_ten_thousand_gestures_in_flat_memory(
    served_blend: Path, record_property: Callable[[str, object], None]
) -> None:
    predictor = Predictor.open(served_blend)
    stream = Stream(predictor, seed=3)
    listener = gateway.make_listener(lambda: predictor)
    process = psutil.Process()
    seconds: list[float] = []
    resident: list[tuple[int, float]] = []
    for number, name in enumerate(stream.names(CALLS)):
        seconds.append(stream.call(listener, name))
        if number >= 0.3 * CALLS and number % 50 == 0:
            resident.append((number, process.memory_info().rss / 1e6))
    calls, megabytes = np.array(resident).T
    slope = 1000.0 * float(np.polyfit(calls, megabytes, 1)[0])
    p50, p99 = 1e3 * np.percentile(seconds, [50, 99])
    times = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, {max(seconds):.2f} s at most"
    memory = f"{megabytes[-1]:.0f} MB resident, {slope:+.2f} MB per 1,000 calls"
    record_property(f"{len(seconds)} responses under load", f"{times}; {memory}")
    assert sum(stream.served.values()) == CALLS
    assert slope < 1.0
