"""Settings of a synthetic study: number of subjects, seed, variation, failures of the device."""

from pydantic import Field

from bfrbctl.config import Settings
from bfrbctl.schema import DEFAULT_RATE_HZ

SEQUENCES_PER_SUBJECT = 102
"""Two repetitions of each of the 51 combinations of orientation and gesture."""

MAX_SUBJECTS = 4000
"""Largest number of subjects a split; sequence numbers have six digits, and train and test take half each."""

SPLITS = ("train", "test")


class SimulationConfig(Settings):
    """Settings of one synthetic study; every default is the study's own figure."""

    subjects: int = Field(
        default=16, ge=1, le=MAX_SUBJECTS, description="Subjects of the train split; the study has 81"
    )
    test_subjects: int | None = Field(
        default=None,
        ge=1,
        le=MAX_SUBJECTS,
        description="Subjects of the test split, none of whom is in train; without it two fifths of subjects, at "
        "least one",
    )
    seed: int = Field(
        default=0,
        ge=0,
        le=2**32 - 1,
        description="Seed; subject i of a split is the same whatever the number of subjects or workers",
    )
    rate_hz: float = Field(default=DEFAULT_RATE_HZ, ge=2.0, le=200.0, description="Frames a second")
    left_handed: float = Field(default=0.12, ge=0.0, le=1.0, description="Share of left-handed subjects")
    upside_down: float = Field(
        default=0.025, ge=0.0, le=1.0, description="Share of subjects who wear the device upside down"
    )
    imu_only: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="Share of each test subject's sequences whose thermopile and ToF columns are null",
    )
    personal_variation: float = Field(
        default=1.0, ge=0.0, le=10.0, description="How far subjects differ in style: 1 as calibrated, 0 not at all"
    )
    repeat_variation: float = Field(
        default=1.0, ge=0.0, le=10.0, description="How far two repetitions of one subject differ: 1 as calibrated"
    )
    sensor_noise: float = Field(
        default=1.0,
        ge=0.0,
        le=10.0,
        description="Factor on every noise, bias, drift and dropout of the sensors; 0 for an ideal device",
    )
    failures: float = Field(
        default=1.0,
        ge=0.0,
        le=10.0,
        description="Factor on the rates at which rows, sensors and rotations go missing or break",
    )

    def n_subjects(self, split: str) -> int:
        """How many people a split has."""
        if split == "train":
            return self.subjects
        return max(1, round(0.4 * self.subjects)) if self.test_subjects is None else self.test_subjects
