"""The vocabulary of raw and prepared recordings: columns, sensors, sentinels, units.

Source: the public description of the Helios study device (IMU, five thermopiles, five 8x8 time-of-flight sensors).
Which thermopiles and ToF sensors a dataset has is read from its columns; nothing here assumes five of each.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_RATE_HZ = 10.0
"""Frames a second where a dataset does not say: 10 Hz fits the study's recordings best."""

STANDARD_GRAVITY = 9.81
"""m/s^2."""

SEQUENCE_ID = "sequence_id"
SEQUENCE_COUNTER = "sequence_counter"
SUBJECT = "subject"
ROW_ID = "row_id"
GESTURE = "gesture"
SEQUENCE_TYPE = "sequence_type"
ORIENTATION = "orientation"
BEHAVIOR = "behavior"
PHASE = "phase"

LABELS = (SEQUENCE_TYPE, ORIENTATION, BEHAVIOR, PHASE, GESTURE)
"""Columns that only labelled recordings have; none of them may reach a feature."""

TARGET_TYPE, NON_TARGET_TYPE = "Target", "Non-Target"
"""The two values of sequence_type: body-focused repetitive behaviours, and everything else."""

GESTURE_PHASE = "Gesture"
"""The phase of the frames in which the gesture itself is done."""

NON_TARGET = "non_target"
"""The merged class of all non-target gestures in the competition metric."""

ACC = ("acc_x", "acc_y", "acc_z")
"""Acceleration in m/s^2, gravity included, in the device frame."""

ROT = ("rot_x", "rot_y", "rot_z", "rot_w")
"""Unit quaternion, device to world, xyzw (raw files have wxyz; it is reordered once, when they are read)."""

DEMOGRAPHICS = (
    "adult_child",
    "age",
    "sex",
    "handedness",
    "height_cm",
    "shoulder_to_wrist_cm",
    "elbow_to_wrist_cm",
)
"""Columns of the demographics table beside `subject`; handedness is 1 right, 0 left."""

TOF_PIXELS = 64
"""Cells of one ToF sensor: 8 x 8, row-major."""

TOF_NO_RETURN = -1
"""A ToF pixel with nothing in range. It is a measurement, not a missing value."""

TOF_MISSING = -2
"""A ToF pixel without a measurement, in memory only; files have a null."""

TOF_MAX = 249
"""Largest ToF reading of the device (larger = farther, not millimetres)."""

ACC_LIMIT = 160.0
"""m/s^2; twice the range of the BNO08x accelerometer (8 g). Beyond it a value cannot be a measurement."""

THM_LIMITS = (-40.0, 125.0)
"""degC; object range that a skin thermopile could ever report here (MLX90632 datasheet, ambient range)."""

THM_BROKEN_BELOW = 18.0
"""degC; a thermopile whose readings stay below this, or never change, is broken and treated as missing."""

ALL_SENSORS = "all"
IMU_ONLY = "imu"
SCENARIOS = (ALL_SENSORS, IMU_ONLY)
"""The two scenarios of every out-of-fold score: all sensors, and thermopile + ToF taken away."""


def scenarios_of(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the scenarios that differ for a device.

    Parameters
    ----------
    content
        Of a manifest: `thm` and `tof` list the sensors beside the IMU.

    Returns
    -------
    Both scenarios; one where there are no such sensors, so that nothing can be taken away. Files on disk have both
    anyway.

    Examples
    --------
    >>> scenarios_of({"thm": [1, 2], "tof": []}), scenarios_of({"thm": [], "tof": []})
    (('all', 'imu'), ('all',))
    """
    return (ALL_SENSORS,) if content.get("thm") == [] and content.get("tof") == [] else SCENARIOS


_THM = re.compile(r"thm_([1-9][0-9]?)")
_TOF = re.compile(r"tof_([1-9][0-9]?)_v([0-9]|[1-5][0-9]|6[0-3])")


@dataclass(frozen=True)
class SensorLayout:
    """Which numbered sensors a dataset has beside its IMU.

    Parameters
    ----------
    thm
        Numbers of the thermopiles, ascending; `(1, 2, 3, 4, 5)` on the study's device.
    tof
        Numbers of the ToF sensors, ascending.
    """

    thm: tuple[int, ...] = (1, 2, 3, 4, 5)
    tof: tuple[int, ...] = (1, 2, 3, 4, 5)

    @property
    def thm_columns(self) -> tuple[str, ...]:
        """Names of the thermopile columns, in order."""
        return tuple(f"thm_{sensor}" for sensor in self.thm)

    @property
    def tof_columns(self) -> tuple[str, ...]:
        """Names of all ToF pixel columns, sensor by sensor, row-major inside a sensor."""
        return tuple(f"tof_{sensor}_v{pixel}" for sensor in self.tof for pixel in range(TOF_PIXELS))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all sensor columns in the order of prepared files."""
        return ACC + ROT + self.thm_columns + self.tof_columns


HELIOS_LAYOUT = SensorLayout()
IMU_LAYOUT = SensorLayout(thm=(), tof=())


def layout_of(columns: Iterable[str]) -> SensorLayout:
    """Read from column names which thermopiles and ToF sensors there are.

    A ToF sensor counts when any of its 64 pixels has a column. To find a missing pixel, compare the columns with
    `layout_of(columns).tof_columns`.

    >>> layout_of(["acc_x", "thm_2", "tof_3_v63"])
    SensorLayout(thm=(2,), tof=(3,))
    """
    names = tuple(columns)
    thm = {int(match[1]) for match in map(_THM.fullmatch, names) if match}
    tof = {int(match[1]) for match in map(_TOF.fullmatch, names) if match}
    return SensorLayout(thm=tuple(sorted(thm)), tof=tuple(sorted(tof)))
