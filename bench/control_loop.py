"""Measure the control loop in real time, through the ROS nodes that users run.

A session of the simulated arm in real time: from the stamp of a tick to the arrival of its answer
at the robot node, and to the moment at which the action left for the arm; ticks without an answer
(held), late ones, and overruns of the period. Each row of the table is one session. With --busy,
that many processes that never rest run beside it.

    python bench/control_loop.py --json control_loop.json
    python bench/control_loop.py --rate 10 --cameras 2 --minutes 10
    python bench/control_loop.py --ckpt runs/demo --episodes 20 --busy 0 2

Source scripts/env.sh first. Without --ckpt the scripted policy acts.
"""

from __future__ import annotations

import argparse
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
from command import cpu_name, write_json

TASK = "Widow250SingleObjGrasp-v0"
HORIZON = 25
PERCENTILES = (50, 95, 99)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cameras_file(folder: Path, count: int) -> Path:
    """Write a file of ``count`` cameras that play 640x480 pictures at 30 Hz."""
    import cv2
    import yaml

    frames = folder / "frames"
    frames.mkdir()
    rng = np.random.default_rng(0)
    for k in range(30):
        coarse = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        cv2.imwrite(str(frames / f"{k:02d}.png"), cv2.resize(coarse, (640, 480)))
    cameras = [
        {"name": f"camera_{i}", "source": "images", "path": "frames", "loop": True, "fps": 30,
         "height": 480, "width": 640, "observation": {"height": 128, "width": 128}}
        for i in range(count)
    ]  # fmt: skip
    file = folder / "cameras.yaml"
    file.write_text(yaml.safe_dump({"cameras": cameras}))
    return file


def session(folder: Path, options: argparse.Namespace, busy: int) -> Dict[str, Any]:
    """Run one session and return what was measured."""
    out = folder / "episodes"
    episodes = options.episodes
    if options.minutes:
        episodes = max(1, round(options.minutes * 60 * options.rate / HORIZON))
    words = ["lockstep:=false", f"rate:={options.rate}", f"out:={out}", "after_stop:=end"]
    if options.cameras:
        words += [f"cameras:={cameras_file(folder, options.cameras)}", "jpeg_quality:=90"]
    if options.ckpt:
        ckpt = Path(options.ckpt).resolve()
        words = ["deploy.launch", f"ckpt:={ckpt}", f"trials:={episodes}", *words]
    else:
        words = ["collect.launch", f"episodes:={episodes}", *words]
    environment = dict(
        os.environ, ROS_IP="127.0.0.1", ROS_HOME=str(folder), ROS_LOG_DIR=str(folder / "log")
    )
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    begin = time.monotonic()
    try:
        done = subprocess.run(
            ["roslaunch", "-p", str(free_port()), "ofrl_robot", *words],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    finally:
        for process in load:
            process.kill()
            process.wait()
    result = {"busy": busy, "asked": episodes, "seconds": time.monotonic() - begin}
    return {**result, **measured(out, done.stdout)}


def measured(out: Path, text: str) -> Dict[str, Any]:
    """Read the recorded episodes of a session.

    Raises:
        SystemExit: it saved none.
    """
    from ofrl_robot.data.episodes.reader import read_episode
    from ofrl_robot.data.episodes.schema import SUCCESS, episode_paths

    episodes = [read_episode(path) for path in episode_paths(out)]
    if not episodes:
        sys.exit(f"the session saved no episode:\n{text}")
    applied = [e.timestamps["applied"] - e.timestamps["action"] for e in episodes]
    # a long step (the gripper of this simulator) puts off the next tick: that is no missed tick
    periods = np.concatenate([np.diff(e.timestamps["obs"]) for e in episodes]) * 1e-6
    answers = [line.partition("answers ms:")[2] for line in text.splitlines()]
    return {
        "saved": len(episodes),
        "aborted": [e.meta.abort_reason for e in episodes if e.meta.abort_reason],
        "successes": sum(e.meta.success == SUCCESS for e in episodes),
        "ticks": int(sum(len(e) for e in episodes)),
        "held": int(sum(e.held.sum() for e in episodes)),
        "late": int(sum(e.late.sum() for e in episodes)),
        "applied_ms": percentiles(np.concatenate(applied) * 1e-6),
        "period_ms": percentiles(periods),
        "answer_ms": [float(v) for v in next((a for a in answers if a), "nan nan nan").split()],
    }


def percentiles(values: np.ndarray) -> List[float]:
    """Return p50, p95 and p99."""
    return [float(v) for v in np.percentile(values, PERCENTILES)]


def row(result: Dict[str, Any]) -> str:
    """Return a line of the table."""

    def three(name: str) -> str:
        return "/".join(f"{value:.1f}" for value in result[name])

    aborted = len(result["aborted"])
    return (
        f"{result['busy']:4d}  {result['saved']:3d}/{result['asked']:<3d} {aborted:7d}"
        f" {result['successes']:9d} {result['ticks']:6d} {result['held']:5d} {result['late']:5d}"
        f"  {three('answer_ms'):>16s}  {three('applied_ms'):>16s}  {three('period_ms'):>18s}"
        f"  {' '.join(result['aborted'])}"
    )


def main() -> None:
    """Run the sessions and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=20, metavar="N")
    parser.add_argument("--minutes", type=float, default=0.0, help="of ticks, instead of episodes")
    parser.add_argument("--rate", type=int, default=24, metavar="HZ")
    parser.add_argument("--cameras", type=int, default=0, help="of 640x480 at 30 Hz, recorded")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 2], help="processes beside it")
    parser.add_argument("--repeats", type=int, default=1, help="sessions per row")
    parser.add_argument("--ckpt", default="", help="run folder or checkpoint that acts")
    parser.add_argument("--json", metavar="FILE", help="write the results to it")
    options = parser.parse_args()
    print(f"rate {options.rate} Hz, {options.cameras} cameras, {cpu_name()}, "
          f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    print("busy   saved aborted successes  ticks  held  late  answer p50/95/99  "
          "applied p50/95/99   period p50/95/99 (ms)")  # fmt: skip
    results = []
    for busy in options.busy:
        for _ in range(options.repeats):
            with tempfile.TemporaryDirectory() as folder:
                results.append(session(Path(folder), options, busy))
            print(row(results[-1]), flush=True)
    machine = {"cpu": cpu_name(), "cores": os.cpu_count(), "python": platform.python_version()}
    write_json(options.json, {"machine": machine, "options": vars(options), "sessions": results})


if __name__ == "__main__":
    main()
