"""Speed of prediction by a blend of 5 + 5 folds, beside what notebooks do: `model.predict`, one network after another.

The blend is made from a small simulated study: LightGBM of 150 rounds and two-branch networks of default width, trained
for one epoch, as what the weights are makes no difference to time. Making it takes minutes; BFRBCTL_BENCH names a
folder to keep it in. `python -m pytest benchmarks/timings/test_prediction.py -s -m slow` prints the tables.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bfrbctl.arrays.ragged import AnyArray
from bfrbctl.artefacts.folders import open_folder
from bfrbctl.models.interface import model_kind
from bfrbctl.models.keras.inputs import prediction_batches, ready
from bfrbctl.models.keras.model import KerasFoldModel
from bfrbctl.models.keras.network.building import build_network, weight_names
from bfrbctl.prediction.predictor import Predictor
from bfrbctl.recordings.dataset import RecordingBatch
from bfrbctl.recordings.serving import clean_frames
from tests import reference

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

STEPS = (
    ("simulate", "raw", "--subjects", "8"),
    ("prepare", "raw", "data"),
    ("featurize", "data", "features"),
    ("train", "lgbm", "features", "lgbm", "--set", "n_rounds=150", "--select", "last"),
    ("train", "keras", "features", "keras", "--set", "network=two-branch", "--set", "epochs=1"),
    ("oof-blend", "lgbm", "keras", "blend"),
)
OPEN = """
import json, sys, time
began = time.perf_counter()
from bfrbctl import Predictor
import polars as pl
predictor = Predictor.open(sys.argv[1])
opened, used = time.perf_counter() - began, time.process_time()
for _, sequence in pl.read_parquet(sys.argv[2]).group_by("sequence_id", maintain_order=True):
    predictor.predict(sequence)
# VmHWM: ru_maxrss would begin with what the parent process had, as it outlives exec
rss_mb = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024 / 1e6
print(json.dumps({"open_s": opened, "open_cpu_s": used, "rss_mb": rss_mb}))
"""

BATCH = """
import sys, time
import numpy as np, polars as pl
from bfrbctl import Predictor
from bfrbctl.recordings.serving import clean_frames
predictor = Predictor.open(sys.argv[1])
table = pl.read_parquet(sys.argv[2])
some = clean_frames(table, None, layout=predictor.layout, rate_hz=predictor.rate_hz).batch
batch = some.take(np.tile(np.arange(some.n_sequences), 6))
predictor.predict_batch(some)
print("ready", flush=True)
for _ in sys.stdin:
    began = time.perf_counter()
    predictor.predict_batch(batch)
    print(batch.n_sequences / (time.perf_counter() - began), flush=True)
"""
ONE_CORE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS", "LOKY_MAX_CPU_COUNT"), "1")


@dataclass(frozen=True)
class FeatureGroup:
    """The blend, and test sequences as the gateway hands them out: a table of frames, and the row of the person."""

    path: Path
    predictor: Predictor
    sequences: list[tuple[pl.DataFrame, pl.DataFrame]]

    def recordings(self, position: int) -> RecordingBatch:
        layout, rate_hz = self.predictor.layout, self.predictor.rate_hz
        return clean_frames(*self.sequences[position], layout=layout, rate_hz=rate_hz).batch


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FeatureGroup:
    path = Path(os.environ.get("BFRBCTL_BENCH") or tmp_path_factory.mktemp("study"))
    path.mkdir(parents=True, exist_ok=True)
    if not (path / "blend" / "manifest.json").exists():
        for step in STEPS:
            subprocess.run([sys.executable, "-m", "bfrbctl", *step, "--quiet"], cwd=path, check=True)
    people = pl.read_csv(path / "raw" / "test_demographics.csv")
    table = pl.read_parquet(path / "raw" / "test.parquet")
    sequences = [
        (sequence, people.filter(pl.col("subject") == sequence["subject"][0]))
        for _, sequence in table.group_by("sequence_id", maintain_order=True)
    ]
    return FeatureGroup(path, Predictor.open(path / "blend"), sequences)


def seconds(function: Callable[..., object], *arguments: Any) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    function(*arguments)
    return time.perf_counter() - wall, time.process_time() - cpu


def shown(what: str, times: list[tuple[float, float]]) -> list[float]:
    wall, cpu = 1e3 * np.array(times).T
    figures = [*np.percentile(wall, [0, 50, 90, 99]), np.median(cpu)]
    print(f"{what:44}" + "".join(f"{figure:10.1f}" for figure in figures))
    return figures


def plain_ways(study: FeatureGroup, *, motion: bool = True) -> Callable[[int], Callable[[], object]]:
    """Give, for a sequence, what notebooks do: features frame by frame, `model.predict` of each fold's network."""
    folder = open_folder(study.path / "keras", "model")
    models: list[KerasFoldModel] = []
    networks: list[Any] = []
    for fold in range(5):
        start = f"fold-{fold}."
        files = {name.removeprefix(start): folder.read(name) for name in folder.files if name.startswith(start)}
        model: Any = model_kind("keras").load(files, classes=study.predictor.classes)
        built = build_network(model.spec.network, seed=0)
        network = built.predict
        for variable, name in zip(network.weights, weight_names(built), strict=True):
            variable.assign(model.members[0][name])
        models.append(model)
        networks.append(network)

    def prepared(position: int) -> Callable[[], object]:
        recordings = study.recordings(position)
        acc = recordings.acc.astype(np.float64)
        rot = np.nan_to_num(recordings.rot.astype(np.float64), nan=0.5)
        (features,) = study.predictor._features(recordings).values()
        inputs: list[dict[str, AnyArray]] = []
        for model in models:
            data = ready(features, model.spec.inputs, model.scaler)
            inputs += [padded for _, padded in prediction_batches(data, model.spec.inputs)]

        def run() -> object:
            frames = reference.motion(acc, rot, recordings.rate_hz) if motion else None
            return frames, [network.predict(x, verbose=0) for network, x in zip(networks, inputs, strict=True)]

        return run

    return prepared


