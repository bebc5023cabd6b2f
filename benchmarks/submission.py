"""Play a submission through the competition's gateway on simulated people, and hold its true score beside the OOF one.

    bfrbctl simulate raw/ --split test --answers --set test_subjects=40 --set imu_only=0
    python benchmarks/submission.py raw/ model/ 22

The raw folder has a labelled test split of people that the model has never seen. Every sequence of theirs is given to
the function that the gateway calls, one a call, in random order: once as it was recorded, once with thermopile and ToF
columns null, as half of the competition's test is. Prints a Markdown table of both scenarios: the out-of-fold score,
the true score of the answers with a 95 % interval that draws whole people, their difference, and the milliseconds that
a call took.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from measuring import header, parser, row, timed

from bfrbctl.artefacts.folders import open_folder
from bfrbctl.evaluation.bootstrap import score_intervals
from bfrbctl.evaluation.oof import OofScenario, class_positions
from bfrbctl.prediction.gateway import make_listener
from bfrbctl.prediction.predictor import Predictor
from bfrbctl.schema import ALL_SENSORS, GESTURE, IMU_ONLY, SCENARIOS, SEQUENCE_ID, SUBJECT


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
    predict = make_listener(lambda: Predictor.open(model))
    predict.warm()  # type: ignore[attr-defined]
    rows = []
    for name, sequence, person in sequences(raw, n_people):
        for scenario, given in ((ALL_SENSORS, sequence), (IMU_ONLY, imu_only(sequence))):
            answer, seconds, _ = timed(predict, given, person)
            rows.append((name, sequence[SUBJECT][0], scenario, answer, 1e3 * seconds))
    return pl.DataFrame(rows, schema=[SEQUENCE_ID, SUBJECT, "scenario", "answer", "ms"], orient="row")


def as_scenario(part: pl.DataFrame, classes: Sequence[str]) -> OofScenario:
    """Give answers as predictions that are sure of them."""
    answered = class_positions(part["answer"].to_list(), classes)
    truth = class_positions(part[GESTURE].to_list(), classes)
    return OofScenario(part.select(SEQUENCE_ID, SUBJECT), truth, np.eye(len(classes), dtype=np.float32)[answered])


def measure(raw: Path, model: Path, n_people: int | None) -> None:
    """Answer, score, and print."""
    folder = open_folder(model, "model", "blend")
    targets, estimate = folder.content["targets"], folder.read_json("metrics.json")["scenarios"]
    truth = pl.read_parquet(raw / "test_answers.parquet").select(SEQUENCE_ID, GESTURE)
    given = answers(raw, model, n_people).join(truth, on=SEQUENCE_ID, how="left", validate="m:1")
    parts = {scenario: given.filter(scenario=scenario) for scenario in SCENARIOS}
    predicted = {scenario: as_scenario(part, folder.content["classes"]) for scenario, part in parts.items()}
    intervals = score_intervals(predicted, targets, seed=0)
    scores = ("OOF", "true score", "95 %", "difference")
    print(header("scenario", "sequences", "people", *scores, "ms a call: p50", "p99"))
    for scenario, part in parts.items():
        score, expected = predicted[scenario].score(targets).score, float(estimate[scenario]["score"])
        low, high = intervals[scenario]
        p50, p99 = np.quantile(part["ms"].to_numpy(), [0.5, 0.99])
        figures = (f"{expected:.4f}", f"{score:.4f}", f"{low:.3f} to {high:.3f}", f"{score - expected:+.4f}")
        print(row(scenario, part.height, part[SUBJECT].n_unique(), *figures, f"{p50:.0f}", f"{p99:.0f}"))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("raw", type=Path, help="raw folder with a test split and its answers")
    arguments.add_argument("model", type=Path, help="model or blend folder")
    arguments.add_argument("people", type=int, nargs="?", help="the first so many people only")
    chosen = arguments.parse_args()
    measure(chosen.raw, chosen.model, chosen.people)


if __name__ == "__main__":
    main()
