"""Judge what is measured of an arm: states at every tick, motors about once a second.

Pure functions and one class with memory; time is an argument. Nothing here talks to an arm.
"""

from __future__ import annotations

import dataclasses
from typing import Dict, Mapping, Optional, Sequence, Tuple

import numpy as np

from ofrl_robot.control.signals import ArmState
from ofrl_robot.control.stops import Fault, StopReason

_NS = 1_000_000_000


@dataclasses.dataclass(frozen=True)
class HealthLimits:
    """What an arm may report of itself. Loaded from ``config/robots/*.yaml``.

    Attributes:
        warn_temperature, max_temperature: of a motor, degrees C; above the second the arm stops.
        efforts: largest \\|effort\\| by joint, in the arm's own unit; joints not named are free.
        max_effort_time: seconds above ``efforts`` before the arm stops.
        max_joint_error: distance between commanded and measured joint, rad, that counts as stuck.
        max_stuck_time: seconds stuck before the arm stops.
        max_joint_jump: change of a joint between two measured states, rad/s, that no motor does.
    """

    warn_temperature: float = 55.0
    max_temperature: float = 65.0
    efforts: Dict[str, float] = dataclasses.field(default_factory=dict)
    max_effort_time: float = 0.3
    max_joint_error: float = 0.1
    max_stuck_time: float = 1.0
    max_joint_jump: float = 30.0


@dataclasses.dataclass(frozen=True)
class Health:
    """What the motors report, as :meth:`Arm.health` returns it.

    Attributes:
        temperatures: degrees C by motor.
        faults: what the driver itself found to be wrong (torque off, error register, silence).
    """

    temperatures: Mapping[str, float] = dataclasses.field(default_factory=dict)
    faults: Tuple[Fault, ...] = ()


def judge_health(health: Health, limits: HealthLimits) -> Optional[Fault]:
    """Return why the arm must stop, or None."""
    if health.faults:
        return health.faults[0]
    for motor, degrees in health.temperatures.items():
        if not degrees <= limits.max_temperature:  # NaN counts as too hot
            return Fault(
                StopReason.OVERHEATED, f"{motor} {degrees:.0f} C, above {limits.max_temperature:g}"
            )
    return None


def hot_motors(health: Health, limits: HealthLimits) -> Tuple[str, ...]:
    """Return the motors above ``warn_temperature``, for a warning."""
    return tuple(m for m, c in health.temperatures.items() if c > limits.warn_temperature)


class StateMonitor:
    """Judges the measured states of one arm, one after the other.

    Args:
        limits: see :class:`HealthLimits`.
        joints: names that every state must have.
        max_age: s, see ``Timing.max_state_age``.
    """

    def __init__(self, limits: HealthLimits, joints: Sequence[str], max_age: float) -> None:
        self._limits, self._joints, self._max_age = limits, tuple(joints), max_age
        self.reset()

    def reset(self) -> None:
        """Forget the past: after a re-arm or a homing move it means nothing."""
        self._previous: Optional[ArmState] = None
        self._pushing: Dict[str, int] = {}  # since when, ns
        self._stuck: Dict[str, int] = {}

    def judge(self, state: ArmState, now_ns: int) -> Optional[Fault]:
        """Return why the arm must stop, or None.

        Args:
            state: newest measured state.
            now_ns: time now, by the clock that stamps the states.
        """
        previous, self._previous = self._previous, state
        return (
            self._age(state, now_ns)
            or self._values(state)
            or self._jump(state, previous)
            or self._effort(state)
            or self._follows(state)
        )

    def _age(self, state: ArmState, now_ns: int) -> Optional[Fault]:
        age = (now_ns - state.stamp_ns) / _NS
        if abs(age) <= self._max_age:
            return None
        return Fault(StopReason.STATE_STALE, f"measured {age:.2f} s ago")

    def _values(self, state: ArmState) -> Optional[Fault]:
        missing = [name for name in self._joints if name not in state.joint_positions]
        if missing:
            return Fault(StopReason.STATE_INVALID, f"{', '.join(missing)} missing")
        joints = np.array(list(state.joint_positions.values()), np.float64)
        for name, values in (
            ("joint positions", joints),
            ("position", state.position),
            ("orientation", state.orientation),
            ("state", state.vector),
        ):
            if not np.isfinite(np.asarray(values, np.float64)).all():
                return Fault(StopReason.STATE_INVALID, f"{name} not finite")
        return None

    def _jump(self, state: ArmState, previous: Optional[ArmState]) -> Optional[Fault]:
        if previous is None or state.stamp_ns <= previous.stamp_ns:
            return None
        seconds = (state.stamp_ns - previous.stamp_ns) / _NS
        for name in self._joints:
            before = previous.joint_positions.get(name)
            if before is None or not np.isfinite(before):
                continue
            change = abs(state.joint_positions[name] - before)
            if change > self._limits.max_joint_jump * seconds:
                return Fault(
                    StopReason.STATE_INVALID, f"{name} jumped {change:.2f} in {seconds:.3f} s"
                )
        return None

    def _effort(self, state: ArmState) -> Optional[Fault]:
        for name, most in self._limits.efforts.items():
            effort = state.joint_efforts.get(name)
            if effort is None or abs(effort) <= most:
                self._pushing.pop(name, None)
            elif self._lasts(self._pushing, name, state.stamp_ns, self._limits.max_effort_time):
                return Fault(StopReason.EFFORT, f"{name} {effort:.0f}, beyond {most:g}")
        return None

    def _follows(self, state: ArmState) -> Optional[Fault]:
        for name, target in state.joint_targets.items():
            error = abs(target - state.joint_positions.get(name, target))
            if error <= self._limits.max_joint_error:
                self._stuck.pop(name, None)
            elif self._lasts(self._stuck, name, state.stamp_ns, self._limits.max_stuck_time):
                return Fault(StopReason.STUCK, f"{name} {error:.2f} rad from its target")
        return None

    @staticmethod
    def _lasts(since: Dict[str, int], name: str, now_ns: int, seconds: float) -> bool:
        return now_ns - since.setdefault(name, now_ns) >= seconds * _NS
