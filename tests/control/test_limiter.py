"""The limiter's promises, as properties over any command, place and limit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofrl_robot.control import limiter
from ofrl_robot.control.limiter import (
    CHANGE,
    JOINT,
    LIMIT_NAMES,
    NOT_FINITE,
    RANGE,
    ROTATION,
    SHAPE,
    STEP,
    WORKSPACE,
    Limits,
    limit_bits,
    limit_names,
    refused_joints,
)
from ofrl_robot.control.pose import Pose, rotation_from, rotation_vector, turned
from ofrl_robot.control.signals import ArmState
from ofrl_robot.specs import WIDOWX_ACTION, ActionSpec

LOW, HIGH = np.array([0.1, -0.3, 0.0]), np.array([0.5, 0.3, 0.4])
TIGHT = 1e-8  # m and deg; the limiter leaves differences below 1e-9 alone

SPECS = (
    WIDOWX_ACTION,
    ActionSpec(("x", "y", "z", "gripper"), ("m",) * 3 + ("1",), (0.05, 0.1, 0.2, 1.0), "base"),
    ActionSpec(("gripper", "z", "y", "x", "rot_z"), ("1",) + ("m",) * 3 + ("deg",),
               (1.0, 0.05, 0.1, 0.2, 30.0), "base"),
    ActionSpec(("x", "y", "gripper"), ("m", "m", "1"), (0.1, 0.1, 1.0), "base"),
)  # fmt: skip


def state_at(position, joints=None):
    return ArmState(0, np.zeros(1), np.asarray(position), np.array([0, 0, 0, 1.0]), joints or {})


def limit(command, position, spec, limits, previous=None, dt=0.2):
    """(applied, reasons) from the measured place."""
    limited = limiter.limit(command, previous, None, state_at(position), dt, spec, limits)
    return limited.action, limited.reasons


def entries(spec, names):
    return [spec.names.index(n) for n in names if n in spec.names]


def translation(spec, action):
    """(3,) m asked for, 0 along an axis that the spec does not have."""
    delta = np.zeros(3)
    for axis, name in enumerate("xyz"):
        if name in spec.names:
            delta[axis] = action[spec.names.index(name)] * spec.scale[spec.names.index(name)]
    return delta


def outside(point):
    """Per axis, how far out of the box (m)."""
    return np.maximum(np.maximum(LOW - point, point - HIGH), 0.0)


unit = st.floats(-1.5, 1.5) | st.sampled_from([-1.0, 0.0, 1.0, 1e300, -1e300, 5e-324])
inside_box = st.tuples(*(st.floats(a, b) for a, b in zip(LOW, HIGH))).map(np.array)
anywhere = st.tuples(*(st.floats(-1.0, 1.0),) * 3).map(np.array)
limits_of = st.builds(
    Limits,
    frame=st.just("base"),
    workspace_low=st.just(tuple(LOW)),
    workspace_high=st.just(tuple(HIGH)),
    max_translation=st.floats(1e-3, 0.5),
    max_rotation=st.floats(0.5, 40.0),
    max_speed=st.none() | st.floats(0.01, 2.0),
    max_change=st.none() | st.floats(1e-3, 0.5),
)
previous_of = st.none() | st.just(0.0) | st.floats(-1.0, 1.0)
case = st.sampled_from(SPECS).flatmap(
    lambda s: st.tuples(st.just(s), st.lists(unit, min_size=s.size, max_size=s.size).map(np.array))
)
properties = settings(max_examples=300, deadline=None, derandomize=True)


@pytest.mark.slow
@properties
@given(case, inside_box | anywhere, limits_of, previous_of, st.floats(0.01, 1.0))
def test_whatever_is_asked_for_the_command_is_bounded(spec_and_action, start, limits, before, dt):
    spec, action = spec_and_action
    asked = action.copy()
    previous = None if before is None else np.full(spec.size, before)
    applied, reasons = limit(action, start, spec, limits, previous, dt)
    assert applied.dtype == np.float64 and applied.shape == (spec.size,)
    assert np.array_equal(action, asked), "the caller's array was written to"
    assert np.isfinite(applied).all() and (np.abs(applied) <= 1.0).all()
    delta = translation(spec, applied)
    assert np.linalg.norm(delta) <= limits.max_translation + TIGHT
    if limits.max_speed is not None:
        assert np.linalg.norm(delta) <= limits.max_speed * dt + TIGHT
    if limits.max_change is not None:
        before_delta = np.zeros(3) if previous is None else translation(spec, previous)
        slower = np.linalg.norm(delta) <= np.linalg.norm(before_delta) + TIGHT
        assert slower or np.linalg.norm(delta - before_delta) <= limits.max_change + TIGHT
    for i in entries(spec, ("rot_x", "rot_y", "rot_z")):
        assert abs(applied[i] * spec.scale[i]) <= limits.max_rotation + TIGHT
    # no further out than the start on any axis: inside stays inside
    assert (outside(start + delta) <= outside(start) + TIGHT).all()
    # the limiter brakes, it never drives: no entry is turned round or made larger
    assert (np.abs(applied) <= np.abs(asked) + 1e-12).all()
    assert (applied * asked >= 0).all()


@pytest.mark.slow
@properties
@given(case, inside_box | anywhere, limits_of)
def test_reasons_are_given_exactly_when_something_changed(spec_and_action, start, limits):
    spec, action = spec_and_action
    applied, reasons = limit(action, start, spec, limits)
    assert bool(reasons) == (not np.array_equal(applied, action))
    assert len(set(reasons)) == len(reasons)


@pytest.mark.slow
@properties
@given(case, inside_box | anywhere, limits_of)
def test_limiting_twice_changes_nothing(spec_and_action, start, limits):
    spec, action = spec_and_action
    once, _ = limit(action, start, spec, limits)
    twice, reasons = limit(once, start, spec, limits)
    assert reasons == () and np.array_equal(once, twice)


@pytest.mark.slow
@properties
@given(st.sampled_from(SPECS), anywhere, limits_of)
def test_hold_is_hold_wherever_the_arm_stands(spec, start, limits):
    """Silence must never move an arm, even one that was pushed out of its box."""
    applied, reasons = limit(np.zeros(spec.size), start, spec, limits)
    assert reasons == () and not applied.any()


WIDE = Limits("base", (-9.0,) * 3, (9.0,) * 3, 9.0, 999.0)
HERE = np.zeros(3)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ([0.1] * 7, SHAPE),
        ([0.1] * 9, SHAPE),
        ([[0.1] * 8], SHAPE),
        ([], SHAPE),
        (0.1, SHAPE),
        ([0.1] * 7 + [np.nan], NOT_FINITE),
        ([np.inf] + [0.1] * 7, NOT_FINITE),
        ([0.1] * 6 + [-np.inf, 0.1], NOT_FINITE),
    ],
)
def test_an_unusable_command_becomes_hold(command, reason):
    applied, reasons = limit(np.array(command), HERE, WIDOWX_ACTION, WIDE)
    assert reasons == (reason,) and applied.shape == (8,) and not applied.any()


def test_an_unknown_place_becomes_hold():
    """Without a measured position the workspace cannot be kept."""
    for bad in (np.nan, np.inf):
        place = np.array([0.0, bad, 0.0])
        applied, reasons = limit(np.full(8, 0.1), place, WIDOWX_ACTION, WIDE)
        assert reasons == (NOT_FINITE,) and not applied.any()


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", WIDOWX_ACTION.names)
def test_excess_both_ways_on_every_entry(name, sign):
    index = WIDOWX_ACTION.names.index(name)
    action = np.zeros(8)
    action[index] = 1.7 * sign
    applied, reasons = limit(action, HERE, WIDOWX_ACTION, WIDE)
    assert reasons == (RANGE,) and applied[index] == sign and np.count_nonzero(applied) == 1

    action[index] = sign
    narrow = Limits("base", (-0.03,) * 3, (0.03,) * 3, 0.05, 5.0)
    applied, reasons = limit(action, HERE, WIDOWX_ACTION, narrow)
    expected = {"m": ((STEP, WORKSPACE), 0.03 / 0.2), "deg": ((STEP,), 5.0 / 20.0), "1": ((), 1.0)}
    wanted_reasons, wanted = expected[WIDOWX_ACTION.units[index]]
    assert reasons == wanted_reasons
    assert applied[index] == pytest.approx(sign * wanted, abs=1e-12)
    assert np.count_nonzero(applied) == 1


def test_step_limit_keeps_the_direction():
    limits = dataclasses.replace(WIDE, max_translation=0.1)
    action = np.array([0.9, -0.6, 0.3, 0, 0, 0, 0, 0])
    applied, reasons = limit(action, HERE, WIDOWX_ACTION, limits)
    assert reasons == (STEP,)
    assert np.linalg.norm(applied[:3] * 0.2) == pytest.approx(0.1)
    assert np.allclose(applied / np.linalg.norm(applied), action / np.linalg.norm(action))


def test_speed_counts_the_time_since_the_command_before():
    limits = dataclasses.replace(WIDE, max_speed=0.5)
    action = np.array([1.0, 0, 0, 0, 0, 0, 0, 0])  # 0.2 m
    for dt, expected in ((0.2, 0.1), (0.04, 0.02), (1.0, 0.2)):
        applied, reasons = limit(action, HERE, WIDOWX_ACTION, limits, dt=dt)
        assert applied[0] * 0.2 == pytest.approx(expected)
        assert reasons == ((STEP,) if expected < 0.2 else ())


def test_a_motion_builds_up_step_by_step_and_ends_at_once():
    limits = dataclasses.replace(WIDE, max_change=0.05)
    previous, deltas = None, []
    for asked in (1.0, 1.0, 1.0, -1.0, -1.0):
        action = np.zeros(8)
        action[0] = asked
        previous, reasons = limit(action, HERE, WIDOWX_ACTION, limits, previous)
        deltas.append(previous[0] * 0.2)
        assert reasons == (CHANGE,)
    assert deltas == pytest.approx([0.05, 0.1, 0.15, 0.0, -0.05])
    held, reasons = limit(np.zeros(8), HERE, WIDOWX_ACTION, limits, np.full(8, 1.0))
    assert not held.any() and reasons == ()


@pytest.mark.parametrize(
    ("joints", "reason"),
    [
        ({"elbow": 0.5}, ()),
        ({"elbow": 2.5}, (JOINT,)),
        ({"elbow": -1.5}, (JOINT,)),
        ({"elbow": np.nan}, (NOT_FINITE,)),
        ({"wrist": 9.0}, ()),  # no limit is known for it
    ],
)
def test_a_measured_joint_outside_its_range_holds_the_arm(joints, reason):
    limits = dataclasses.replace(WIDE, joints={"elbow": (-1.0, 2.0)})
    command = np.full(8, 0.1)
    state = state_at(HERE, joints)
    limited = limiter.limit(command, None, None, state, 0.2, WIDOWX_ACTION, limits)
    assert limited.reasons == reason and limited.action.any() == (not reason)


# -- the rotation box ----------------------------------------------------------------------------

ROTATING = ActionSpec(
    ("x", "y", "z", "rot_x", "rot_y", "rot_z"), ("m",) * 3 + ("deg",) * 3,
    (0.05,) * 3 + (20.0,) * 3, "base",
)  # fmt: skip
DOWN = np.array([0.0, 2**-0.5, 0.0, 2**-0.5])  # a gripper that points down
BOX = dataclasses.replace(
    WIDE, upright=tuple(DOWN), rotation_low=(-30.0, -30.0, -90.0), rotation_high=(30.0, 30.0, 90.0)
)


def turned_from(pose, origin=DOWN):
    """Rotation vector (3,) deg of an orientation, from the upright one."""
    return rotation_vector(pose.orientation, rotation_from(origin))


def rotate(start, turn, limits=BOX):
    """Limit a turn (3,) deg asked for at the orientation ``start``."""
    command = np.concatenate([np.zeros(3), np.asarray(turn) / 20.0])
    pose = Pose(np.zeros(3), start)
    return limiter.limit(command, None, pose, state_at(np.zeros(3)), 0.2, ROTATING, limits)


@pytest.mark.slow
@properties
@given(
    st.tuples(st.floats(-60, 60), st.floats(-60, 60), st.floats(-100, 100)),
    st.tuples(*(st.floats(-20, 20),) * 3),
)
def test_a_turn_never_leaves_the_rotation_box_nor_drives(start, turn):
    begin = turned(DOWN, np.array(start))
    limited = rotate(begin, turn)
    low, high = np.array(BOX.rotation_low), np.array(BOX.rotation_high)
    before = turned_from(Pose(np.zeros(3), begin))
    after = turned_from(limited.target)
    assert (after >= np.minimum(low, before) - 1e-3).all()
    assert (after <= np.maximum(high, before) + 1e-3).all()
    applied = limited.action[3:] * 20.0
    assert (np.abs(applied) <= np.abs(turn) + 1e-9).all() and (applied * turn >= 0).all()
    assert (ROTATION in limited.reasons) == (not np.allclose(applied, turn, atol=1e-9))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_turn_stops_at_the_wall_of_the_box_and_goes_on_along_it(axis):
    pose, high = DOWN, BOX.rotation_high[axis]
    for _ in range(8):
        turn = np.zeros(3)
        turn[axis] = 20.0
        pose = rotate(pose, turn).target.orientation
    found = turned_from(Pose(np.zeros(3), pose))
    assert found[axis] == pytest.approx(high, abs=0.01)
    assert np.allclose(np.delete(found, axis), 0.0, atol=1e-6)


def test_the_target_is_where_the_action_leads():
    command = np.array([0.5, 0, 0, 0, 0, 0.5])
    limited = limiter.limit(
        command, None, Pose(np.ones(3), DOWN), state_at(np.zeros(3)), 0.2, ROTATING, WIDE
    )
    assert np.allclose(limited.target.position, [1.025, 1.0, 1.0])
    assert np.allclose(turned_from(limited.target), [0, 0, 10.0])


# -- names of limits, and what a driver refuses ----------------------------------------------------


@given(st.sets(st.sampled_from(LIMIT_NAMES)))
def test_names_of_limits_survive_as_bits(names):
    assert set(limit_names(limit_bits(tuple(names)))) == names


def test_a_limit_of_a_stranger_is_recorded_as_other():
    assert limit_names(limit_bits(["cable_too_short"])) == ("other",)


@pytest.mark.parametrize(
    ("target", "reason"),
    [(0.5, ""), (1.1, "joint_limit"), (np.nan, "joint_limit"), (0.9, "joint_speed")],
)
def test_joint_targets_beyond_limits_are_refused(target, reason):
    limits = dataclasses.replace(WIDE, joints={"elbow": (-1, 1)}, joint_speeds={"elbow": 4.0})
    assert refused_joints({"elbow": target}, {"elbow": 0.0}, 0.2, limits) == reason
    assert refused_joints({"wrist": 50.0}, {}, 0.2, limits) == "", "no limit is known for it"
