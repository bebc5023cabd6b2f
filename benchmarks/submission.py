"""Play a submission through the competition's gateway on simulated people, and hold its true score beside the OOF one.

usage: python benchmarks/submission.py RAW MODEL_OR_BLEND [PEOPLE]

RAW has a labelled test split of people that the model has never seen, such as
`bfrbctl simulate RAW --split test --answers --set test_subjects=40 --set imu_only=0` writes. Every sequence (of the
first PEOPLE of them) is given to the function that the gateway calls, one a call, in random order: once as it was
recorded, once with thermopile and ToF columns null, as half of the competition's test is. Prints a Markdown table of
both scenarios: the out-of-fold score, the true score of the answers with a 95 % interval that draws whole people, their
difference, and the milliseconds that a call took.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from bfrbctl.folders import open_folder
from bfrbctl.kaggle import answering
from bfrbctl.metrics import hierarchical_f1
from bfrbctl.oof import class_positions
from bfrbctl.prediction import Predictor
from bfrbctl.schema import ALL_SENSORS, GESTURE, IMU_ONLY, SEQUENCE_ID, SUBJECT

N_DRAWS = 1000


def sequences(raw: Path, n_people: int | None) -> Iterator[tuple[str, pl.DataFrame, pl.DataFrame]]:
    """Give the sequences of the test split with the row of their subject, in random order within each person.

    One person after the other, so that a large file need not fit into memory.
    """
    people = pl.read_csv(raw / "test_demographics.csv").sort(SUBJECT)
    scan = pl.scan_parquet(raw / "test.parquet")
    rng = np.random.default_rng(0)
    for subject in people[SUBJECT].to_list()[:n_people]:
        parts = scan.filter(pl.col(SUBJECT) == subject).collect().partition_by(SEQUENCE_ID, as_dict=True)
        person = people.filter(pl.col(SUBJECT) == subject)
        names = sorted(str(key[0]) for key in parts)
        for name in rng.permutation(names).tolist():
            yield name, parts[(name,)], person


def imu_only(sequence: pl.DataFrame) -> pl.DataFrame:
    """Null what half of the competition's test lacks."""
    return sequence.with_columns(
        pl.lit(None, dtype=sequence.schema[name]).alias(name)
        for name in sequence.columns
        if name.startswith(("thm_", "tof_"))
    )


def answers(raw: Path, model: Path, n_people: int | None) -> pl.DataFrame:
    """Give each sequence to the gateway's function in both scenarios: sequence_id, subject, scenario, answer, ms."""
    predict = answering(lambda: Predictor.open(model))
    predict.warm()  # type: ignore[attr-defined]
    rows = []
    for name, sequence, person in sequences(raw, n_people):
        for scenario, given in ((ALL_SENSORS, sequence), (IMU_ONLY, imu_only(sequence))):
            begin = time.perf_counter()
            answer = predict(given, person)
            rows.append((name, sequence[SUBJECT][0], scenario, answer, 1e3 * (time.perf_counter() - begin)))
    return pl.DataFrame(rows, schema=[SEQUENCE_ID, SUBJECT, "scenario", "answer", "ms"], orient="row")


def interval(truth: np.ndarray, given: np.ndarray, people: np.ndarray, targets: list[bool]) -> tuple[float, float]:
    """Tell the 95 % interval of the score, drawing whole people with replacement."""
    rng = np.random.default_rng(0)
    names, group = np.unique(people, return_inverse=True)
    scores = []
    for _ in range(N_DRAWS):
        times = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
        scores.append(hierarchical_f1(truth, given, targets, weights=times[group].astype(np.float64)).score)
    low, high = np.quantile(scores, [0.025, 0.975])
    return float(low), float(high)


def main(raw: Path, model: Path, n_people: int | None) -> None:
    """Answer, score, and print."""
    folder = open_folder(model, "model", "blend")
    classes, targets = tuple(folder.content["classes"]), list(folder.content["targets"])
    estimate = folder.read_json("metrics.json")["scenarios"]
    truth = pl.read_parquet(raw / "test_answers.parquet").select(SEQUENCE_ID, GESTURE)
    given = answers(raw, model, n_people).join(truth, on=SEQUENCE_ID, how="left", validate="m:1")
    print("| scenario | sequences | people | OOF | true score | 95 % | difference | ms a call: p50 | p99 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for scenario in (ALL_SENSORS, IMU_ONLY):
        part = given.filter(pl.col("scenario") == scenario)
        true = class_positions(part[GESTURE].to_list(), classes)
        answered = class_positions(part["answer"].to_list(), classes)
        people = part[SUBJECT].to_numpy()
        score = hierarchical_f1(true, answered, targets).score
        low, high = interval(true, answered, people, targets)
        expected = float(estimate[scenario]["score"])
        p50, p99 = np.quantile(part["ms"].to_numpy(), [0.5, 0.99])
        figures = f"{expected:.4f} | {score:.4f} | {low:.3f} to {high:.3f} | {score - expected:+.4f}"
        print(f"| {scenario} | {part.height} | {len(np.unique(people))} | {figures} | {p50:.0f} | {p99:.0f} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
