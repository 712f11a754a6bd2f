"""A real rosmaster on a free port, nodes as subprocesses. Skipped where ROS is not installed."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

from tests.ros.waiting import ROOT, wait_for

rospy = pytest.importorskip("rospy", reason="ROS 1 is not installed")

_COUNTER = itertools.count()


sys.path.insert(0, str(ROOT / "ros"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ros_environment(port: int, home: Path) -> dict:
    """Environment of a process that speaks to the master on ``port``."""
    inherited = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}  # users have none
    return dict(
        inherited,
        ROS_MASTER_URI=f"http://127.0.0.1:{port}",
        ROS_IP="127.0.0.1",
        ROS_HOME=str(home),
        ROS_LOG_DIR=str(home / "log"),
        ROS_PACKAGE_PATH=str(ROOT),
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        PYTHONUNBUFFERED="1",
        PYTHONFAULTHANDLER="1",  # so that a node that hangs can be asked where (SIGABRT)
        PWD=str(home),
    )


class Launch:
    """A launch file run by roslaunch or by ``ofrl launch``, on its own master, in its own folder.

    Args:
        home: the folder.
        file: "collect.launch" is run by roslaunch, "collect" by ``ofrl launch``.
        port: of the master.
        **args: arguments of the launch file.
    """

    def __init__(self, home: Path, file: str, port: int, **args: object) -> None:
        self._home, self.port = home, port
        self._environment = ros_environment(port, home)
        if file.endswith(".launch"):
            words = ["roslaunch", "-p", str(port), "ofrl_robot", file]
        else:
            words = [sys.executable, "-m", "ofrl_robot.cli", "launch", file]
        words += [f"{k}:={v}" for k, v in args.items()]
        self.log = home / f"{file}-{next(_COUNTER)}.log"
        self._log = open(str(self.log), "wb")  # noqa: SIM115 (closed in stop)
        self.process = subprocess.Popen(
            words, env=self._environment, cwd=str(home),
            stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, timeout: float = 90.0) -> str:
        """Wait for the end; returns everything it printed."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.stop()
            pytest.fail(f"roslaunch did not end:\n{self.output[-3000:]}")
        return self.output

    def pids(self, node: str) -> List[int]:
        """Process ids of a node of this launch: its log path names our folder."""
        pattern = f"{node}.*__log:={self._home}"
        found = subprocess.run(["pgrep", "-f", pattern], stdout=subprocess.PIPE, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        # roslaunch gives each node its own session; one that was killed leaves its master too
        for pid in self.pids(""):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._log.close()


@pytest.fixture
def launch(tmp_path):
    """Factory of :class:`Launch`; whatever still runs at the end of the test is killed."""
    launches = []

    def start(file: str, port: int = 0, **args: object) -> Launch:
        launches.append(Launch(tmp_path, file, port or free_port(), **args))
        return launches[-1]

    yield start
    for one in launches:
        one.stop()


@pytest.fixture(scope="session")
def master(tmp_path_factory):
    """One rosmaster for the session; this process becomes a node of it (rospy allows one)."""
    home = tmp_path_factory.mktemp("ros")
    port = free_port()
    environment = ros_environment(port, home)
    os.environ.update({k: v for k, v in environment.items() if k.startswith("ROS")})
    process = subprocess.Popen(
        [shutil.which("rosmaster") or "/usr/bin/rosmaster", "--core", "-p", str(port)],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: _answers(port), "rosmaster")
    rospy.init_node("tests", anonymous=True, disable_signals=True)
    yield environment
    rospy.signal_shutdown("end of tests")
    process.terminate()
    process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def node(master, tmp_path):
    """Factory: start ``ros/<type>`` in a namespace of its own; returns (process, log path)."""
    processes, environment = [], dict(master)
    # parameters outlive nodes, so no two tests may share a namespace
    namespace = f"/test_{next(_COUNTER)}"

    def start(type_: str, **params: object):
        log = tmp_path / (f"{type_}.log")
        words = [sys.executable, str(ROOT / "ros" / type_)]
        words += [f"_{k}:={v}" for k, v in params.items()]
        with open(str(log), "wb") as out:
            process = subprocess.Popen(
                words, env=dict(environment, ROS_NAMESPACE=namespace), cwd=str(tmp_path),
                stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        processes.append(process)
        return process, log

    start.namespace, start.environment = namespace, environment
    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()
