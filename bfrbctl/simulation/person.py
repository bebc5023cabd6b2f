"""The persons who wear the device: measures of the body, style of moving, how the strap sits.

The ranges are those of the study's demographics (81 subjects; age 10-53, height 135-190 cm, 12 % left-handed).
"""

from dataclasses import dataclass

import numpy as np

from bfrbctl.simulation.settings import SimulationConfig

HEADING_COMMON = 0.85
"""Share of persons who sat facing in the usual direction."""


@dataclass(frozen=True)
class Person:
    """One person, and how they wear the device.

    Parameters
    ----------
    adult, male, right_handed
        As in the demographics.
    age
        Years.
    height, upper_arm, forearm, hand
        m.
    speed, amplitude, frequency
        Factors on the duration of reaches, on the size and on the rate of gestures.
    tremor
        m/s^2; standard deviation of the hand's own shake at the wrist.
    strap_roll
        rad; the strap's rotation about the forearm.
    strap_shift
        m; how far the device sits from its usual place, towards the elbow.
    upside_down
        Device turned by half a turn about its normal.
    skin, clothes, ambient
        degC.
    heading
        rad; direction faced in the room.
    """

    adult: bool
    male: bool
    right_handed: bool
    age: int
    height: float
    upper_arm: float
    forearm: float
    hand: float
    speed: float
    amplitude: float
    frequency: float
    tremor: float
    strap_roll: float
    strap_shift: float
    upside_down: bool
    skin: float
    clothes: float
    ambient: float
    heading: float

    @property
    def head_scale(self) -> float:
        """Size of the head relative to a person of 1.70 m; heads vary less than heights."""
        return float((self.height / 1.70) ** 0.4)


def draw_person(rng: np.random.Generator, config: SimulationConfig) -> Person:
    """Draw one person from the study's ranges.

    Parameters
    ----------
    rng
        Generator of this person alone.
    config
        Shares of left-handers and of upside-down devices, and `personal_variation`.
    """
    adult, male = bool(rng.random() < 0.52), bool(rng.random() < 0.62)
    age = int(np.clip(18 + rng.gamma(1.6, 6.0), 18, 53)) if adult else int(rng.integers(10, 18))
    height = _height(rng, adult=adult, male=male, age=age)
    reach = float(np.clip(0.307 * height + rng.normal(0.0, 0.022), 0.40, 0.66))
    forearm = float(np.clip(0.1516 * height + rng.normal(0.0, 0.013), 0.19, reach - 0.20))
    variation = config.personal_variation
    common = rng.random() < HEADING_COMMON
    heading = rng.normal(-0.35, 0.30) if common else rng.uniform(-np.pi, np.pi)
    return Person(
        adult=adult,
        male=male,
        right_handed=bool(rng.random() >= config.left_handed),
        age=age,
        height=height,
        upper_arm=reach - forearm,
        forearm=forearm,
        hand=0.106 * height * float(np.exp(rng.normal(0.0, 0.03))),
        speed=float(np.exp(rng.normal(0.0, 0.16 * variation))),
        amplitude=float(np.exp(rng.normal(-0.10, 0.26 * variation))),
        frequency=float(np.exp(rng.normal(0.0, 0.16 * variation))),
        tremor=float(np.exp(rng.normal(np.log(0.10), 0.5 * variation))),
        strap_roll=float(rng.normal(0.0, 0.24 * variation)),
        strap_shift=float(np.clip(rng.normal(0.0, 0.012 * variation), -0.02, 0.04)),
        upside_down=bool(rng.random() < config.upside_down),
        skin=float(rng.normal(34.8, 0.7)),
        clothes=float(rng.normal(27.6, 0.8)),
        ambient=float(rng.normal(24.1, 1.4)),
        heading=float(heading),
    )


def _height(rng: np.random.Generator, *, adult: bool, male: bool, age: int) -> float:
    """Draw a height in m: adults about 1.76 or 1.64; children grow 5.5 cm a year towards that."""
    grown = 1.755 if male else 1.64
    mean = grown if adult else min(grown, 1.42 + 0.055 * (age - 10))
    return float(np.clip(rng.normal(mean, 0.065), 1.35, 1.905))
