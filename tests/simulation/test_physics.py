"""The physics of the simulated device: gravity, mirrors, rays, arms, lags. Noise is off where a law is exact."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bfrbctl.arrays.quaternions import continuous, mirrored, multiply, rotate, rotvec
from bfrbctl.arrays.ragged import AnyArray, Float64, Int64, offsets_of, segment_ids
from bfrbctl.schema import STANDARD_GRAVITY
from bfrbctl.simulation import SimulationConfig, device
from bfrbctl.simulation.arm import bend, forearm_axes, unit
from bfrbctl.simulation.faults import Measured, draw_faults, spoil
from bfrbctl.simulation.movement import Plan, minimum_jerk, waveform
from bfrbctl.simulation.person import Person, draw_person
from bfrbctl.simulation.planning import Session, draw_session
from bfrbctl.simulation.rays import FAR, Fan, Hits, Plate, Quadric, cast
from bfrbctl.simulation.recording import measure
from bfrbctl.simulation.scene import FACE, FURNITURE, HAIR

IDEAL = SimulationConfig(sensor_noise=0.0, failures=0.0)
VECTOR = hnp.arrays(np.float64, 3, elements=st.floats(-1.0, 1.0)).filter(lambda v: float(v @ v) > 0.05)
FANS = device.sensor_fans()


def part_of(session: Session, chosen: list[int]) -> Session:
    """Some sequences of a session."""
    plan = Plan(**{field.name: getattr(session.plan, field.name)[chosen] for field in fields(Plan)})
    return Session(
        gesture=session.gesture[chosen],
        orientation=tuple(session.orientation[i] for i in chosen),
        first_behaviour=tuple(session.first_behaviour[i] for i in chosen),
        frames=session.frames[chosen],
        postures=tuple(session.postures[i] for i in chosen),
        plan=plan,
    )


def ideal_session(seed: int, n_sequences: int = 12) -> tuple[Person, Session]:
    person = draw_person(np.random.default_rng(seed), IDEAL)
    person = replace(person, right_handed=True, upside_down=False)
    return person, part_of(draw_session(person, np.random.default_rng(seed + 1), IDEAL), list(range(n_sequences)))


def ideal(person: Person, session: Session) -> tuple[Measured, Int64]:
    measured = measure(person, session, np.random.default_rng(0), IDEAL)
    return measured, offsets_of(session.frames.sum(axis=1))


@pytest.fixture(scope="module")
def worn() -> tuple[Person, Session, Measured, Int64]:
    """A right-hander, the device the right way up, no noise."""
    person, session = ideal_session(3)
    return person, session, *ideal(person, session)


def test_gravity_points_up_in_the_world_frame(worn: tuple[Person, Session, Measured, Int64]) -> None:
    measured = worn[2]
    world = rotate(measured.rot, measured.acc)
    assert np.allclose(np.median(world, axis=0), [0.0, 0.0, STANDARD_GRAVITY], atol=0.15)


def test_gravity_is_recovered_through_noise_and_drift() -> None:
    person, session = ideal_session(4, 30)
    noisy = measure(person, session, np.random.default_rng(1), SimulationConfig())
    world = rotate(noisy.rot, noisy.acc)
    assert np.allclose(np.median(world, axis=0), [0.0, 0.0, STANDARD_GRAVITY], atol=0.35)


def test_an_ideal_device_at_rest_reads_exactly_gravity() -> None:
    person, session = ideal_session(5, 6)
    still = {name: np.zeros_like(getattr(session.plan, name)) for name in ("idle", "turn", "stroke", "second", "drift")}
    plan = replace(session.plan, **still, roll=np.zeros(6), bulge=np.zeros((6, 3)), twist=np.zeros((6, 3)))
    for name in ("wrist", "palm", "fingers", "pole"):
        key = getattr(plan, name).copy()
        key[:, 1] = key[:, 0]
        plan = replace(plan, **{name: key})
    measured, offsets = ideal(person, replace(session, plan=plan))
    size = np.sqrt((measured.acc**2).sum(axis=1))
    assert np.abs(size - STANDARD_GRAVITY).max() < 2 * device.ACC_STEP
    assert np.array_equal(measured.acc, np.repeat(measured.acc[offsets[:-1]], np.diff(offsets), axis=0))
    assert np.allclose(rotate(measured.rot, measured.acc), [0.0, 0.0, STANDARD_GRAVITY], atol=0.01)


def test_quaternions_are_continuous_once_their_signs_are(worn: tuple[Person, Session, Measured, Int64]) -> None:
    _, _, measured, offsets = worn
    assert measured.rot[:, 3].min() >= 0.0
    rot = continuous(measured.rot, offsets)
    inner = np.diff(segment_ids(offsets)) == 0
    assert np.sum(rot[1:] * rot[:-1], axis=1)[inner].min() > 0.5
    turned = rotvec(multiply(rot[:-1] * [-1, -1, -1, 1], rot[1:]))[inner]
    assert np.quantile(np.sqrt((turned**2).sum(axis=1)), 0.99) < 1.2  # rad in a tenth of a second


def images(tof: AnyArray) -> AnyArray:
    return tof.reshape(-1, 5, 8, 8)


def nearly_same_images(left: AnyArray, right: AnyArray) -> bool:
    """The same readings but for rays that graze an edge, and rounding."""
    return bool(np.mean(np.abs(left.astype(int) - right.astype(int)) > 1) < 1e-3)


def test_a_left_hander_mirrored_is_the_right_hander(worn: tuple[Person, Session, Measured, Int64]) -> None:
    person, session, right, _ = worn
    left, _ = ideal(replace(person, right_handed=False), session)
    assert not np.allclose(left.acc, right.acc, atol=0.5)
    assert np.abs(left.acc * [-1, 1, 1] - right.acc).max() <= device.ACC_STEP
    thm = left.thm[:, [0, 1, 4, 3, 2]]
    assert np.allclose(thm, right.thm, atol=0.02)
    tof = images(left.tof)[:, [0, 1, 4, 3, 2]].copy()
    tof[:, [0, 1, 3]] = tof[:, [0, 1, 3], :, ::-1]
    tof[:, [2, 4]] = tof[:, [2, 4], ::-1]
    assert nearly_same_images(tof, images(right.tof))
    # Both faced the same way, and a mirrored world is turned about: rotations agree up to one turn about the vertical.
    yaw = rotvec(multiply(mirrored(left.rot), right.rot * [-1, -1, -1, 1]))
    expected = np.array([0.0, 0.0, np.pi - 2 * person.heading])
    offset = (yaw - expected + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(np.abs(yaw[:, :2])).max() < 0.01
    assert np.abs(offset[:, 2]).max() < 0.01


def test_an_upside_down_device_is_undone_by_its_formula(worn: tuple[Person, Session, Measured, Int64]) -> None:
    person, session, right, _ = worn
    down, _ = ideal(replace(person, upside_down=True), session)
    assert not np.allclose(down.acc, right.acc, atol=0.5)
    assert np.abs(down.acc * [-1, -1, 1] - right.acc).max() <= device.ACC_STEP
    x, y, z, w = down.rot.T
    undone = np.stack([y, -x, w, -z], axis=1)
    assert np.abs(np.abs(np.sum(undone * right.rot, axis=1)) - 1).max() < 3e-4  # steps of 2^-14
    swapped = [0, 3, 4, 1, 2]
    assert np.allclose(down.thm[:, swapped], right.thm, atol=0.02)
    assert nearly_same_images(images(down.tof)[:, swapped, ::-1, ::-1], images(right.tof))


def test_every_fan_has_64_unit_rays_over_45_degrees() -> None:
    for fan in FANS:
        assert fan.directions.shape == (64, 3)
        assert np.allclose((fan.directions**2).sum(axis=1), 1.0, atol=1e-6)
        grid = fan.directions.reshape(8, 8, 3)
        across = np.degrees(np.arccos(np.sum(grid[3, 0] * grid[3, 7])))
        assert 36.0 < across < 41.0  # seven eighths of 45 degrees between the outermost centres


def ball(centre: AnyArray, radius: float, surface: int = FACE) -> Quadric:
    return Quadric(
        centre=np.asarray(centre, dtype=np.float32)[None],
        form=(np.eye(3, dtype=np.float32) / np.float32(radius**2))[None],
        reach=radius,
        present=np.ones(1, dtype=np.bool_),
        surface=surface,
    )


def fan_of(*directions: AnyArray, place: AnyArray | None = None) -> Fan:
    rays = unit(np.asarray(directions, dtype=np.float64)).astype(np.float32)
    return Fan(np.zeros(3, dtype=np.float32) if place is None else np.asarray(place, dtype=np.float32), rays)


@settings(max_examples=40, deadline=None)
@given(VECTOR, st.floats(0.05, 0.9), st.floats(0.15, 0.8))
def test_a_ray_at_the_middle_of_a_ball_hits_its_near_side(towards: Float64, away: float, share: float) -> None:
    radius = share * away
    hits = cast([ball(away * unit(towards), radius)], [fan_of(towards)], n_frames=1, limit=2.0)
    assert hits.distance[0, 0, 0] == pytest.approx(away - radius, rel=1e-3, abs=1e-4)
    assert hits.cosine[0, 0, 0] == pytest.approx(1.0, abs=2e-3)
    assert hits.surface[0, 0, 0] == FACE


@settings(max_examples=40, deadline=None)
@given(VECTOR, st.floats(0.1, 0.9))
def test_a_ray_away_from_a_ball_misses_it(towards: Float64, away: float) -> None:
    hits = cast([ball(away * unit(towards), 0.5 * away)], [fan_of(-towards)], n_frames=1, limit=2.0)
    assert hits.distance[0, 0, 0] == FAR
    assert hits.surface[0, 0, 0] == -1


def test_a_sensor_inside_a_solid_reads_contact() -> None:
    hits = cast([ball(np.array([0.0, 0.0, 0.02]), 0.1)], [fan_of([0.0, 0.0, 1.0])], n_frames=1, limit=2.0)
    assert hits.distance[0, 0, 0] == 0.0


def test_the_nearer_of_two_solids_hides_the_other() -> None:
    pair = [ball(np.array([0.0, 0.0, 0.5]), 0.1, FACE), ball(np.array([0.0, 0.0, 0.2]), 0.05, HAIR)]
    for solids in (pair, pair[::-1]):
        hits = cast(solids, [fan_of([0.0, 0.0, 1.0])], n_frames=1, limit=2.0)
        assert hits.surface[0, 0, 0] == HAIR
        assert hits.distance[0, 0, 0] == pytest.approx(0.15, abs=1e-5)


def test_an_absent_solid_is_not_met() -> None:
    gone = replace(ball(np.array([0.0, 0.0, 0.3]), 0.1), present=np.zeros(1, dtype=np.bool_))
    assert cast([gone], [fan_of([0.0, 0.0, 1.0])], n_frames=1, limit=2.0).surface[0, 0, 0] == -1


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 0.4), st.floats(-0.6, 0.6), st.floats(-0.6, 0.6))
def test_a_board_is_hit_where_the_ray_crosses_it_and_only_inside_its_edges(height: float, x: float, y: float) -> None:
    plate = Plate(
        centre=np.array([[0.0, 0.0, height]], dtype=np.float32),
        axes=np.eye(3, dtype=np.float32)[None],
        half=(0.1, 0.2),
        present=np.ones(1, dtype=np.bool_),
        surface=FURNITURE,
    )
    hits = cast([plate], [fan_of([x, y, 1.0])], n_frames=1, limit=2.0)
    inside = abs(x * height) <= 0.1 and abs(y * height) <= 0.2
    if min(abs(abs(x * height) - 0.1), abs(abs(y * height) - 0.2)) > 1e-5:
        assert (hits.surface[0, 0, 0] == FURNITURE) == inside
    if inside and hits.surface[0, 0, 0] == FURNITURE:
        assert hits.distance[0, 0, 0] == pytest.approx(height * np.sqrt(x * x + y * y + 1), rel=1e-4)


def marched(centre: Float64, form: Float64, place: Float64, ray: Float64) -> float:
    """Slow oracle: walk along a ray in small steps until inside the solid."""
    steps = np.arange(0.0, 1.0, 2e-4)
    gap = place + steps[:, None] * ray - centre
    inside = np.einsum("ni,ij,nj->n", gap, form, gap) <= 1.0
    return float(steps[inside.argmax()]) if inside.any() else float(FAR)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_ellipsoids_are_hit_where_a_walk_along_the_ray_enters_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    form = turn @ np.diag(1.0 / rng.uniform(0.05, 0.15, 3) ** 2) @ turn.T
    centre = np.array([0.0, 0.02, 0.3]) + rng.normal(0.0, 0.03, 3)
    solid = Quadric(
        centre[None].astype(np.float32), form[None].astype(np.float32), 0.15, np.ones(1, dtype=np.bool_), FACE
    )
    fan = FANS[1]
    hits = cast([solid], [fan], n_frames=1, limit=2.0)
    for ray in (0, 9, 27, 36, 63):
        slow = marched(centre, form, fan.place.astype(np.float64), fan.directions[ray].astype(np.float64))
        fast = float(hits.distance[0, 0, ray])
        if hits.cosine[0, 0, ray] > 0.1 and slow < FAR:
            assert fast == pytest.approx(slow, abs=4e-4)
        elif slow < FAR:
            assert fast < FAR or hits.cosine[0, 0, ray] <= 0.1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_leaving_out_solids_that_a_fan_cannot_see_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    solids: list[Quadric | Plate] = [ball(rng.normal(0.0, 0.2, 3), rng.uniform(0.02, 0.1)) for _ in range(6)]
    # A ball that is declared to be huge is never left out, and is otherwise the same solid.
    kept = [replace(solid, reach=50.0) for solid in solids if isinstance(solid, Quadric)]
    fast, slow = cast(solids, FANS, n_frames=1, limit=5.0), cast([*kept], FANS, n_frames=1, limit=5.0)
    assert np.array_equal(fast.distance, slow.distance)
    assert np.array_equal(fast.surface, slow.surface)


@settings(max_examples=40, deadline=None)
@given(VECTOR, VECTOR, st.floats(0.05, 1.2))
def test_the_arm_keeps_its_lengths_and_reaches_what_it_can(towards: Float64, pole: Float64, away: float) -> None:
    towards, pole = unit(towards), unit(pole)
    if abs(towards @ pole) > 0.98:
        pole = unit(np.cross(towards, [0.3, -0.5, 0.8]))
    shoulder, wrist = np.zeros((1, 3)), (away * towards)[None]
    elbow, reached = bend(shoulder, wrist, pole[None], (0.27, 0.25))
    assert np.sqrt(((elbow - shoulder) ** 2).sum()) == pytest.approx(0.27, abs=2e-3)
    assert np.sqrt(((reached - elbow) ** 2).sum()) == pytest.approx(0.25, abs=2e-3)
    if 0.2 < away < 0.44:
        assert np.allclose(reached, wrist, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(VECTOR, VECTOR, st.floats(-3.0, 3.0))
def test_forearm_axes_are_a_right_handed_frame_along_the_forearm(along: Float64, palm: Float64, roll: float) -> None:
    if abs(unit(along) @ unit(palm)) > 0.98:
        return
    axes = forearm_axes(np.zeros((1, 3)), along[None], palm[None], np.array([roll]))[0]
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    assert np.linalg.det(axes) == pytest.approx(1.0)
    assert np.allclose(axes[:, 1], unit(along))


def test_a_reach_starts_and_ends_without_speed_or_acceleration() -> None:
    u = np.array([-1e-3, 0.0, 1e-3, 1 - 1e-3, 1.0, 1 + 1e-3])
    s = minimum_jerk(u)
    assert np.all(np.diff(minimum_jerk(np.linspace(0, 1, 100))) > 0)
    assert abs(s[2]) < 2e-8
    assert abs(1 - s[3]) < 2e-8


@settings(max_examples=40, deadline=None)
@given(st.floats(-20.0, 20.0), st.floats(0.0, 1.0))
def test_a_stroke_stays_within_its_size_and_repeats(phase: float, pulse: float) -> None:
    value = waveform(np.array([phase, phase + 2 * np.pi]), np.array(pulse))
    assert abs(value[0]) <= 1.0 + 1e-9
    assert value[0] == pytest.approx(value[1], abs=1e-6)


def hits_at(distance: float, cosine: float, n: int, surface: int = FACE) -> Hits:
    shape = (n, 5, 64)
    return Hits(
        distance=np.full(shape, distance, dtype=np.float32),
        cosine=np.full(shape, cosine, dtype=np.float32),
        surface=np.full(shape, surface, dtype=np.int8),
    )


def test_an_ideal_tof_sensor_reads_millimetres_and_minus_one_beyond_range() -> None:
    sequence = np.zeros(2, dtype=np.int64)
    rng = np.random.default_rng(0)
    assert np.all(device.read_tof(hits_at(0.1234, 1.0, 2), sequence, rng, 0.0) == 123)
    assert np.all(device.read_tof(hits_at(0.249, 1.0, 2), sequence, rng, 0.0) == 249)
    assert np.all(device.read_tof(hits_at(0.2505, 1.0, 2), sequence, rng, 0.0) == -1)
    assert np.all(device.read_tof(hits_at(float(FAR), 0.0, 2, -1), sequence, rng, 0.0) == -1)


def test_returns_are_lost_with_distance_and_grazing_angle_and_in_hair() -> None:
    sequence = np.repeat(np.arange(20), 5)

    def lost(distance: float, cosine: float, surface: int = FACE) -> float:
        read = device.read_tof(hits_at(distance, cosine, 100, surface), sequence, np.random.default_rng(0), 1.0)
        assert read.min() >= -1
        assert read.max() <= 249
        return float((read == -1).mean())

    assert lost(0.05, 1.0) < 0.01
    assert lost(0.10, 0.9) < lost(0.20, 0.9) < lost(0.24, 0.9)
    assert lost(0.15, 0.9) < lost(0.15, 0.3) < lost(0.15, 0.05)
    assert lost(0.12, 0.9) < lost(0.12, 0.9, HAIR)


def test_a_thermopile_warms_with_skin_in_view_and_with_nearness() -> None:
    warmth = device.Warmth(24.0, np.where(np.arange(9) == FACE, 34.0, 24.0).astype(np.float32))
    near, far = hits_at(0.02, 1.0, 1), hits_at(0.4, 1.0, 1)
    nothing = hits_at(float(FAR), 0.0, 1, -1)
    seen = [device.seen_temperature(hits, warmth)[0, 0] for hits in (near, far, nothing)]
    assert 33.8 < seen[0] <= 34.0
    assert 24.5 < seen[1] < seen[0]
    assert seen[2] == pytest.approx(24.0)


def test_a_thermopile_follows_a_step_with_its_time_constant_and_starts_settled() -> None:
    step = np.r_[np.full(5, 20.0), np.full(20, 30.0), np.full(10, 25.0)][:, None]
    out = device.lagged(step, np.array([0, 25, 35]), 10.0, 0.4)
    assert np.array_equal(out[:5], step[:5])
    assert out[5 + 3, 0] == pytest.approx(30.0 - 10.0 * np.exp(-4 / 4))
    assert np.array_equal(out[25:], step[25:])


def test_faults_hide_what_they_name_and_nothing_else() -> None:
    lengths = np.full(4000, 3, dtype=np.int64)
    config = SimulationConfig(failures=1.0)
    faults = draw_faults(lengths, np.random.default_rng(1), config, hide=0.0)
    n = int(lengths.sum())
    whole = Measured(
        np.ones((n, 3)), np.ones((n, 4)), np.full((n, 5), 25, dtype=np.float32), np.zeros((n, 5, 64), dtype=np.int16)
    )
    spoiled = spoil(whole, faults)
    assert np.array_equal(spoiled.acc, whole.acc)
    assert np.isnan(spoiled.rot).all(axis=1).mean() == pytest.approx(0.0062, abs=0.004)
    assert np.isnan(spoiled.thm[:, 0]).mean() == pytest.approx(0.0118, abs=0.006)
    assert (spoiled.thm[:, 2] == 0).mean() == pytest.approx(0.014, abs=0.006)
    assert np.array_equal(np.isnan(spoiled.thm), faults.sensor[faults.sequence])
    missing = (spoiled.tof == -2).all(axis=2)
    assert np.array_equal((spoiled.tof == -2).any(axis=2), missing)
    assert np.array_equal(missing, faults.sensor[faults.sequence] | faults.lost_sensor)
