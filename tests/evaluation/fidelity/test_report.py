"""`ofrl sim replay`: the table, the report file, what is skipped and what is refused."""

from __future__ import annotations

import copy
import json
import os

import numpy as np
import pytest
from PIL import Image

from ofrl_robot.cli import main
from ofrl_robot.evaluation.fidelity.recordings import parse_recording
from ofrl_robot.evaluation.fidelity.replay import replay
from ofrl_robot.evaluation.fidelity.report import HEADER, LINE_WIDTH
from ofrl_robot.sim.simulation import EmbeddedSimulation
from ofrl_robot.sim.tasks import find

TASK, DRAWER = "Widow250SingleObjGrasp-v0", "Widow250DrawerOpen-v0"
NAME = f"scripted_{TASK}_2021-06-01.npy"


@pytest.fixture(scope="module")
def trajectories(record_trajectory):
    return [record_trajectory(TASK, seed, steps) for seed, steps in ((0, 12), (1, 16), (2, 14))]


@pytest.fixture
def ofrl(capsys):
    """Function (words) -> (exit code, stdout, stderr)."""

    def call(*words):
        code = main([str(word) for word in words])
        return (code, *capsys.readouterr())

    return call


def test_our_own_file_agrees_entirely(ofrl, tmp_path, trajectories, write_npy):
    file, report = write_npy(tmp_path / NAME, trajectories), tmp_path / "deep" / "report.json"
    code, out, err = ofrl("sim", "replay", file, "--report", report)
    assert code == 0 and err == ""
    assert out.startswith(HEADER)
    assert max(map(len, out.replace(str(report), "").splitlines())) <= LINE_WIDTH
    assert [line.split()[0] for line in out.splitlines()[2:5]] == ["0", "1", "2"]

    found = json.loads(report.read_text())
    assert (found["file"], found["env"], found["skipped"]) == (NAME, TASK, [])
    for key in ("mean_mm", "median_mm", "p95_mm"):
        assert 0.0 <= found[key] < 0.001
    assert found["all_median_mm"] < 1.0 and found["all_p95_mm"] >= found["all_median_mm"]
    assert found["success_agreement"] == found["success_agreement_any"] == 1.0
    assert found["drawer_agreement"] is found["drawer_opening_error_median"] is None
    assert found["steps"] == 42 > found["free_steps"] > 0
    assert [e["steps"] for e in found["episodes"]] == [12, 16, 14]
    assert found["episodes"][0]["recorded"] == found["episodes"][0]["replayed"]
    assert os.listdir(str(report.parent)) == ["report.json"]


def test_drawers_are_compared_too(ofrl, tmp_path, record_trajectory, write_npy):
    file = write_npy(tmp_path / "mine.npy", [record_trajectory(DRAWER, 0, 16)])
    code, out, _ = ofrl("sim", "replay", file, "--task", DRAWER, "--report", tmp_path / "r.json")
    found = json.loads((tmp_path / "r.json").read_text())
    assert code == 0 and "drawer agrees in 100%" in out
    assert found["drawer_agreement"] == 1.0 and found["drawer_opening_error_median"] < 0.02
    assert found["episodes"][0]["recorded"]["drawer_opened"] is True


def pictures_of(number, trajectory):
    """What the simulator's camera sees in a replay of the trajectory, at 24 pixels."""
    simulation = EmbeddedSimulation(find(TASK)(), stale_gripper_flag=True)
    draw, images = simulation.image, []
    simulation.image = lambda size: images.append(draw(24)) or images[-1]
    replay(simulation, parse_recording(trajectory), np.random.default_rng(number))
    simulation.close()
    return images


def filmed(trajectories, brighter):
    """The trajectories with pictures of our own simulator, each value raised by ``brighter``."""
    found = copy.deepcopy(trajectories)
    for number, trajectory in enumerate(found):
        observations = trajectory["observations"] + trajectory["next_observations"][-1:]
        for observation in observations:
            observation["image"] = np.zeros((24, 24, 3), np.uint8)
        images = pictures_of(number, dict(trajectory, next_observations=observations[1:]))
        for observation, image in zip(observations, images):
            observation["image"] = np.clip(image, 0, 255 - brighter) + np.uint8(brighter)
        trajectory["next_observations"] = observations[1:]
    return found


@pytest.mark.slow
def test_pictures_are_compared_too(ofrl, tmp_path, trajectories, write_npy):
    found = {}
    for brighter in (0, 10):
        file = write_npy(tmp_path / NAME, filmed(trajectories[:2], brighter))
        report, picture = tmp_path / f"{brighter}.json", tmp_path / "new" / f"{brighter}.png"
        code, out, _ = ofrl("sim", "replay", file, "--report", report, "--picture", picture)
        assert code == 0 and f"picture: {picture}" in out
        found[brighter] = json.loads(report.read_text())
    keys = ("first_mean_px", "first_px", "all_px")
    assert [found[0][key] for key in keys] == [0.0, 0.0, 0.0]
    # The background, 255 already, cannot get brighter.
    assert all(7.0 < found[10][key] <= 10.0 for key in keys)
    assert found[10]["episodes"][0]["all_px"] == pytest.approx(found[10]["all_px"], abs=0.5)
    assert "pictures differ by" in out
    shown = np.asarray(Image.open(picture)).astype(int)
    assert shown.shape == (2 * 192, 3 * 192, 3)
    assert 7.0 < (shown[:192] - shown[192:]).mean() <= 10.0


