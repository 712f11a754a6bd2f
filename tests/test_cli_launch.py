"""``ofrl launch`` without ROS: a script in the place of roslaunch."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ofrl_robot.cli import main

ROOT = Path(__file__).resolve().parent.parent
# as roslaunch 1.15 prints it
NOISE = """... logging to /home/ada/.ros/log/2fa/roslaunch-host-1.log
\x1b]2;collect.launch\x07
started roslaunch server http://127.0.0.1:40433/

auto-starting new master
\x1b[1mprocess[master]: started with pid [2013]\x1b[0m
\x1b[1mROS_MASTER_URI=http://127.0.0.1:11311\x1b[0m
\x1b[1msetting /run_id to 2fa-b\x1b[0m
\x1b[1mprocess[rosout-1]: started with pid [20]\x1b[0m
started core service [/rosout]
\x1b[1mprocess[sim/robot-2]: started with pid [23]\x1b[0m
\x1b[31m================================================================================\
REQUIRED process [sim/episode-4] has died!
process has finished cleanly
log file: /home/ada/.ros/log/2fa/sim-episode-4*.log
Initiating shutdown!
================================================================================\x1b[0m
[sim/teleop-3] killing on exit
shutting down processing monitor...
... shutting down processing monitor complete
\x1b[1mdone\x1b[0m
"""
COMPLETE = '{"asked": 2, "saved": 2, "ended": true}'


@pytest.fixture
def roslaunch(tmp_path, monkeypatch):
    """Function that puts a shell script in the place of roslaunch."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)

    def write(script: str) -> Path:
        file = folder / "roslaunch"
        file.write_text(f"#!/bin/bash\n{script}\n")
        file.chmod(0o755)
        return file

    return write


@pytest.fixture
def ofrl(capsys):
    def call(*words):
        try:
            code = main(["launch", *words])
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_only_the_nodes_lines_are_shown_and_escape_sequences_are_not_obeyed(roslaunch, ofrl):
    own = "episodes 1/2 saved, 1 successes\n[WARN] /sim/robot: \x1b[33mdone with it\x1b[0m \x1b[2J"
    roslaunch(f"echo {shlex.quote(NOISE + own)}; echo '{COMPLETE}' >> $OFRL_SESSION_LOG")
    code, out, err = ofrl("collect", "out:=data")
    shown = "episodes 1/2 saved, 1 successes\n[WARN] /sim/robot: done with it \\x1b[2J\n"
    assert (code, out, err) == (0, shown, "")


def test_roslaunch_gets_the_arguments_and_finds_python_and_the_package(roslaunch, ofrl):
    roslaunch('printf "%s|" "$@"; echo; command -v python; echo $ROS_PACKAGE_PATH; pwd; echo $PWD')
    _, out, _ = ofrl("collect", "out:=a b", "operator:=")
    words, python, package, *here = out.splitlines()
    file = ROOT / "launch" / "collect.launch"
    assert words.endswith(f"{file}|out:=a b|operator:=|")
    assert Path(python).parent == Path(sys.executable).parent
    assert package.split(":")[0] == str(ROOT) and here == [os.getcwd()] * 2


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ([], "the session ended before it began"),
        (['{"error": "robot: it is on fire"}'], "robot: it is on fire"),
        (['{"asked": 2}', '{"saved": 1}'], "1 of 2 episodes saved: the recorder was killed"),
        (
            ['{"asked": 2}', '{"saved": 1, "aborted": 1}', '{"ended": true}'],
            "1 of 2 episodes saved, 1 more aborted",
        ),
    ],
)
def test_whatever_is_not_complete_is_exit_code_2_and_one_line(roslaunch, ofrl, notes, message):
    """Also when roslaunch returns 0, as it does after a node was killed."""
    roslaunch("\n".join(f"echo '{note}' >> $OFRL_SESSION_LOG" for note in notes))
    assert ofrl("collect") == (2, "", f"ofrl: {message}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["collect", "episode:=3"], "no argument 'episode'; did you mean episodes:="),
        (["collect", "zzz:=3"], "see ofrl launch collect --help"),
        (["collect", "episodes=3"], "argument 'episodes=3' is not name:=value"),
        (["collect", ":=3"], "is not name:=value"),
        (["deploy", "trials:=3"], "ckpt:= is missing (run folder"),
    ],
)
def test_a_wrong_argument_starts_nothing(roslaunch, ofrl, tmp_path, words, message):
    roslaunch("touch started")
    code, out, err = ofrl(*words)
    assert code == 2 and not out and err.count("\n") == 1 and message in err
    assert not (tmp_path / "started").exists()


def test_without_ros_it_says_so(ofrl, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = ofrl("collect")
    assert code == 2 and "roslaunch is not found; install ROS 1" in err


def test_help_lists_the_arguments_of_the_launch_file(ofrl):
    code, out, _ = ofrl("deploy", "--help")
    assert code == 0 and "ckpt:=" in out and "[must be given]" in out and "[50]" in out
    code, out, _ = ofrl("--help")
    assert code == 0 and "collect" in out and "deploy" in out
    code, _, err = ofrl("fly")
    assert code == 2 and "collect" in err


# -- signals: in a process of its own -----------------------------------------------------------

SESSION = """
trap 'echo INT; ints=$((ints+1))' INT
echo $$ > pid
for i in {1..400}; do sleep 0.05; [ "$ints" ] && break; done
for i in {1..10}; do sleep 0.05; done   # the nodes save what they have
echo "saved after $ints"
"""


@pytest.fixture
def session(roslaunch, tmp_path):
    """``ofrl launch collect`` in a process, running."""
    roslaunch(SESSION)
    process = subprocess.Popen(
        [sys.executable, "-m", "ofrl_robot.cli", "launch", "collect"], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, cwd=str(tmp_path), universal_newlines=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT), TMPDIR=str(tmp_path)),
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.roslaunch = int((tmp_path / "pid").read_text())
    yield process
    process.kill()
    process.communicate()


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_is_passed_on_once_and_waited_for(session, tmp_path, number):
    for _ in range(3):  # an impatient user
        session.send_signal(number)
        time.sleep(0.1)
    out, err = session.communicate(timeout=20)
    assert session.returncode == 130 and err == "ofrl: interrupted\n"
    assert out.splitlines() == ["INT", "saved after 1"]
    assert not alive(session.roslaunch) and not list(tmp_path.glob("ofrl-session-*"))


@pytest.mark.slow
def test_killed_it_takes_roslaunch_along(session):
    session.kill()
    session.wait()
    deadline = time.monotonic() + 20
    while alive(session.roslaunch):
        assert time.monotonic() < deadline, "roslaunch goes on"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_the_session(roslaunch, tmp_path):
    roslaunch("trap 'touch ended; exit' INT; while true; do echo line; sleep 0.05; done")
    command = f"{sys.executable} -m ofrl_robot.cli launch collect | head -n 2"
    subprocess.run(
        command, shell=True, cwd=str(tmp_path), timeout=30, check=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)), stdout=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while not (tmp_path / "ended").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
