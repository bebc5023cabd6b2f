"""Make the folders of tests/golden anew: python tests/golden/make.py, in an environment that has bfrbctl.

They are what bfrbctl 0.1.0 wrote, and stand for the folders that users have. Make them anew only when a format is given
up on purpose. Their recordings are stored, not simulated by the tests: the last bits of a sine depend on the processor.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl

from bfrbctl import Predictor

GOLDEN = Path(__file__).parent
SPLITS = ("train", "test")
GESTURES = ("Cheek - pinch skin", "Neck - scratch", "Text on phone", "Wave hello")
LABELS = ("sequence_type", "orientation", "behavior", "phase", "gesture")

SIMULATE = "simulate raw --subjects 3 --set test_subjects=1 --workers 1"
COMMANDS = {
    "data": "prepare raw data --folds 2 --workers 1",
    "features": "featurize data features --workers 1 --families presence --families person --families rotation"
    " --families temperature --families distance --families trend",
    "lgbm": "train lgbm features lgbm --workers 1 --seeds 2"
    " --set n_rounds=4 --set num_leaves=4 --set min_data_in_leaf=1",
    "joint": "train lgbm features joint --workers 1 --labels joint --top-features 40"
    " --set n_rounds=4 --set num_leaves=4 --set min_data_in_leaf=1",
    "helios": "train keras features helios --workers 1 --epochs 2 --set width=0.01 --set batch_size=4",
    "two-branch": "train keras features two-branch --workers 1 --epochs 1 --folds 0"
    " --set network=two-branch --set width=0.01 --set batch_size=4",
    "blend": "oof-blend lgbm helios blend",
    "assigned": "oof-blend joint assigned --single --assign causal",
    "predictions": "predict raw blend predictions --workers 1",
    "scored": "predict data joint scored --split train --workers 1",
}
MODELS = ("lgbm", "joint", "helios", "two-branch", "blend", "assigned")


def run(command: str, folder: Path) -> None:
    """Run one command of bfrbctl inside a folder, so that no manifest names a path of this machine."""
    subprocess.run([sys.executable, "-m", "bfrbctl", *command.split(), "--quiet"], cwd=folder, check=True)


def thinned(table: pl.DataFrame) -> pl.DataFrame:
    """Keep one thermopile, one ToF sensor, three decimals, and one short sequence of each subject and kind."""
    table = table.select(pl.exclude(r"^(thm_[2-9]|tof_[2-9]_v\d+)$"))
    kind = pl.col("gesture").first() if "gesture" in table.columns else pl.col("thm_1").is_null().all()
    sequences = table.group_by("sequence_id").agg(pl.len(), pl.col("subject").first(), kind.alias("kind"))
    if "gesture" in table.columns:
        sequences = sequences.filter(pl.col("kind").is_in(GESTURES))
    shortest = sequences.sort("len", "sequence_id").unique(["subject", "kind"], keep="first", maintain_order=True)
    kept = table.filter(pl.col("sequence_id").is_in(shortest["sequence_id"].to_list()))
    return kept.with_columns(pl.col("^(acc|rot|thm)_.*$").round(3).cast(pl.Float32))


def make_recordings(work: Path) -> None:
    """Simulate a few subjects and keep a few of their sequences."""
    run(SIMULATE, work)
    (GOLDEN / "raw").mkdir()
    for split in SPLITS:
        table = thinned(pl.read_parquet(work / "raw" / f"{split}.parquet"))
        table.write_parquet(GOLDEN / "raw" / f"{split}.parquet", compression_level=19)
        shutil.copy(work / "raw" / f"{split}_demographics.csv", GOLDEN / "raw")


def recordings() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Give the frames of both splits without labels, and the demographics of all subjects."""
    frames = [pl.read_parquet(GOLDEN / "raw" / f"{split}.parquet").drop(LABELS, strict=False) for split in SPLITS]
    subjects = [pl.read_csv(GOLDEN / "raw" / f"{split}_demographics.csv") for split in SPLITS]
    return pl.concat(frames), pl.concat(subjects)


def probabilities(model: str) -> pl.DataFrame:
    """Predict all recordings with one model: model, sequence_id, one float32 column a gesture."""
    table = Predictor.open(GOLDEN / model).predict_proba(*recordings())
    return table.sort("sequence_id").insert_column(0, pl.lit(model).alias("model"))


def column_statistics(folder: Path) -> pl.DataFrame:
    """Describe every float32 column of a feature folder: file, name, n_missing, mean, sd and maximum, in float64."""
    rows = []
    for files in ("sequences", "frames"):
        table = pl.concat(map(pl.read_parquet, sorted(folder.glob(f"{files}*.parquet"))))
        for column in table.select(pl.col(pl.Float32)).cast(pl.Float64):
            kept = column.fill_nan(None).drop_nulls()
            n_missing = column.len() - kept.len()
            rows.append((files, column.name, n_missing, kept.mean(), kept.std(ddof=0), kept.max()))
    return pl.DataFrame(rows, schema=["file", "name", "n_missing", "mean", "sd", "maximum"], orient="row")


def digest(folder: str) -> str:
    """Ask `inspect artefact` for the digest of a folder."""
    command = [sys.executable, "-m", "bfrbctl", "inspect", "artefact", folder, "--json"]
    done = subprocess.run(command, cwd=GOLDEN, check=True, capture_output=True)
    return str(json.loads(done.stdout)["facts"]["digest"])


def main() -> None:
    """Remove the folders that are there and make all of them."""
    for path in GOLDEN.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    with tempfile.TemporaryDirectory() as name:
        make_recordings(Path(name))
        for command in COMMANDS.values():
            run(command, GOLDEN)
        shutil.copytree(GOLDEN / "data", Path(name) / "data")
        run("featurize data features --workers 1", Path(name))
        statistics = column_statistics(Path(name) / "features").with_columns(pl.col(pl.Float64).cast(pl.Float32))
        statistics.write_parquet(GOLDEN / "all_features.parquet", compression_level=19)
    pl.concat(map(probabilities, MODELS)).write_parquet(GOLDEN / "probabilities.parquet")
    digests = {folder: digest(folder) for folder in COMMANDS}
    (GOLDEN / "digests.json").write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
