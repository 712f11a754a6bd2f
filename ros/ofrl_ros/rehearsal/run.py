"""Run rehearsals one after the other, each on a stage of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

import rospy

from ofrl_robot.errors import ConfigError, OfrlError
from ofrl_robot.pages.rehearsal import Result
from ofrl_ros.rehearsal import actor_faults, driver_faults, process_faults, twin_faults
from ofrl_ros.rehearsal.scenario import Outcome, Scenario
from ofrl_ros.rehearsal.stage import NODES, Cast, Stage, ros_environment
from ofrl_ros.twin import rig as twin_rig

HORIZON = 100  # steps of an episode: it must outlast every deadline
MASTER_TIMEOUT = 15.0  # s for a ROS master to start


def all_scenarios(twin_of: str = "") -> List[Scenario]:
    """Return every fault that is rehearsed.

    Args:
        twin_of: name of the arm whose twin can be broken too; empty for none.
    """
    return [
        *twin_faults.scenarios(twin_of),
        *actor_faults.scenarios(), *driver_faults.scenarios(), *process_faults.scenarios(),
    ]  # fmt: skip


def choose(names: Sequence[str], own_frames: bool = True, twin_of: str = "") -> List[Scenario]:
    """Return the scenarios of these names, all that fit without any.

    Args:
        own_frames: whether the arm brings frames of its own, so that a camera node can be added.
        twin_of: name of the arm whose twin is rehearsed with; empty for none.

    Raises:
        ConfigError: a name is unknown.
    """
    known = {scenario.name: scenario for scenario in all_scenarios(twin_of)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"no fault is called {unknown[0]!r}", f"use one of: {', '.join(known)}")
    if names:  # in our order: after the last one nothing can be played
        return [scenario for name, scenario in known.items() if name in names]
    return [s for s in known.values() if own_frames or not s.with_camera]


def cast_for(
    robot: str, twin: bool, task: str, settings: Dict[str, Any], cameras: str, rate: int
) -> Cast:
    """Return the cast for an arm.

    Args:
        robot: name of the arm. twin: with its twin.
        task: task id, or a name.
        settings: of the driver.
        cameras: file of a real arm's cameras.
        rate: ticks per second.

    Raises:
        ConfigError: the arm has no twin.
    """
    if robot == "sim":
        return Cast(robot, task, settings, {}, rate)
    if twin:
        node = f"twin_{robot}.py"
        if not (NODES / node).is_file():
            raise ConfigError(f"robot {robot} has no twin", "use widowx or sawyer, or leave it out")
        chosen = {**twin_rig.DRIVER_SETTINGS.get(robot, {}), **settings}
        params = {"twin": True, "horizon": HORIZON}
        device = twin_rig.DEVICES.get(robot, "scripted")
        limits = twin_rig.limits_of(robot)
        return Cast(robot, task, chosen, params, rate, node, limits, device)
    params = {"horizon": HORIZON, **({"cameras": str(Path(cameras).resolve())} if cameras else {})}
    return Cast(robot, task, settings, params, rate)


def play(scenario: Scenario, stage: Stage) -> Result:
    """Play one scenario.

    A scenario that cannot be played counts as a promise that was not kept.
    """
    bound = None if scenario.bound is None else scenario.bound(stage.timing)
    try:
        stage.wait_ready()
        stage.make_ready()
        outcome = scenario.play(stage, bound or 0.0)
    except (OfrlError, rospy.ROSException, rospy.ServiceException) as error:
        said = (stage.robot_log.strip().splitlines() or ["nothing"])[-1]
        outcome = Outcome(False, None, f"{error}; the robot node said last: {said}")
    return Result(
        scenario.name, scenario.group, scenario.promise, bound, outcome.kept,
        outcome.seconds, outcome.text,
    )  # fmt: skip


def rehearse(scenarios: Sequence[Scenario], cast: Cast) -> Iterator[Result]:
    """Play scenarios under a ROS master of their own; yield what came of each.

    This process becomes a ROS node of that master, so it can rehearse once.

    Raises:
        ConfigError: the master does not start.
    """
    with tempfile.TemporaryDirectory(prefix="ofrl-rehearsal-") as home:
        port = _free_port()
        environment = ros_environment(port, Path(home))
        master = subprocess.Popen(
            ["rosmaster", "--core", "-p", str(port)], env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            _await_port(port)
            _become_node(environment)
            with contextlib.ExitStack() as shared:
                stage: Optional[Stage] = None
                for number, scenario in enumerate(scenarios):
                    folder = Path(home) / f"{number:02d}"
                    if scenario.own_stage:
                        shared.close()  # twins of two stages would share the vendor's topics
                        stage = None
                        with contextlib.ExitStack() as own:
                            mine = Stage(folder, environment, cast, scenario.with_camera, master)
                            own.callback(mine.close)
                            yield play(scenario, mine)
                        continue
                    if stage is None:
                        stage = Stage(folder, environment, cast)
                        shared.callback(stage.close)
                    result = play(scenario, stage)
                    if not result.kept:
                        shared.close()  # whatever is wrong with it, the next one is not to suffer
                        stage = None
                    yield result
        finally:
            rospy.signal_shutdown("the rehearsal is over")
            master.terminate()
            master.wait()


def _become_node(environment: Dict[str, str]) -> None:
    os.environ.update({k: v for k, v in environment.items() if k.startswith("ROS")})
    rospy.init_node("rehearsal", anonymous=True, disable_signals=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_port(port: int) -> None:
    deadline = time.monotonic() + MASTER_TIMEOUT
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise ConfigError("the ROS master does not start", "see what `rosmaster --core` prints")
