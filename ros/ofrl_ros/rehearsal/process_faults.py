"""Faults of processes: nodes that die or hang, the master, a full session beside them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Callable, List, Optional, Tuple

from ofrl_robot.control.stops import StopReason
from ofrl_robot.control.timing import Timing
from ofrl_robot.data.episodes.reader import read_meta
from ofrl_robot.data.episodes.schema import episode_paths
from ofrl_ros.rehearsal.scenario import Outcome, Scenario, stops, within
from ofrl_ros.rehearsal.stage import Stage

GROUP = "Nodes and session"
_Play = Callable[[Stage, float], Outcome]
_Row = Tuple[str, str, Optional[Callable[[Timing], float]], _Play]


def _recorder_silent(stage: Stage, bound: float) -> Outcome:
    with stage.recorder():
        stage.run(3)
    return stops(stage, time.time(), StopReason.RECORDER_SILENT, bound)


def _session(stage: Stage) -> Tuple[subprocess.Popen, subprocess.Popen]:
    """Start a scripted person and a real recorder, wait until an episode runs; return the two."""
    stage.answer = lambda tick: []
    actor = stage.start("teleop_node.py", device=stage.cast.device)
    recorder = stage.start(
        "episode_node.py", actor="teleop", device=stage.cast.device, episodes=50,
        out=stage.folder / "episodes", after_stop="wait",
    )  # fmt: skip
    before = len(stage.applied)
    stage.wait(lambda: len(stage.applied) >= before + 5, "the session's first steps", 90.0)
    return actor, recorder


def _recorder_dies(number: int) -> _Play:
    def play(stage: Stage, bound: float) -> Outcome:
        _, recorder = _session(stage)
        since = time.time()
        recorder.send_signal(number)
        return stops(stage, since, StopReason.RECORDER_SILENT, bound)

    return play


def _robot_dies(number: int) -> _Play:
    def play(stage: Stage, _bound: float) -> Outcome:
        _session(stage)
        since = time.time()
        os.kill(stage.robot_pid, number)
        reasons = _abort_reasons_soon(stage)
        seconds = time.time() - since
        kept = len(reasons) == 1 and "robot node" in reasons[0]
        return Outcome(kept, seconds, f"saved as aborted: {', '.join(reasons) or 'nothing'}")

    return play


def _actor_dies(stage: Stage, bound: float) -> Outcome:
    actor, _ = _session(stage)
    since = time.time()
    actor.send_signal(signal.SIGKILL)
    outcome = stops(stage, since, StopReason.ACTOR_SILENT, bound)
    reasons = _abort_reasons_soon(stage)
    kept = outcome.kept and len(reasons) == 1
    return Outcome(kept, outcome.seconds, f"{outcome.text}; aborted: {', '.join(reasons)}")


def _parent_dies(stage: Stage, bound: float) -> Outcome:
    """Kill the process that started the robot node, as kill -9 of roslaunch does."""
    stage.run(3)
    child = stage.robot_pid
    since = time.time()
    stage.parent.send_signal(signal.SIGKILL)
    stage.parent.wait()
    stage.wait(lambda: not _alive(child), "the robot node to end", 15.0)
    stopped = stage.first_stop(since)
    if stopped is None:
        return Outcome(False, None, "the node ended, the driver was not stopped")
    moved = stage.motions(stopped)
    text = f"stopped after {stopped - since:.2f} s, then the node ended"
    return Outcome(stopped - since <= bound and not moved, stopped - since, text)


def _camera(number: int) -> _Play:
    def play(stage: Stage, bound: float) -> Outcome:
        stage.run(3)
        since = time.time()
        stage.camera.send_signal(number)
        return stops(stage, since, StopReason.CAMERA, bound)

    return play


def _master_dies(stage: Stage, bound: float) -> Outcome:
    stage.run(2)
    child = stage.robot_pid
    since = time.time()
    assert stage.master is not None, "the stage has no master of its own"
    stage.master.kill()
    stage.wait(lambda: not _alive(child), "the robot node to end", 30.0)
    stopped = stage.first_stop(since)
    if stopped is None:
        return Outcome(False, None, "the node ended, the driver was not stopped")
    text = f"stopped after {stopped - since:.2f} s, ended after {time.time() - since:.1f} s"
    kept = stopped - since <= bound and not stage.motions(stopped)
    return Outcome(kept, stopped - since, text)


def _second_session(stage: Stage, _bound: float) -> Outcome:
    stage.run(2)
    second = stage.start("robot_node.py", robot="sim", task=stage.cast.task)
    code = second.wait(30.0)
    log = next(stage.folder.glob("robot_node.py.*.log")).read_text()
    stage.run(2)
    said = "another session" in log
    return Outcome(code == 2 and said, None, "refused with exit code 2; the first goes on")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _abort_reasons(folder: Path) -> List[str]:
    reasons = [read_meta(path)[0].abort_reason for path in episode_paths(folder)]
    return [reason for reason in reasons if reason]


def _abort_reasons_soon(stage: Stage) -> List[str]:
    folder = stage.folder / "episodes"
    stage.wait(lambda: bool(_abort_reasons(folder)), "the aborted episode", 15.0)
    return _abort_reasons(folder)


def scenarios() -> List[Scenario]:
    """Return the faults of this group."""
    soon = within(0.5, "max_recorder_silence")
    unrecorded = "the arm does not go on unrecorded"
    saved = "the episode is saved as aborted, with the reason"
    blind = "the arm does not move on what was seen before"
    second = "is refused; the first goes on"
    ends = "the robot node stops the arm and ends"
    table: List[_Row] = [
        ("recorder's heartbeat stops", unrecorded, soon, _recorder_silent),
        ("kill -9 of the recorder", unrecorded, soon, _recorder_dies(signal.SIGKILL)),
        ("recorder hangs (SIGSTOP)", unrecorded, soon, _recorder_dies(signal.SIGSTOP)),
        ("kill -9 of the robot node", saved, None, _robot_dies(signal.SIGKILL)),
        ("robot node hangs (SIGSTOP)", saved, None, _robot_dies(signal.SIGSTOP)),
        ("kill -9 of the actor", f"hold, stop; {saved}", within(0.4, "max_silence"), _actor_dies),
        ("a second session in the namespace", second, None, _second_session),
        ("kill -9 of roslaunch", ends, within(1.0), _parent_dies),
    ]
    cameras: List[_Row] = [
        ("kill -9 of the camera node", blind, within(1.0), _camera(signal.SIGKILL)),
        ("camera node hangs (SIGSTOP)", blind, within(1.0), _camera(signal.SIGSTOP)),
    ]
    return [
        *(Scenario(n, GROUP, p, b, play, own_stage=True) for n, p, b, play in table),
        *(Scenario(n, GROUP, p, b, play, True, True) for n, p, b, play in cameras),
        # the last one: nothing can be played without a master
        Scenario(
            "kill -9 of the ROS master", GROUP, ends, within(4.0), _master_dies, own_stage=True
        ),
    ]