def test_without_pictures_none_are_compared(ofrl, tmp_path, trajectories, write_npy):
    file, report = write_npy(tmp_path / NAME, trajectories[:1]), tmp_path / "r.json"
    code, out, err = ofrl(
        "sim", "replay", file, "--report", report, "--picture", tmp_path / "p.png"
    )
    assert code == 2 and "has no images to show; leave --picture out" in err
    assert json.loads(report.read_text())["all_px"] is None and "pictures differ" not in out
    assert os.listdir(str(tmp_path)).count("p.png") == 0


@pytest.mark.slow
def test_a_changed_recording_shows(ofrl, tmp_path, trajectories, write_npy):
    changed = copy.deepcopy(trajectories)
    for trajectory in changed:
        for observation in trajectory["next_observations"]:
            observation["state"] = observation["state"] + np.eye(10)[0] * 0.01
        trajectory["rewards"] = [0.0] * len(trajectory["rewards"])
    report = tmp_path / "r.json"
    code, _, _ = ofrl("sim", "replay", write_npy(tmp_path / NAME, changed), "--report", report)
    found = json.loads(report.read_text())
    assert code == 0
    assert found["median_mm"] == pytest.approx(10.0, abs=0.01)
    assert found["success_agreement"] < 1.0
    recorded = [e["recorded"]["success"] for e in found["episodes"]]
    replayed = [e["replayed"]["success"] for e in found["episodes"]]
    assert not any(recorded) and found["success_agreement"] == replayed.count(False) / 3


def test_bad_episodes_are_skipped_with_a_reason(ofrl, tmp_path, trajectories, write_npy):
    nan = copy.deepcopy(trajectories[0])
    nan["actions"][4] = np.full(8, np.nan)
    elsewhere = copy.deepcopy(trajectories[1])
    elsewhere["observations"][0]["state"] += 0.1
    file, report = tmp_path / NAME, tmp_path / "r.json"
    write_npy(file, [nan, trajectories[0], elsewhere, {}])
    code, out, _ = ofrl("sim", "replay", file, "--report", report)
    found = json.loads(report.read_text())
    assert code == 0 and "episodes: 1 replayed, 3 skipped" in out
    assert [e["episode"] for e in found["episodes"]] == [1]
    reasons = {s["episode"]: s["reason"] for s in found["skipped"]}
    assert "actions is not finite at step 4" in reasons[0]
    assert (
        "arm begins 173 mm from the simulator's" in reasons[2] and "no observations" in reasons[3]
    )
    assert all(reason[:40] in out for reason in reasons.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["FILE", "--task", DRAWER],
            f"infos lack drawer_x_pos, which {DRAWER} has; check that --task",
        ),
        (["FILE", "--task", "Widow250Fly-v0"], "simulated task 'Widow250Fly-v0' is unknown"),
        (["UNNAMED"], "no task id in the file name; pass --task Widow250"),
        (["EMPTY", "--task", TASK], "holds no trajectory"),
        (["TEXT", "--task", TASK], "neither an .npy file"),
        (["MISSING", "--task", TASK], "No such file"),
        (["FILE", "--report", "FOLDER"], "the report cannot be written there"),
        (["FILE", "--report", "TEXT/r.json"], "the report cannot be written there"),
    ],
)
def test_what_the_user_can_mend_is_one_line(
    ofrl, tmp_path, trajectories, write_npy, words, message
):
    places = {
        "FILE": write_npy(tmp_path / NAME, trajectories[:1]),
        "UNNAMED": write_npy(tmp_path / "unnamed.npy", trajectories[:1]),
        "EMPTY": write_npy(tmp_path / "empty.npy", []),
        "TEXT": tmp_path / "text.npy",
        "MISSING": tmp_path / "missing.npy",
        "FOLDER": tmp_path / "folder",
        "TEXT/r.json": tmp_path / "text.npy" / "r.json",
    }
    places["TEXT"].write_text("not what you think")
    places["FOLDER"].mkdir()
    before = sorted(os.listdir(str(tmp_path)))
    words = [places.get(word, word) for word in words]
    if "--report" not in words:
        words += ["--report", tmp_path / "r.json"]
    code, _, err = ofrl("sim", "replay", *words)
    assert code == 2
    assert err.startswith("ofrl: ") and err.count("\n") == 1 and message in err
    assert sorted(os.listdir(str(tmp_path))) == before, "something was left behind"
