"""The page of a dataset: self-contained, true to the files, bounded, one episode at a time."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any, Dict, List

import cv2
import h5py
import numpy as np
import pytest

from ofrl_robot.cli import main
from ofrl_robot.control.signals import AppliedAction, Tick
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.schema import EpisodeMeta
from ofrl_robot.data.episodes.writer import EpisodeWriter
from ofrl_robot.errors import DatasetError, OutputError
from ofrl_robot.pages import dataset_view as episodes_page
from ofrl_robot.pages.dataset_view import choose_episodes, write_view
from ofrl_robot.specs import WIDOWX_ACTION, CameraSpec, ObservationSpec, widowx_observation

SUCCESS, FAILURE, UNKNOWN = 1, 0, -1


def episodes_of(page: Path) -> List[Dict[str, Any]]:
    found = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page.read_text())
    return [json.loads(text) for text in found]


def photograph(rng: np.random.Generator, camera: CameraSpec) -> np.ndarray:
    shapes = cv2.resize(rng.uniform(0, 255, (6, 8, 3)), (camera.width, camera.height))
    return np.clip(shapes + rng.normal(0, 4, shapes.shape), 0, 255).astype(np.uint8)


def test_the_page_says_what_the_files_say(record, tmp_path):
    folder = record(tmp_path / "data", [SUCCESS, FAILURE, UNKNOWN], aborted=[1], operator="Ada")
    page = write_view(folder)
    assert page == folder / "view.html"
    assert "1/3 (33 %), 1 failure, 1 unknown, 1 aborted" in page.read_text()
    shown = episodes_of(page)
    assert [e["name"] for e in shown] == [f"episode_00000{k}" for k in range(3)]
    assert [e["label"] for e in shown] == ["success", "failure", "unknown"]
    assert [e["return"] for e in shown] == [1, 0, 0]
    assert [e["abort"] for e in shown] == ["", "watchdog", ""]
    facts = dict(shown[1]["facts"])
    assert facts["ended by"] == "watchdog" and facts["seed"] == "1" and facts["operator"] == "Ada"
    assert facts["rate"] == "1 Hz (5 nominal)"  # the ticks of these fixtures are a second apart
    assert shown[0]["rewards"] == read_episode(folder / "episode_000000.h5").rewards.tolist()
    assert list(shown[0]["actions"]) == list(WIDOWX_ACTION.names)
    assert shown[0]["intervals"] == [1000.0] * 9 and shown[0]["period"] == 200


def test_the_page_needs_nothing_from_outside(record, tmp_path):
    page = write_view(record(tmp_path / "data", [SUCCESS]))
    text = page.read_text()
    # the name of SVG is an address from which nothing is fetched
    assert set(re.findall(r"\w+://[\w.]+", text)) == {"http://www.w3.org"}
    assert not re.search(r"<(link|iframe|object)|\bsrc=|@import|url\(", text)
    strip = episodes_of(page)[0]["strips"][0]
    code = base64.b64decode(strip["image"].split(",", 1)[1], validate=True)
    assert cv2.imdecode(np.frombuffer(code, np.uint8), 1).shape[1::-1] == tuple(strip["size"])


def test_hostile_names_stay_text(record, tmp_path):
    actor = "</script><script>alert(1)</script>"
    page = write_view(record(tmp_path / "data", [SUCCESS], actor=actor))
    assert "<script>alert" not in page.read_text()
    assert dict(episodes_of(page)[0]["facts"])["actor"] == actor


def test_a_big_dataset_is_limited_and_the_page_says_so(record, tmp_path, monkeypatch):
    monkeypatch.setattr(episodes_page, "MOST_EPISODES", 2)
    folder = record(tmp_path / "data", [SUCCESS] * 3)
    page = write_view(folder)
    assert len(episodes_of(page)) == 2
    assert "The first 2 of 3 are shown" in page.read_text()
    assert "3/3 (100 %)" in page.read_text()  # the facts are of all
    page = write_view(folder, episodes=["1-2"])
    assert [e["name"] for e in episodes_of(page)] == ["episode_000001", "episode_000002"]
    with pytest.raises(DatasetError, match="no episode '7'"):
        choose_episodes(open_dataset(folder), ["7"])


@pytest.mark.slow
def test_long_episodes_with_two_cameras_stay_small(tmp_path):
    """1200 steps; pictures with shapes of all colours and the noise of a sensor."""
    state = widowx_observation(8)
    cameras = CameraSpec("left", 120, 160), CameraSpec("right", 96, 128)
    spec = ObservationSpec(cameras, state.state_names, state.state_units, state.state_frame)
    writer = EpisodeWriter(tmp_path, EpisodeMeta("real", "Task", WIDOWX_ACTION, spec, 10.0))
    rng = np.random.default_rng(0)
    pictures = [{c.name: photograph(rng, c) for c in cameras} for _ in range(9)]
    for step in range(1201):
        stamp = (step + 1) * 10**8 + (step > 700) * 10**9  # one long gap
        writer.observe(
            Tick(stamp, step, pictures[step % 9], np.zeros(10), float(step == 801), step == 1200)
        )
        if step < 1200:
            action = rng.uniform(-1, 1, 8)
            writer.act(AppliedAction(stamp, action, action, "policy"))
    writer.finish(SUCCESS, "operator")
    page = write_view(tmp_path)
    (episode,) = episodes_of(page)
    assert page.stat().st_size < 100e3
    assert episode["stride"] == 3 and len(episode["rewards"]) == 400
    assert sum(episode["rewards"]) == 1  # one reward in 1200 steps is not thinned away
    assert max(episode["intervals"]) == 1100  # nor is the gap
    assert [s["camera"] for s in episode["strips"]] == ["left", "right"]


def test_a_damaged_episode_leaves_the_old_page(record, tmp_path):
    folder = record(tmp_path / "data", [SUCCESS, FAILURE])
    before = write_view(folder).read_bytes()
    dataset = open_dataset(folder)
    dataset.paths[1].write_bytes(dataset.paths[1].read_bytes()[:1000])
    with pytest.raises(DatasetError, match="episode_000001"):
        write_view(folder)
    assert (folder / "view.html").read_bytes() == before
    assert not list(folder.glob("*.partial"))


def test_rewards_whose_sum_overflows_are_refused_in_one_line(record, tmp_path):
    folder = record(tmp_path / "data", [SUCCESS])
    with h5py.File(folder / "episode_000000.h5", "r+") as file:
        rewards = file["data/demo_0/rewards"]
        del file["data/demo_0/rewards"]
        file["data/demo_0/rewards"] = np.full(len(rewards), 1e308)
    with pytest.raises(DatasetError, match="episode_000000.h5: the sum of its rewards"):
        write_view(folder)
    assert not (folder / "view.html").exists()


def test_a_place_that_cannot_be_written(record, tmp_path):
    folder = record(tmp_path / "data", [SUCCESS])
    with pytest.raises(OutputError, match="is a folder"):
        write_view(folder, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_view(folder, tmp_path / "file" / "view.html")


def test_the_verb_writes_page_and_clips(record, tmp_path, capsys):
    folder, out = record(tmp_path / "data", [SUCCESS, FAILURE]), tmp_path / "out" / "page.html"
    words = ["data", "view", folder, "--out", out, "--episodes", "1", "--gif", "--mp4"]
    assert main([str(word) for word in words]) == 0
    names = sorted(path.name for path in (tmp_path / "out").rglob("*.*"))
    assert names == ["episode_000001.gif", "episode_000001.mp4", "page.html"]
    assert f"view: {out}" in capsys.readouterr().out
