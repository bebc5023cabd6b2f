"""The smallest sound content of the manifest of each kind of folder, for tests of what surrounds it."""

from typing import Any

_RECORDED: dict[str, Any] = {"rate_hz": 10.0, "thm": [], "tof": [], "classes": [], "targets": [], "n_folds": 0}
_COUNTS: dict[str, Any] = {"n_sequences": {}, "n_frames": 0, "n_files": 0}

CONTENT: dict[str, dict[str, Any]] = {
    "dataset": {**_RECORDED, **_COUNTS, "n_subjects": 0, "n_findings": 0},
    "features": {**_RECORDED, **_COUNTS, "n_features": 0, "n_channels": 0},
    "model": {**_RECORDED, "model": "lgbm", "folds": [], "features": {}, "prior": []},
    "blend": {**_RECORDED, "members": [], "prior": []},
    "predictions": {"classes": [], "targets": [], "n_sequences": 0, "n_problems": 0},
    "raw": {"n_subjects": 0, "rate_hz": 10.0},
}
