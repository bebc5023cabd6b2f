"""What of the feature engine is wanted."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from bfrbctl.config import Settings, expected, nearest
from bfrbctl.errors import UsageError, examples
from bfrbctl.recordings.dataset import IMU, THM, TOF

FAMILIES: dict[str, str] = {
    "presence": "which sensors measured anything, and how much of the time",
    "person": "the wearer: age, sex, handedness, body measures",
    "motion": "acceleration, jerk and angular velocity, frame by frame",
    "rotation": "quaternion, 6-D rotation and the vertical in the device frame",
    "temperature": "thermopiles, frame by frame; rise at arrival",
    "distance": "ToF statistics and spatial moments, frame by frame",
    "moments": "mean, standard deviation, extremes, skewness, kurtosis, energy over the whole and its parts",
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


class FeatureConfig(Settings):
    """Features and channels to compute, and their frame of reference."""

    families: tuple[str, ...] = Field(
        default=tuple(FAMILIES), description="Families of frame channels and sequence features to compute"
    )
    modalities: tuple[str, ...] = Field(
        default=MODALITIES, description="Sensors to use, out of imu, thm and tof; imu is always needed"
    )
    mirror_left: bool = Field(
        default=True,
        description="Mirror the recordings of left-handers (handedness 0), so that both hands look like a right hand",
    )
    undo_flips: Literal["off", "listed", "auto"] = Field(
        default="off",
        description="Turn recordings of a device worn upside down: of the flipped_subjects (listed), or of the "
        "subjects that `featurize` finds (auto)",
    )
    flipped_subjects: tuple[str, ...] = Field(
        default=(), description="Subjects who wore the device upside down; no other recording is turned"
    )
    tof_images: bool = Field(default=True, description="Keep the 8x8 ToF images beside the channels")

    @field_validator("families")
    @classmethod
    def _known_families(cls, chosen: tuple[str, ...]) -> tuple[str, ...]:
        return _in_order(chosen, tuple(FAMILIES), "feature families")

    @field_validator("modalities")
    @classmethod
    def _known_modalities(cls, chosen: tuple[str, ...]) -> tuple[str, ...]:
        if IMU not in (found := _in_order(chosen, MODALITIES, "modalities")):
            raise expected("imu among them", "add imu")
        return found

    @field_validator("flipped_subjects")
    @classmethod
    def _sorted(cls, subjects: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(subjects))

    @model_validator(mode="after")
    def _listed_subjects(self) -> Self:
        if self.undo_flips != "auto" and bool(self.flipped_subjects) != (self.undo_flips == "listed"):
            raise UsageError(
                f"undo_flips is {self.undo_flips!r} with {len(self.flipped_subjects)} flipped_subjects",
                hint="name subjects with undo_flips listed, none with off",
            )
        return self


def _in_order(chosen: Sequence[str], valid: tuple[str, ...], what: str) -> tuple[str, ...]:
    unknown = [name for name in chosen if name not in valid]
    if unknown:
        raise expected(f"{what} out of {', '.join(valid)} ({examples(unknown)} unknown)", nearest(unknown[0], valid))
    if not chosen:
        raise expected(f"at least one of the {what}", f"choose out of {', '.join(valid)}")
    return tuple(name for name in valid if name in chosen)
