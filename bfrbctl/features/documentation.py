"""The reference of all features and channels as Markdown, written from the catalogue so that it cannot rot."""

from collections.abc import Iterable

from bfrbctl.features.catalogue import columns
from bfrbctl.features.settings import FAMILIES, FeatureConfig
from bfrbctl.recordings.dataset import Column
from bfrbctl.schema import HELIOS_LAYOUT, SensorLayout

_INTRODUCTION = """# Features and channels

`bfrbctl featurize` computes, from the recordings alone, {n_channels} *frame channels* (one value a frame; nets learn
from them) and {n_features} *sequence features* (one value a recording; trees learn from them). This page is generated
from the same catalogue that the program follows, for a device with {n_thm} thermopiles and {n_tof} ToF sensors; a
device with fewer sensors gets the columns of the sensors it has, under the same names.

## How to read a name

`<signal>__<statistic>` is a statistic of a frame channel over the whole recording, `<signal>__<window>_<statistic>` one
over a part of it: `first`, `middle` and `last` thirds of the frames, or the `last32` frames (all where there are
fewer). Names depend on the device and the settings alone, never on the length of a recording.

## Frame of reference

- Left-handers are mirrored to the right (`--no-mirror-left` leaves them): acc_x, rot_y and rot_z change sign, sensors 3
  and 5 change places, ToF images of sensors 3 and 5 flip up-down, the others left-right.
- Subjects who wore the device upside down are turned by 180 degrees about the device's z axis where `--undo-flips FILE`
  lists them or `--undo-flips auto` finds them; nobody is by default.
- Quaternions get a continuous sign; gaps are filled by slerp, gaps of the acceleration along straight lines.
- Where a recording has no quaternion at all, gravity is the acceleration below 0.75 Hz (zero-phase Butterworth), or its
  median where the recording is too short; `rot_present` and `rot_measured` are 0, and whatever needs the world frame or
  the angular velocity is null.

## What null means

Null (NaN) means "not measurable here": a sensor that did not measure, a statistic that too few frames allow, a shape
statistic of a signal that never changes. It is never replaced by a number. Where a whole modality is missing, every
column that names it is null, but for the presence flags, which are 0; the other columns keep their values, bit for bit.
A ToF pixel that saw nothing in range is a measurement, not null: it counts as 250 in depths and regions, and is left
out of mean, std, min, max and moments over pixels with a return.

A step is the unit of the ToF sensors: 0..249, larger = farther, not millimetres. `x` in a formula is the signal. The
spectra are Welch's: segments of 32 frames at 10 Hz (the next power of two above 3.2 s at faster rates, never fewer than
32), periodic Hann window, half overlap, mean removed; a recording shorter than a segment has its mean removed and is
padded with zeros.
"""


def features_markdown(layout: SensorLayout = HELIOS_LAYOUT) -> str:
    """Write the reference of every feature and channel of a device.

    Parameters
    ----------
    layout
        Which sensors the device has.

    Returns
    -------
    Markdown: an introduction, the families, then one table a family for the frame channels and the sequence features.
    """
    features, channels = columns(FeatureConfig(), layout)
    introduction = _INTRODUCTION.format(
        n_channels=len(channels), n_features=len(features), n_thm=len(layout.thm), n_tof=len(layout.tof)
    )
    parts = [introduction, _summary(features, channels)]
    for title, described in (("Frame channels", channels), ("Sequence features", features)):
        parts.append(f"## {title}\n")
        for family in FAMILIES:
            members = [column for column in described if column.family == family]
            if members:
                parts.append(f"### {title}: {family}\n\n{FAMILIES[family].capitalize()}.\n\n{_table(members)}")
    return "\n".join(parts)


def _summary(features: tuple[Column, ...], channels: tuple[Column, ...]) -> str:
    rows = [
        (family, str(_count(channels, family)), str(_count(features, family)), meaning)
        for family, meaning in FAMILIES.items()
    ]
    return "## Families\n\n" + _rows(("family", "channels", "features", "what it holds"), rows)


def _count(described: tuple[Column, ...], family: str) -> int:
    return sum(column.family == family for column in described)


def _table(members: list[Column]) -> str:
    rows = [(f"`{c.name}`", c.modality, c.unit, c.formula, c.source) for c in members]
    return _rows(("name", "needs", "unit", "formula", "source"), rows)


def _rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
