"""The members of a fold: boosters that differ in their seed, trained here or read from the scratch folder.

Where a fold has several, each is kept in the fold's scratch folder as soon as it is trained. So a killed run trains the
others only, and processes that share the folder can train one each.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bfrbctl.artefacts.files import parse_json, write_bytes
from bfrbctl.artefacts.folders import SEAL, check_seal, sealed
from bfrbctl.config import as_mapping
from bfrbctl.errors import ArtefactError
from bfrbctl.evaluation.selection import Curve
from bfrbctl.models.interface import FoldTask
from bfrbctl.models.lightgbm.config import Config
from bfrbctl.models.lightgbm.library import lgb, silence
from bfrbctl.models.lightgbm.training import Fold, Run, augmented, boost, check_task, strongest

FORMAT = 3
"""Of the files that members are kept in."""

_log = logging.getLogger("bfrbctl.training")


def train_members(task: FoldTask, config: Config, wanted: Sequence[int]) -> list[Run]:
    """Train some of a fold's `config.seeds` members; those that lie in `task.scratch` already are taken from there.

    The data is binned once for all that are to be trained, and not at all where there are none.

    Parameters
    ----------
    task, config
        What to learn from, and the settings.
    wanted
        Which members.

    Raises
    ------
    DataError
        When there is nothing to learn from.
    UsageError
        When the configuration does not fit the data.
    """
    check_task(task)
    silence()
    if config.seeds == 1:
        fold = _binned(task, config)
        return [boost(fold, member) for member in wanted]
    digest = task_digest(task, config)
    places = {member: task.scratch / f"lgbm-{member}.json" for member in wanted}
    found = {member: run for member, path in places.items() if (run := _found(path, digest)) is not None}
    missing = [member for member in wanted if member not in found]
    if missing:
        fold = _binned(task, config)
        for member in missing:
            found[member] = boost(fold, member)
            _keep(places[member], digest, found[member])
    return [found[member] for member in wanted]


def _binned(task: FoldTask, config: Config) -> Fold:
    n_features = len(task.train.features)
    rows = augmented(task, config)
    selected = np.arange(n_features, dtype=np.int64)
    if 0 < config.top_features < n_features:
        selected = strongest(Fold(task, config, rows, selected), config.top_features)
    return Fold(task, config, rows, selected)


def task_digest(task: FoldTask, config: Config) -> str:
    """Give a digest of all that training depends on; members kept under another one are trained again."""
    digest = hashlib.blake2b(digest_size=20)
    settings = json.dumps(as_mapping(config.model_copy(update={"threads": 0})), sort_keys=True)
    parts = (FORMAT, task.fold, task.classes, task.gestures, task.scorer, task.seed, task.train.features, settings)
    digest.update(repr((*parts, lgb.__version__)).encode())
    for batch, labels in ((task.train, task.train_labels), (task.valid, task.valid_labels)):
        digest.update(repr(batch.table.shape).encode())
        for values in (batch.table, labels):
            digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _keep(path: Path, digest: str, run: Run) -> None:
    content = {
        "digest": digest,
        "text": run.text.decode("ascii"),
        "curve": run.curve.as_content(),
        "quantized": run.quantized,
        "selected": run.selected.tolist(),
        "n_rows": run.n_rows,
        "rounds": list(run.rounds),
        "history": run.history,
    }
    write_bytes(path, json.dumps(sealed(content)).encode())


def _found(path: Path, digest: str) -> Run | None:
    """Read a member as it was kept; None where there is none or, with a warning, where the file is damaged."""
    if not path.is_file():
        return None
    try:
        content = parse_json(path.read_bytes(), path.name)
        if not isinstance(content, dict) or SEAL not in content:
            raise ArtefactError("it is not as it was written")
        check_seal(content, path.name)
    except (ArtefactError, OSError) as error:
        _log.warning("%s: the checkpoint is damaged (%s); this member is trained again", path, error)
        return None
    if content["digest"] != digest:
        return None
    return Run(
        text=content["text"].encode("ascii"),
        curve=Curve.of_content(content["curve"], what=path.name),
        quantized=content["quantized"],
        selected=np.array(content["selected"], dtype=np.int64),
        n_rows=content["n_rows"],
        rounds=tuple(content["rounds"]),
        history=content["history"],
    )
