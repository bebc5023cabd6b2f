"""What of the feature engine is wanted."""

from collections.abc import Sequence
from dataclasses import dataclass

from bfrbctl.errors import UsageError
from bfrbctl.recordings.dataset import IMU, THM, TOF

FAMILIES: dict[str, str] = {
    "presence": "which sensors measured anything, and how much of the time",
    "person": "the wearer: age, sex, handedness, body measures",
    "motion": "acceleration, jerk and angular velocity, frame by frame",
    "rotation": "quaternion, 6-D rotation and the vertical in the device frame",
    "temperature": "thermopiles, frame by frame; rise at arrival",
    "distance": "ToF statistics and spatial moments, frame by frame",
    "moments": "mean, spread, extremes, skewness, kurtosis, energy over the whole and its parts",
    "quantiles": "order statistics over the whole and the last frames",
    "trend": "slope, curvature, first and last values",
    "crossings": "how often a signal crosses its mean or zero",
    "peaks": "count, spacing and prominence of peaks",
    "autocorrelation": "self-similarity at fixed delays and its first peak",
    "gradient": "size and histogram of frame-to-frame changes",
    "runs": "how long a signal stays above or below its thresholds",
    "entropy": "permutation entropy",
    "spectral": "Welch power spectral density: bands, peak, centroid, entropy, flatness",
    "coupling": "correlations between signals; coherence and phase of rotation and acceleration",
    "orientation": "posture of the resting and of the gesturing hand, path of rotation, reach",
    "anomalies": "share of frames far from the sensor's usual reading",
}
"""Families of features and channels, and what each holds."""

MODALITIES = (IMU, THM, TOF)
FLIP_MODES = ("off", "listed", "auto")


@dataclass(frozen=True)
class FeatureConfig:
    """Which features and channels to compute, and in which frame of reference.

    Parameters
    ----------
    families
        Names out of `FAMILIES`; all of them by default. It filters frame channels and sequence features alike.
    modalities
        Sensors to use, out of imu, thm, tof; imu is always needed.
    mirror_left
        Mirror the recordings of left-handers (handedness 0), so that both hands look like a right hand.
    undo_flips
        `listed` turns the recordings of `flipped_subjects` round again, `auto` too, but that
        `featurization.with_flips` finds them first; `off` leaves every recording as it is.
    flipped_subjects
        Who wore the device upside down. Nobody else is turned round: what becomes of a recording is told by its
        subject and these settings alone.
    tof_images
        Hand the 8x8 ToF images on beside the channels.

    Raises
    ------
    UsageError
        When a name is unknown; the message lists the valid ones.
    """

    families: tuple[str, ...] = tuple(FAMILIES)
    modalities: tuple[str, ...] = MODALITIES
    mirror_left: bool = True
    undo_flips: str = "off"
    flipped_subjects: tuple[str, ...] = ()
    tof_images: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "families", _in_order(self.families, tuple(FAMILIES), "feature family"))
        object.__setattr__(self, "modalities", _in_order(self.modalities, MODALITIES, "modality"))
        if IMU not in self.modalities:
            raise UsageError("modalities are without imu, expected it among them", hint="add imu")
        if self.undo_flips not in FLIP_MODES:
            raise UsageError(
                f"undo_flips is {self.undo_flips!r}, expected one of {', '.join(FLIP_MODES)}",
                hint=f"choose one of {', '.join(FLIP_MODES)}",
            )
        object.__setattr__(self, "flipped_subjects", tuple(sorted(self.flipped_subjects)))
        if self.undo_flips != "auto" and bool(self.flipped_subjects) != (self.undo_flips == "listed"):
            raise UsageError(
                f"undo_flips is {self.undo_flips!r} with {len(self.flipped_subjects)} flipped_subjects",
                hint="name subjects with undo_flips listed, none with off",
            )


def _in_order(chosen: Sequence[str], valid: tuple[str, ...], what: str) -> tuple[str, ...]:
    unknown = [name for name in chosen if name not in valid]
    if unknown or not chosen:
        said = f"no {what} {unknown[0]!r}" if unknown else f"no {what} chosen"
        raise UsageError(said, hint=f"choose out of {', '.join(valid)}")
    return tuple(name for name in valid if name in chosen)
