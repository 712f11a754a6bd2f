"""Faults of whoever commands: policies, people, foreign nodes."""

from __future__ import annotations

import math
import time
from typing import Any, Callable, List

from sensor_msgs.msg import JointState, Joy

from ofrl_robot.control.stops import StopReason
from ofrl_ros import messages
from ofrl_ros.rehearsal.scenario import Outcome, Scenario, stops, within
from ofrl_ros.rehearsal.stage import Stage

GROUP = "Commands"
FOREIGN = """
import rospy, sys
from sensor_msgs.msg import JointState, Joy
rospy.init_node("foreigner")
publisher = rospy.Publisher("policy/action", Joy, queue_size=10)
def answer(tick):
    message = Joy(axes=[-1.0] * int(sys.argv[1]))
    message.header.stamp = tick.header.stamp
    publisher.publish(message)
rospy.Subscriber("tick", JointState, answer, tcp_nodelay=True)
rospy.spin()
"""


def _answers(axes: List[float], later_ns: int = 0) -> Callable[[Stage], Any]:
    def answer_with(stage: Stage) -> None:
        stage.answer = lambda tick: [stage.joy(tick, axes, later_ns)]

    return answer_with


def _falls_silent(stage: Stage, change: Callable[[Stage], Any], bound: float) -> Outcome:
    """Run, change what the actor does at one moment, and wait for the arm to stop."""
    stage.run(3)
    since = time.time()
    change(stage)
    return stops(stage, since, StopReason.ACTOR_SILENT, bound)


def _silent(change: Callable[[Stage], Any]) -> Callable[[Stage, float], Outcome]:
    return lambda stage, bound: _falls_silent(stage, change, bound)


def _nothing(stage: Stage) -> None:
    stage.answer = lambda tick: []


def _wrong_size(stage: Stage) -> None:
    def answer(tick: JointState) -> List[Joy]:
        message = stage.joy(tick, [0.5])
        message.axes = message.axes[:3]
        return [message]

    stage.answer = answer


def _excess(stage: Stage, _bound: float) -> Outcome:
    sign = [1.0]

    def answer(tick: JointState) -> List[Joy]:
        sign[0] = -sign[0]
        return [stage.joy(tick, [50.0 * sign[0]] * 3)]

    stage.answer = answer
    stage.run(8)
    actions = [c.action for c in stage.calls() if c.action]
    largest = max(abs(v) for action in actions for v in action)
    named = all(m.buttons[0] for m in stage.applied[:8])
    return Outcome(largest <= 1.0 and named, None, f"largest entry at the driver {largest:.2f}")


def _duplicate(stage: Stage, _bound: float) -> Outcome:
    stage.answer = lambda tick: [stage.joy(tick, [0.05]), stage.joy(tick, [-0.05])]
    stage.run(8)
    actions = [c.action for c in stage.calls() if c.action]
    turned = sum(a[0] < 0 for a in actions)
    return Outcome(turned == 0, None, f"{turned} of {len(actions)} steps turned round")


def _foreign_publisher(stage: Stage, _bound: float) -> Outcome:
    stage.run(2)
    script = stage.folder / "foreigner.py"
    script.write_text(FOREIGN)
    size = len(stage.applied[-1].axes) // 2
    stage.start_script(script, str(size))

    def refused() -> bool:
        values = {pair.key: pair.value for s in stage.statuses[-1:] for pair in s.values}
        return "policy/action" in values or "ignoring node" in stage.robot_log

    deadline = time.monotonic() + 30.0
    while not refused() and time.monotonic() < deadline:
        if stage.ticks and messages.values_of(stage.ticks[-1])["truncated"]:
            stage.run(2)
        time.sleep(0.02)
    stage.run(5)
    turned = sum(bool(c.action and c.action[0] < 0) for c in stage.calls())
    return Outcome(refused() and not turned, None, f"refused and said; {turned} steps from it")


def _human_takes_over(stage: Stage, _bound: float) -> Outcome:
    """Let a person take over at step 3, be late at step 8, and hand back at step 11."""
    stage.wait(lambda: stage.human.get_num_connections() > 0, "the human's topic")

    def answer(tick: JointState) -> List[Joy]:
        step = messages.step_of(tick)
        if step != 8:
            message = stage.joy(tick, [-0.05])
            if not 3 <= step < 11:
                message.axes = []  # his hand is off the device
            stage.human.publish(message)
        return [stage.joy(tick, [0.05])]

    stage.answer = answer
    stage.run(14)
    sources = [m.header.frame_id for m in stage.applied[:14]]
    theirs = sources[3:11]
    # on a busy computer more of his answers may be late: they are holds, and never the policy's
    kept = "policy" not in theirs and theirs[5] == "hold" and sources[11:] != ["hold"] * 3
    return Outcome(kept and "human" in theirs, None, " ".join(sources))


def _operator_stop(stage: Stage, bound: float) -> Outcome:
    stage.run(3)
    since = time.time()
    stage.call("stop")
    return stops(stage, since, StopReason.OPERATOR, bound)


def _pause(stage: Stage, _bound: float) -> Outcome:
    stage.run(3)
    stage.call("pause")
    count = len(stage.applied)
    since = time.time()
    stage.wait(lambda: time.time() > since + 0.5, "half a second")
    during = len(stage.applied) - count
    stage.call("resume")
    stage.wait(lambda: len(stage.applied) >= count + 3, "the episode to go on")
    return Outcome(during <= 1, None, f"{during} steps while paused, then it went on")


def scenarios() -> List[Scenario]:
    """Return the faults of this group."""
    second = 1_000_000_000
    silent = "no usable action: hold at once, stop after max_silence"
    soon = within(0.4, "max_silence")
    return [
        Scenario("actor falls silent", GROUP, silent, soon, _silent(_nothing)),
        Scenario("NaN actions", GROUP, silent, soon, _silent(_answers([math.nan]))),
        Scenario("infinite actions", GROUP, silent, soon, _silent(_answers([math.inf]))),
        Scenario("actions of a wrong size", GROUP, silent, soon, _silent(_wrong_size)),
        Scenario("stale stamps", GROUP, silent, soon, _silent(_answers([0.05], -second))),
        Scenario("stamps of the future", GROUP, silent, soon, _silent(_answers([0.05], second))),
        Scenario("commands beyond the limits", GROUP, "are cut and named", None, _excess),
        Scenario("two answers to a tick", GROUP, "the first counts", None, _duplicate),
        Scenario("a second policy", GROUP, "is refused, and said", None, _foreign_publisher),
        Scenario(
            "a person takes over", GROUP,
            "keeps the arm until the hand-back; while late, the arm holds", None,
            _human_takes_over,
        ),
        Scenario("stop service", GROUP, "the arm is stopped", within(0.1), _operator_stop),
        Scenario("pause and resume", GROUP, "no step while paused, no jump after", None, _pause),
    ]  # fmt: skip
