"""Settings of a synthetic study: number of subjects, seed, variation, failures of the device."""

from dataclasses import dataclass

from bfrbctl.errors import UsageError
from bfrbctl.schema import DEFAULT_RATE_HZ

SEQUENCES_PER_SUBJECT = 102
"""Two repetitions of each of the 51 combinations of orientation and gesture."""

MAX_SUBJECTS = 4000
"""Largest number of subjects a split; sequence numbers have six digits, and train and test take half each."""

SPLITS = ("train", "test")


@dataclass(frozen=True)
class SimulationConfig:
    """Settings of one synthetic study; every default is the study's own figure.

    Parameters
    ----------
    subjects
        People in the train split; the study has 81.
    test_subjects
        People in the test split, none of whom is in train; two fifths of `subjects`, at least one, when None.
    seed
        Seed of everything; person i of a split is the same whatever the number of people or workers.
    rate_hz
        Frames a second.
    left_handed, upside_down
        Share of people.
    imu_only
        Share of each test subject's sequences whose thermopile and ToF columns are null.
    personal_variation
        How far people differ in style from each other, 1 as calibrated, 0 not at all.
    repeat_variation
        How far two repetitions by one person differ, 1 as calibrated.
    sensor_noise
        Factor on every noise, bias, drift and dropout of the sensors; 0 is an ideal device.
    failures
        Factor on the rates at which rows, sensors and rotations go missing or break.
    """

    subjects: int = 16
    test_subjects: int | None = None
    seed: int = 0
    rate_hz: float = DEFAULT_RATE_HZ
    left_handed: float = 0.12
    upside_down: float = 0.025
    imu_only: float = 0.5
    personal_variation: float = 1.0
    repeat_variation: float = 1.0
    sensor_noise: float = 1.0
    failures: float = 1.0

    def __post_init__(self) -> None:
        for name in ("subjects", "test_subjects"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MAX_SUBJECTS:
                raise UsageError(f"{name} is {value}, expected 1 to {MAX_SUBJECTS}")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}, expected 0 or more")
        if not 2.0 <= self.rate_hz <= 200.0:
            raise UsageError(f"rate_hz is {self.rate_hz:g}, expected 2 to 200")
        for name in ("left_handed", "upside_down", "imu_only"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"{name} is {getattr(self, name):g}, expected a share from 0 to 1")
        for name in ("personal_variation", "repeat_variation", "sensor_noise", "failures"):
            if not 0.0 <= getattr(self, name) <= 10.0:
                raise UsageError(f"{name} is {getattr(self, name):g}, expected 0 to 10")

    def n_subjects(self, split: str) -> int:
        """How many people a split has."""
        if split == "train":
            return self.subjects
        return max(1, round(0.4 * self.subjects)) if self.test_subjects is None else self.test_subjects
