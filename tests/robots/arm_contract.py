"""What every arm must do, as functions of an arm: the simulated one, fakes, twins, real ones.

``wait(condition, what)`` waits for an arm that takes time; a fake needs none. An arm that measures
in the frame of its base is asked to move a few centimetres from where it stands.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy.spatial.transform import Rotation

from ofrl_robot.control.health import StateMonitor, judge_health
from ofrl_robot.control.limiter import limit
from ofrl_robot.control.pose import Pose, angle
from ofrl_robot.control.signals import Sent, Setpoint

NEAR = 0.005  # m and, as rad, for rotations


def at_once(condition, what):
    """For an arm that needs no time."""
    assert condition(), what


def pose_of(arm):
    state = arm.state()
    return Pose(state.position, state.orientation)


def setpoint(arm, start, *entries, gripper=None):
    """The setpoint of an action that begins with these entries, counted from ``start``."""
    spec = arm.action_spec
    action = np.zeros(spec.size)
    action[: len(entries)] = entries
    limited = limit(action, None, start, arm.state(), 1.0, spec, arm.limits)
    assert np.isfinite(limited.target.position).all()
    target = limited.target
    return Setpoint(limited.action, target.position, target.orientation, gripper)


def describes_itself(arm):
    assert arm.name and arm.action_spec.size == len(arm.action_spec.scale)
    assert len(arm.state_names) == len(arm.state_units) == len(arm.state().vector)
    assert arm.action_spec.frame == arm.state_frame == arm.limits.frame
    assert arm.control_rate_hz > 0 and arm.timing.max_silence > 0
    assert isinstance(arm.settings, dict) and isinstance(arm.relative_to_target, bool)
    for name, (low, high) in arm.limits.joints.items():
        assert low < high, name


def measures(arm):
    """The state is fresh, complete and within limits, and the motors are well."""
    state = arm.state()
    monitor = StateMonitor(arm.health_limits, arm.joint_names, arm.timing.max_state_age)
    assert monitor.judge(state, arm.now_ns()) is None
    assert abs(np.linalg.norm(state.orientation) - 1.0) < 1e-6
    assert judge_health(arm.health(), arm.health_limits) is None


def stays_on_hold(arm, wait=at_once):
    """The zero action at the measured pose leaves the arm where it is."""
    begin = pose_of(arm)
    for _ in range(3):
        assert arm.command(setpoint(arm, begin)) == Sent()
    wait(lambda: apart(arm, begin)[0] < NEAR, "it holds still")


def moves(arm, wait=at_once):
    """An action moves the end effector by what the spec says, in its frame, and back."""
    begin = pose_of(arm)
    for axis in range(3):
        away = _moves_along(arm, begin, axis, 0.4, wait)
        _moves_along(arm, away, axis, -0.4, wait)
    assert apart(arm, begin)[0] < 2 * NEAR


def _moves_along(arm, start, axis, entry, wait):
    goal = setpoint(arm, start, *np.eye(3)[axis] * entry)
    moved = goal.position[axis] - start.position[axis]
    assert abs(moved - entry * arm.action_spec.scale[axis]) < 1e-9, "the limits let it pass"
    assert arm.command(goal).refused == ""
    target = Pose(goal.position, goal.orientation)
    wait(lambda: apart(arm, target)[0] < NEAR, f"axis {axis} by {entry}")
    return target


def turns(arm, wait=at_once):
    """A rotation entry turns the end effector about that axis of the frame, in deg."""
    begin = pose_of(arm)
    for axis in range(3):
        _turns_about(arm, begin, axis, wait)
        arm.command(Setpoint(np.zeros(arm.action_spec.size), begin.position, begin.orientation))
        wait(lambda: max(apart(arm, begin)) < 2 * NEAR, "back again")


def _turns_about(arm, begin, axis, wait):
    spec = arm.action_spec
    entry = spec.names.index(("rot_x", "rot_y", "rot_z")[axis])
    assert arm.command(setpoint(arm, begin, *np.eye(spec.size)[entry] * 0.5)).refused == ""
    turn = Rotation.from_rotvec(np.radians(0.5 * spec.scale[entry]) * np.eye(3)[axis])
    target = Pose(begin.position, (turn * Rotation.from_quat(begin.orientation)).as_quat())
    wait(lambda: max(apart(arm, target)) < 2 * NEAR, f"rotation about axis {axis}")


def refuses(arm, wait=at_once):
    """A pose out of reach is refused by name; the arm and its targets stay."""
    begin, targets = pose_of(arm), arm.state().joint_targets
    far = Setpoint(np.zeros(arm.action_spec.size), np.array([5.0, 0.0, 5.0]), begin.orientation)
    assert arm.command(far).refused in ("no_ik", "joint_limit", "joint_speed")
    nowhere = dataclasses.replace(far, position=np.full(3, math.nan))
    assert arm.command(nowhere).refused
    assert arm.state().joint_targets == targets
    wait(lambda: apart(arm, begin)[0] < NEAR, "it stays")


def stops(arm, wait=at_once):
    """After a stop, twice, nothing moves it until it is re-armed; the re-arming moves nothing."""
    begin = pose_of(arm)
    arm.stop()
    arm.stop()
    away = setpoint(arm, begin, 0.5)
    assert arm.command(away).refused, "a stopped arm refuses"
    wait(lambda: apart(arm, begin)[0] < 2 * NEAR, "it holds still")
    arm.rearm()
    wait(lambda: apart(arm, begin)[0] < 2 * NEAR, "re-arming moves nothing")
    assert arm.command(setpoint(arm, pose_of(arm))).refused == ""


def closes(arm):
    arm.close()
    arm.close()


def apart(arm, target):
    """Distance in m and angle in rad between the measured pose and a target."""
    here = pose_of(arm)
    return (
        float(np.linalg.norm(here.position - target.position)),
        math.radians(angle(here, target)),
    )
