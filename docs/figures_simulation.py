"""Draw the two figures of simulation.md: a scene with its rays, and a sequence's channels over time.

Needs matplotlib, which is no dependency of bfrbctl: `python docs/figures_simulation.py`.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import polars as pl

from bfrbctl.arrays.ragged import offsets_of, segment_ids
from bfrbctl.schema import HELIOS_LAYOUT
from bfrbctl.simulation import SimulationConfig, device, simulate_subject
from bfrbctl.simulation.gestures import GESTURES, STRAIGHT
from bfrbctl.simulation.movement import pose
from bfrbctl.simulation.person import draw_person
from bfrbctl.simulation.planning import draw_session
from bfrbctl.simulation.rays import cast
from bfrbctl.simulation.scene import SURFACES, Mounting, build_scene

IMAGES = Path(__file__).parent / "images"
COLOURS = ("#d98c5f", "#5b4636", "#e3a880", "#6b8fb5", "#7f9f7f", "#8fb0cf", "#c96f4a", "#999999", "#bb66bb")
CONFIG = SimulationConfig(seed=7, sensor_noise=1.0, failures=0.0)


def draw_scene() -> None:
    """Seen from the dominant side: what the rays of the five ToF sensors meet at a forehead."""
    seeds = np.random.SeedSequence(7, spawn_key=(0, 0)).spawn(2)
    person = draw_person(np.random.default_rng(seeds[0]), CONFIG)
    session = draw_session(person, np.random.default_rng(seeds[1]), CONFIG)
    names = [GESTURES[g].name for g in session.gesture]
    chosen = next(
        i for i, name in enumerate(names) if name == "Eyebrow - pull hair" and session.orientation[i] == STRAIGHT
    )
    offsets = offsets_of(session.frames.sum(axis=1))
    sequence = segment_ids(offsets)
    time = (np.arange(offsets[-1]) - offsets[sequence]) / CONFIG.rate_hz
    arm = pose(session.plan, person, sequence, time)
    mounting = Mounting(device.device_place(arm.wrist, arm.axes, person), arm.axes @ device.strap(person))
    fans = device.sensor_fans()
    hits = cast(build_scene(person, session, arm, mounting, sequence), fans, n_frames=time.size, limit=device.SIGHT)
    frame = int(offsets[chosen + 1]) - 12
    posture = session.postures[chosen]
    figure, axis = plt.subplots(figsize=(6.4, 6.0))
    turn = np.linspace(0, 2 * np.pi, 100)
    ring = np.stack([posture.head_radii[0] * np.cos(turn), 0 * turn, posture.head_radii[2] * np.sin(turn)])
    outline = posture.head[:, None] + posture.head_axes @ ring
    axis.fill(outline[0], outline[2], color="#f1d3bd", zorder=0)
    joints = np.stack([posture.shoulder, arm.elbow[frame], arm.wrist[frame]])
    tip = arm.wrist[frame] + person.hand * arm.fingers[frame]
    neck = np.stack([posture.neck_low, posture.neck_high])
    axis.plot(neck[:, 0], neck[:, 2], color="#f1d3bd", lw=28, solid_capstyle="round", zorder=0)
    axis.plot(joints[:, 0], joints[:, 2], "-o", color="#446688", lw=6, zorder=3)
    axis.plot([joints[2, 0], tip[0]], [joints[2, 2], tip[2]], color="#c96f4a", lw=7, zorder=3)
    seen: set[int] = set()
    for number, fan in enumerate(fans):
        for ray in range(64):
            surface = int(hits.surface[frame, number, ray])
            far = surface < 0 or hits.distance[frame, number, ray] > device.TOF_RANGE
            length = device.TOF_RANGE if far else float(hits.distance[frame, number, ray])
            begin = mounting.place[frame] + mounting.axes[frame] @ fan.place
            end = begin + length * (mounting.axes[frame] @ fan.directions[ray])
            colour = "#dddddd" if far else COLOURS[surface]
            label = None if far or surface in seen else SURFACES[surface]
            seen |= set() if far else {surface}
            axis.plot([begin[0], end[0]], [begin[2], end[2]], color=colour, lw=0.7, zorder=1 if far else 2, label=label)
            if not far:
                axis.plot(end[0], end[2], ".", color=colour, ms=3, zorder=4)
    axis.set(xlabel="front, m", ylabel="up the spine, m", aspect="equal", title="Eyebrow - pull hair, seen from aside")
    axis.legend(title="rays that meet", loc="lower left")
    figure.savefig(IMAGES / "simulation-scene.png", dpi=90, bbox_inches="tight")


def draw_channels() -> None:
    """One sequence: acceleration, temperatures, and the mean distance of each ToF sensor."""
    subject = simulate_subject(CONFIG, 0, split="train")
    wanted = subject.labels.filter((pl.col("gesture") == "Forehead - scratch") & (pl.col("orientation") == STRAIGHT))
    frames = subject.frames.filter(pl.col("sequence_id") == wanted["sequence_id"][0])
    t = frames["sequence_counter"].to_numpy() / CONFIG.rate_hz
    figure, axes = plt.subplots(4, 1, figsize=(7.2, 7.2), sharex=True)
    for name in ("acc_x", "acc_y", "acc_z"):
        axes[0].plot(t, frames[name], label=name)
    for name in ("rot_w", "rot_x", "rot_y", "rot_z"):
        axes[1].plot(t, frames[name], label=name)
    for name in HELIOS_LAYOUT.thm_columns:
        axes[2].plot(t, frames[name], label=name)
    pixels = frames.select(HELIOS_LAYOUT.tof_columns).to_numpy().astype(float).reshape(-1, 5, 64)
    for sensor in range(5):
        axes[3].plot(t, (pixels[:, sensor] >= 0).mean(axis=1), label=f"tof_{sensor + 1}")
    for axis, label in zip(axes, ("m/s²", "quaternion", "°C", "share returned"), strict=True):
        axis.set_ylabel(label)
        axis.legend(ncols=5, fontsize=7, loc="upper left")
        for behaviour in frames["behavior"].unique(maintain_order=True)[1:]:
            begin = frames.filter(pl.col("behavior") == behaviour)["sequence_counter"][0] / CONFIG.rate_hz
            axis.axvline(begin, color="#888888", lw=0.8, ls="--")
    axes[0].set_title("Forehead - scratch; dashed: the hand waits at its target, the gesture begins")
    axes[3].set_xlabel("s")
    figure.savefig(IMAGES / "simulation-channels.png", dpi=80, bbox_inches="tight")


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    draw_scene()
    draw_channels()
