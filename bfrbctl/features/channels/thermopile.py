"""Frame channels of the thermopiles."""

import numpy as np

from bfrbctl.arrays.ragged import Float64, differences
from bfrbctl.features.channels.canonical import Canonical
from bfrbctl.recordings.dataset import THM, Column
from bfrbctl.schema import SensorLayout


def channels(recordings: Canonical) -> dict[str, Float64]:
    """Compute the thermopiles' frame channels.

    Returns
    -------
    name -> float64, (n_frames,), in the order of `describe`; NaN where missing, 0 for the presence flag.
    """
    sensors, thm = recordings.layout.thm, recordings.thm
    if not sensors:
        return {}
    rate = differences(thm, recordings.offsets) * recordings.rate_hz
    measured = ~np.isnan(thm)
    count = np.sum(measured, axis=1)
    total = np.zeros(len(thm))
    for column in np.where(measured, thm, 0.0).T:
        total = total + column
    low = np.where(measured, thm, np.inf).min(axis=1)
    high = np.where(measured, thm, -np.inf).max(axis=1)
    return {
        **{f"thm_{sensor}": thm[:, i] for i, sensor in enumerate(sensors)},
        **{f"thm_{sensor}_rate": rate[:, i] for i, sensor in enumerate(sensors)},
        "thm_mean": np.where(count > 0, total / np.maximum(count, 1), np.nan),
        "thm_spread": np.where(count > 0, high - low, np.nan),
        "thm_present": (count > 0).astype(np.float64),
    }


def describe(layout: SensorLayout) -> tuple[Column, ...]:
    """Say what the thermopiles' frame channels are."""
    if not layout.thm:
        return ()
    names = layout.thm_columns
    return (
        *(Column(name, "temperature", THM, "degC", f"thermopile {name[4:]}", "MLX90632 data sheet") for name in names),
        *(Column(f"{n}_rate", "temperature", THM, "degC/s", f"({n}[t] - {n}[t-1]) x rate_hz") for n in names),
        Column("thm_mean", "temperature", THM, "degC", "mean of the thermopiles that measured"),
        Column("thm_spread", "temperature", THM, "degC", "warmest less coldest of the thermopiles that measured"),
        Column("thm_present", "presence", THM, "1", "1 where any thermopile measured", when_missing=0.0),
    )
