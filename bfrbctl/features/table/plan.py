"""The plan: which statistics, over which windows, of which signals make the sequence table.

A signal is a frame channel. Its statistics are named `<signal>__<statistic>` over the whole sequence and
`<signal>__<window>_<statistic>` over a part of it.
"""

from dataclasses import dataclass
from functools import lru_cache

from bfrbctl.features.settings import FeatureConfig
from bfrbctl.features.table.blocks import WHOLE, WINDOWS
from bfrbctl.features.table.peaks import PEAKS, RUNS
from bfrbctl.features.table.spectral import SPECTRAL
from bfrbctl.features.table.statistics import (
    AUTOCORRELATION,
    AVERAGE,
    CROSSINGS,
    ENTROPY,
    GRADIENT,
    LEVEL,
    MOMENTS,
    ORDER,
    TREND,
    ZERO_CROSSINGS,
    Statistics,
)
from bfrbctl.recordings.dataset import Column
from bfrbctl.schema import SensorLayout

LAST = "last32"
THIRDS = ("first", "middle", "last")

Step = tuple[Statistics, tuple[str, ...]]


@dataclass(frozen=True)
class FeatureGroup:
    """Signals that get the same statistics.

    Parameters
    ----------
    signals
        Names of frame channels.
    steps
        Statistics and the windows they are computed over.
    """

    signals: tuple[str, ...]
    steps: tuple[Step, ...]


_POSTURE = ("acc_x", "acc_y", "acc_z", "acc_mag", "up_x", "up_y", "up_z")
_MOVEMENT = (
    *("lin_x", "lin_y", "lin_z", "lin_mag", "world_z", "world_horizontal"),
    *("gyro_x", "gyro_y", "gyro_z", "gyro_mag", "jerk_mag"),
)
_SIGNED = ("acc_x", "acc_y", "acc_z", "lin_x", "lin_y", "lin_z", "world_z", "gyro_x", "gyro_y", "gyro_z")
_BASIC: tuple[Step, ...] = ((MOMENTS, (WHOLE,)), (AVERAGE, THIRDS), (LEVEL, (LAST,)), (ORDER, (WHOLE, LAST)))
_POSTURE_STEPS: tuple[Step, ...] = (*_BASIC, (TREND, (WHOLE, LAST)), (CROSSINGS, (WHOLE,)), (GRADIENT, (WHOLE,)))
_MOVEMENT_STEPS: tuple[Step, ...] = (
    *_BASIC,
    (TREND, (WHOLE,)),
    (CROSSINGS, (WHOLE, LAST)),
    (GRADIENT, (WHOLE, LAST)),
    (PEAKS, (WHOLE,)),
    (AUTOCORRELATION, (WHOLE,)),
    (ENTROPY, (WHOLE,)),
    (RUNS, (WHOLE,)),
    (SPECTRAL, (WHOLE, LAST)),
)
_THM_STEPS: tuple[Step, ...] = ((MOMENTS, (WHOLE,)), (AVERAGE, THIRDS), (LEVEL, (LAST,)), (TREND, (WHOLE,)))
_TOF_STEPS: tuple[Step, ...] = ((LEVEL, (WHOLE, "first", LAST)), (TREND, (WHOLE,)))
_REGION_STEPS: tuple[Step, ...] = ((AVERAGE, (WHOLE, LAST)),)
_TOF_MAIN = ("depth", "min", "valid", "cx", "cy")
_TOF_REGIONS = ("std", "max", "sxx", "syy", "sxy", "lr", "tb", "q11", "q12", "q21", "q22")


@lru_cache(maxsize=32)
def feature_groups(layout: SensorLayout, config: FeatureConfig) -> tuple[FeatureGroup, ...]:
    """Give the studies of a device's signals, less the families that are not wanted."""
    everything = (
        FeatureGroup(_POSTURE, _POSTURE_STEPS),
        FeatureGroup(_MOVEMENT, _MOVEMENT_STEPS),
        FeatureGroup(_SIGNED, ((ZERO_CROSSINGS, (WHOLE, LAST)),)),
        FeatureGroup((*layout.thm_columns, *(("thm_mean", "thm_spread") if layout.thm else ())), _THM_STEPS),
        FeatureGroup(tuple(f"tof_{sensor}_{name}" for sensor in layout.tof for name in _TOF_MAIN), _TOF_STEPS),
        FeatureGroup(tuple(f"tof_{sensor}_{name}" for sensor in layout.tof for name in _TOF_REGIONS), _REGION_STEPS),
    )
    wanted = (
        FeatureGroup(group.signals, tuple(step for step in group.steps if step[0].family in config.families))
        for group in everything
        if group.signals
    )
    return tuple(group for group in wanted if group.steps)


def group_columns(group: FeatureGroup, channels: dict[str, Column]) -> tuple[Column, ...]:
    """Describe the features of a study in the order of its computation: step, window, statistic, signal."""
    return tuple(
        Column(
            name=f"{signal}__{'' if window == WHOLE else window + '_'}{statistic.name}",
            family=statistics.family,
            modality=channels[signal].modality,
            unit=_unit(statistic.unit, channels[signal].unit),
            formula=f"{statistic.formula}; x = {signal}, {WINDOWS[window]}",
            source=statistic.source,
        )
        for statistics, windows in group.steps
        for window in windows
        for statistic in statistics.members
        for signal in group.signals
    )


def window_of(column: Column) -> str | None:
    """Name the window of a feature that `study_columns` described; None of a column whose formula says it otherwise.

    Examples
    --------
    >>> formula = "mean; x = acc_x, the last third of the frames"
    >>> window_of(Column("acc_x__last_mean", "moments", "imu", "m/s^2", formula))
    'last'
    """
    return next((name for name, text in WINDOWS.items() if column.formula.endswith(f", {text}")), None)


def _unit(pattern: str, unit: str) -> str:
    """Put the unit of the signal into the unit of the statistic.

    >>> _unit("{u}/s", "m/s^2"), _unit("{u}/s", "1"), _unit("{u}", "1")
    ('m/s^2/s', '1/s', '1')
    """
    return pattern.replace("{u}", unit)