def test_one_sequence(benchmark: Any, study: FeatureGroup) -> None:
    plain, predictor = plain_ways(study), study.predictor
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    for position in range(20):
        plain(position)()
    for position, sequence in enumerate(study.sequences):
        ours.append(seconds(predictor.predict, *sequence))
        if position % 8 == 0:
            theirs.append(seconds(plain(position)))
    print(f"\n{'one sequence, 5 + 5 folds; ms':44}" + "".join(f"{n:>10}" for n in ("min", "p50", "p90", "p99", "cpu")))
    slow, fast = shown("scipy a frame, model.predict a fold", theirs), shown("Predictor.predict", ours)
    print(f"faster by {slow[1] / fast[1]:.1f} (p50), {slow[4] / fast[4]:.1f} (processor)")
    print(f"p99 / p50 {fast[3] / fast[1]:.2f}")
    benchmark.extra_info.update(faster=round(slow[1] / fast[1], 1), p99_over_p50=round(fast[3] / fast[1], 2))
    benchmark.pedantic(predictor.predict, args=study.sequences[0], rounds=50)


def test_parts_of_one_sequence(benchmark: Any, study: FeatureGroup) -> None:
    predictor = study.predictor
    rounds = range(0, len(study.sequences), 4)
    batches = {position: study.recordings(position) for position in rounds}
    (features,) = predictor._features(batches[0]).values()
    computed = {position: next(iter(predictor._features(batch).values())) for position, batch in batches.items()}
    print(f"\n{'its parts; ms':44}" + "".join(f"{n:>10}" for n in ("min", "p50", "p90", "p99", "cpu")))
    shown("checks", [seconds(study.recordings, position) for position in rounds])
    shown("features", [seconds(predictor._features, batches[position]) for position in rounds])
    for member in predictor.members:
        times = [seconds(member.predict_proba, computed[position]) for position in rounds]
        shown(f"five folds of {member.name}", times)
    benchmark.pedantic(predictor.members[0].predict_proba, args=(features,), rounds=50)


def test_batch(benchmark: Any, study: FeatureGroup) -> None:
    """Beside it, as a measure of the machine in that hour: `model.predict` of five networks, one sequence."""
    table, people = (pl.concat(part) for part in zip(*study.sequences, strict=True))
    predictor = study.predictor
    some = clean_frames(table, people, layout=predictor.layout, rate_hz=predictor.rate_hz).batch
    plain = plain_ways(study, motion=False)(0)
    batch = some.take(np.tile(np.arange(some.n_sequences), 4))
    predictor.predict_batch(batch)
    times = []
    alone = []
    for _ in range(5):
        plain()
        alone += [seconds(plain) for _ in range(3)]
        times.append(seconds(predictor.predict_batch, batch))
    wall, cpu = np.median(times, axis=0)
    rate, five = batch.n_sequences / wall, float(np.median(alone, axis=0)[0])
    best, each = batch.n_sequences / min(times)[0], 1e3 * cpu / batch.n_sequences
    print(f"\nbatch of {batch.n_sequences}: {rate:.0f} sequences/s (best {best:.0f}), {each:.2f} ms of processor each;")
    print(f"model.predict of five for one: {1e3 * five:.0f} ms, in which a batch answers {rate * five:.0f}")
    benchmark.extra_info.update(sequences_per_second=round(rate), in_the_time_of_five_predicts=round(rate * five))
    benchmark.pedantic(predictor.predict_batch, args=(batch,), rounds=1)


def test_batch_in_two_processes(benchmark: Any, study: FeatureGroup) -> None:
    """What the workers of `bfrbctl predict` do, each with one core."""
    command = [sys.executable, "-c", BATCH, str(study.path / "blend"), str(study.path / "raw" / "test.parquet")]
    environment = {**os.environ, **ONE_CORE}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(command, **pipes) as one, subprocess.Popen(command, **pipes) as other:

        def answers() -> list[str]:
            return [process.stdout.readline() for process in (one, other) if process.stdout]

        def go() -> list[str]:
            for process in (one, other):
                print(file=process.stdin, flush=True)
            return answers()

        assert answers() == ["ready\n"] * 2
        rates = [sum(map(float, go())) for _ in range(3)]
        benchmark.pedantic(go, rounds=1)
    print(f"\ntwo processes: {np.median(rates):.0f} sequences/s (best {max(rates):.0f})")
    benchmark.extra_info.update(sequences_per_second=round(float(np.median(rates))))


def test_opening(benchmark: Any, study: FeatureGroup) -> None:
    command = [sys.executable, "-c", OPEN, str(study.path / "blend"), str(study.path / "raw" / "test.parquet")]
    told = json.loads(benchmark.pedantic(subprocess.check_output, args=(command,), rounds=1))
    print(f"\nopen with warm-up: {told['open_s']:.1f} s ({told['open_cpu_s']:.1f} s of processor), ", end="")
    print(f"{told['rss_mb']:.0f} MB at most, over {len(study.sequences)} answers")
    benchmark.extra_info.update(told)
