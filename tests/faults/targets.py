"""What is damaged, and who reads it: every file that the program takes from outside."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bfrbctl.artefacts.files import encode_json
from bfrbctl.artefacts.folders import JOURNAL, MANIFEST, Folder, open_folder, sealed
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.config import as_mapping
from bfrbctl.ensemble.blending import aligned_members
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.classes import gesture_space
from bfrbctl.features import FeatureConfig
from bfrbctl.features import folder as feature_folder
from bfrbctl.features.featurization import featurize
from bfrbctl.models.interface import model_kind
from bfrbctl.prediction.predictor import Predictor
from bfrbctl.recordings import dataset
from bfrbctl.recordings.preparation import PrepareConfig, prepare, split_refs
from bfrbctl.recordings.raw import find_splits
from bfrbctl.training.cross_validation import CrossValidation, cross_validate
from tests.faults import mutations as m

FILE, LIE, RAW = "file", "lie", "raw"
"""A damaged file of a folder; one whose manifest was made to fit it; raw recordings, which have no digest."""


@dataclass(frozen=True)
class Target:
    """One kind of file and its reader.

    Parameters
    ----------
    folder
        Folder of the chain.
    files
        Regular expression of the names to choose from.
    damages
        One of them is drawn.
    trust
        FILE, LIE or RAW.
    use
        Reads the folder as a command does, and gives what came of it as bytes.
    share
        How many cases of a hundred.
    """

    folder: str
    files: str
    damages: tuple[m.Damage, ...]
    trust: str
    use: Callable[[Path], bytes]
    share: int = 4


def digest_of(folder: Folder) -> bytes:
    """Give other bytes for a folder of other content."""
    return "".join(f"{name} {entry.sha256}\n" for name, entry in sorted(folder.files.items())).encode()


def use_raw(path: Path) -> bytes:
    """Prepare the recordings."""
    splits = find_splits(path)
    config = PrepareConfig(folds=2, rows_per_file=400)
    with open_output(path.parent / "out", Job("dataset", as_mapping(config), split_refs(splits))) as output:
        folder = prepare(splits, output, config)
    for number in range(folder.content["n_files"]):
        batch, _ = dataset.read_recordings(folder, folder.read_parquet("sequences.parquet"), number)
        assert np.isfinite(batch.acc).all()
    return digest_of(folder)


def use_dataset(path: Path) -> bytes:
    """Featurize the dataset."""
    folder = open_folder(path, "dataset")
    config = FeatureConfig(families=("presence", "person", "motion", "moments"))
    with open_output(path.parent / "out", Job("features", {}, (folder.ref(),))) as output:
        return digest_of(featurize(folder, output, config))


def use_features(path: Path) -> bytes:
    """Read all parts, and train trees on one fold."""
    folder = open_folder(path, "features")
    index, batch = feature_folder.read_features(folder, labelled=False)
    kind = model_kind("lgbm")
    config = kind.config_class(n_rounds=1, min_data_in_leaf=2, threads=1)
    run = CrossValidation(folder, kind, config, (0,))
    with open_output(path.parent / "out", Job("model", {}, (folder.ref(),))) as output:
        list(cross_validate(run, output))
        digests = digest_of(open_folder(output.path))
    arrays = (batch.table, batch.frames, batch.tof, batch.phase, batch.offsets)
    return digests + b"".join(values.tobytes() for values in arrays) + str(index["sequence_id"].to_list()).encode()


def use_model(path: Path) -> bytes:
    """Open the model or blend and predict."""
    data = open_folder(path.parent / "data", "dataset")
    batch, _ = dataset.read_recordings(data, data.read_parquet("sequences.parquet"), 0)
    predictor = Predictor.open(path)
    proba = predictor.predict_batch(batch).proba
    assert proba.shape == (batch.n_sequences, len(predictor.classes))
    assert np.allclose(proba.sum(axis=1), 1, atol=1e-3)
    return proba.tobytes() + str(predictor.classes).encode()


def use_oof(path: Path) -> bytes:
    """Read the out-of-fold predictions beside those of a sound model, and score them."""
    folders = [open_folder(path.parent / "sound", "model"), open_folder(path, "model")]
    tables = aligned_members(folders)
    scores = oof.summarise(tables[1], gesture_space(folders[0].content))
    return json.dumps(scores).encode() + b"".join(part.proba.tobytes() for part in tables[1].values())


def use_journal(path: Path) -> bytes:
    """Continue the unfinished run."""
    splits = find_splits(path.parent / "raw")
    config = PrepareConfig(folds=2, rows_per_file=400)
    job = Job("dataset", as_mapping(config), split_refs(splits), seed=config.seed)
    with open_output(path, job, resume=True) as output:
        return digest_of(prepare(splits, output, config))


def use_table(path: Path) -> bytes:
    """Read one table and nothing else."""
    table = open_folder(path, "features").read_parquet("index.parquet")
    return str(table.to_dict(as_series=False)).encode()


TARGETS = {
    "raw CSV": Target("raw", r"t.*n\.csv", (m.in_csv, m.in_csv, m.in_bytes), RAW, use_raw, 16),
    "raw subjects": Target("raw", r".*demographics\.csv", (m.in_csv, m.in_bytes), RAW, use_raw, 6),
    "raw Parquet": Target("rawp", r".*\.parquet", (m.in_bytes, m.in_footer, m.in_pages, m.in_table), RAW, use_raw, 12),
    "manifest of a dataset": Target("data", r"manifest\.json", (m.in_bytes,), FILE, use_dataset, 3),
    "manifest of features": Target("features", r"manifest\.json", (m.in_bytes,), FILE, use_features, 2),
    "manifest of a model": Target("lgbm", r"manifest\.json", (m.in_bytes,), FILE, use_model, 3),
    "manifest of a blend": Target("blend", r"manifest\.json", (m.in_bytes,), FILE, use_model, 3),
    "file of a dataset": Target("data", r".*\.parquet", (m.in_bytes,), FILE, use_dataset, 2),
    "file of features": Target("features", r".*\.parquet", (m.in_bytes,), FILE, use_features, 2),
    "file of a model": Target("lgbm", r"[^m].*", (m.in_bytes,), FILE, use_model, 2),
    "file of a blend": Target("blend", r"(member|weights).*", (m.in_bytes,), FILE, use_model, 2),
    "resealed manifest of a dataset": Target("data", r"manifest\.json", (m.in_json,), LIE, use_dataset, 5),
    "resealed manifest of features": Target("features", r"manifest\.json", (m.in_json,), LIE, use_features, 4),
    "resealed manifest of a model": Target("lgbm", r"manifest\.json", (m.in_json,), LIE, use_model, 5),
    "resealed manifest of a blend": Target("blend", r"manifest\.json", (m.in_json,), LIE, use_model, 5),
    "tables of a dataset": Target(
        "data", r"[fs].*\.parquet", (m.in_bytes, m.in_footer, m.in_pages, m.in_table), LIE, use_dataset, 10
    ),
    "tables of features": Target(
        "features", r".*\.parquet", (m.in_bytes, m.in_footer, m.in_pages, m.in_table), LIE, use_features, 10
    ),
    "Parquet itself": Target("features", r"index\.parquet", (m.in_bytes, m.in_footer, m.in_pages), LIE, use_table, 40),
    "LightGBM text": Target("lgbm", r"fold.*\.txt", (m.in_trees, m.in_trees, m.in_bytes), LIE, use_model, 10),
    "LightGBM description": Target("lgbm", r"fold.*\.json", (m.in_json, m.in_bytes), LIE, use_model, 4),
    "out-of-fold predictions": Target(
        "lgbm", r"oof\.parquet", (m.in_bytes, m.in_footer, m.in_pages, m.in_table), LIE, use_oof, 8
    ),
    "weights of a blend": Target("blend", r"weights\.json|member-.\.json", (m.in_json, m.in_bytes), LIE, use_model, 8),
    "journal": Target("unfinished", r"journal\.json", (m.in_bytes, m.in_json), FILE, use_journal, 4),
    "npz weights": Target("keras", r"fold.*\.npz", (m.in_arrays,), LIE, use_model, 8),
    "network description": Target("keras", r"fold.*keras\.json", (m.in_json, m.in_bytes), LIE, use_model, 4),
}


def damaged(target: Target, rng: m.Rng, base: Path, work: Path) -> Path:
    """Copy a folder of the chain and damage one file of it."""
    out = work / target.folder
    shutil.copytree(base / target.folder, out)
    file = m.pick(rng, _matching(out, target.files))
    file.write_bytes(m.pick(rng, target.damages)(rng, file.read_bytes()))
    if target.trust == LIE:
        make_fit(out, file)
    return out


def make_fit(folder: Path, file: Path) -> None:
    """List a changed file in the manifest as if it had always been so, and seal the manifest again."""
    content = (folder / MANIFEST).read_bytes()
    try:
        manifest = json.loads(content)
        if file.name != MANIFEST:
            changed = file.read_bytes()
            manifest["files"][file.name] = {"size": len(changed), "sha256": hashlib.sha256(changed).hexdigest()}
        (folder / MANIFEST).write_bytes(encode_json(sealed(manifest)))
    except (ValueError, RecursionError, AttributeError):
        (folder / MANIFEST).write_bytes(content)  # too broken to be sealed


def _matching(folder: Path, pattern: str) -> Sequence[Path]:
    found = [path for path in sorted(folder.iterdir()) if re.fullmatch(pattern, path.name)]
    return [path for path in found if path.name != JOURNAL or folder.name == "unfinished"]
