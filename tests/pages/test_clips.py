"""GIF and MP4 of episodes: every tick once, at the speed of the robot, whole or not at all."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from PIL import Image

from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.errors import DatasetError, OutputError
from ofrl_robot.pages.clips import GIF, MP4, write_clips
from ofrl_robot.pages.film_strip import JPEG, side_by_side


def test_a_gif_plays_every_tick_at_the_rate_of_the_robot(record, tmp_path):
    dataset, done = open_dataset(record(tmp_path / "data", [1, 0])), []
    clips = write_clips(dataset, tmp_path / "clips", GIF, lambda *count: done.append(count))
    assert [clip.name for clip in clips] == ["episode_000000.gif", "episode_000001.gif"]
    assert done == [(1, 2), (2, 2)]
    with Image.open(str(clips[0])) as clip:
        assert clip.n_frames == 10 and clip.size == (240, 240)
        assert clip.info["duration"] == 200  # 5 Hz


def test_an_mp4_plays_every_tick_at_the_rate_of_the_robot(record, tmp_path):
    (clip,) = write_clips(open_dataset(record(tmp_path / "data", [1])), tmp_path / "clips", MP4)
    video = cv2.VideoCapture(str(clip))
    assert video.get(cv2.CAP_PROP_FPS) == 5
    frames = 0
    while video.read()[0]:
        frames += 1
    assert frames == 10


def test_nothing_half_written_is_left(record, tmp_path):
    dataset = open_dataset(record(tmp_path / "data", [1]))
    dataset.paths[0].write_bytes(dataset.paths[0].read_bytes()[:1000])
    with pytest.raises(DatasetError, match="episode_000000"):
        write_clips(dataset, tmp_path / "clips", GIF)
    assert not list((tmp_path / "clips").iterdir())
    with pytest.raises(OutputError, match="cannot be written"):
        write_clips(dataset, dataset.paths[0], GIF)


@pytest.mark.parametrize("rate", [0.0, float("nan"), float("inf"), -5.0])
@pytest.mark.parametrize("kind", [GIF, MP4])
def test_an_episode_without_a_control_rate_is_named(record, tmp_path, kind, rate):
    dataset = open_dataset(record(tmp_path / "data", [1]))
    metas = [dataclasses.replace(meta, control_rate_hz=rate) for meta in dataset.metas]
    with pytest.raises(DatasetError, match="episode_000000.h5: its control rate of"):
        write_clips(dataclasses.replace(dataset, metas=metas), tmp_path / "clips", kind)


def test_cameras_of_other_sizes_stand_side_by_side():
    frames = [np.zeros((100, 100, 3), np.uint8), np.zeros((480, 640, 3), np.uint8)]
    picture, kind = side_by_side(frames, 240)
    assert picture.shape == (240, 200 + 4 + 320, 3) and kind == JPEG
    assert (picture[:200, :200] == 0).all() and (picture[200:, :204] == 255).all()
