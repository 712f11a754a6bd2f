"""The frames before crop and resize: kept on request, found after a crash, not seen by training."""

from __future__ import annotations

import cv2
import h5py
import numpy as np
import pytest

from ofrl_robot.control.signals import POLICY, AppliedAction, Tick
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.episodes.numbering import partial_path
from ofrl_robot.data.episodes.reader import read_episode
from ofrl_robot.data.episodes.recover import recover
from ofrl_robot.data.episodes.schema import SUCCESS, EpisodeMeta
from ofrl_robot.data.episodes.writer import EpisodeWriter
from ofrl_robot.data.replay.transition_store import open_transition_store
from ofrl_robot.images import prepare
from ofrl_robot.specs import WIDOWX_ACTION, CameraSpec, ObservationSpec

CAMERA = CameraSpec("front", 8, 8, crop=(0, 8, 48, 48))
SPEC = ObservationSpec((CAMERA,), ("x",), ("m",), "base")
STEPS = 5


def raw_frame(step):
    """A ramp that moves: something that JPEG keeps."""
    grey = (np.arange(48 * 64).reshape(48, 64) // 16 + 9 * step).astype(np.uint8)
    return np.stack([grey, grey // 2, 255 - grey], axis=2)


def record(writer):
    for step in range(STEPS + 1):
        raw, last = raw_frame(step), step == STEPS
        images = {"front": prepare(raw, CAMERA)}
        tick = Tick(step + 1, step, images, np.zeros(1), truncated=last, originals={"front": raw})
        writer.observe(tick)
        if not last:
            writer.act(AppliedAction(tick.stamp_ns, np.zeros(8), np.zeros(8), POLICY))


def started(folder, **options):
    return EpisodeWriter(folder, EpisodeMeta("sim", "Task-v0", WIDOWX_ACTION, SPEC, 5.0), **options)


def decoded(row):
    return cv2.cvtColor(cv2.imdecode(row, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def assert_originals(path):
    assert len(read_episode(path).images["front"]) == STEPS + 1
    with h5py.File(str(path), "r") as file:
        rows = file["data/demo_0/obs_jpeg/front"]
        assert (rows.attrs["encoding"], rows.attrs["quality"]) == ("jpeg", 90)
        assert len(rows) == STEPS + 1
        for step, row in enumerate(rows[:]):
            frame = decoded(row)
            assert frame.shape == (48, 64, 3)
            assert np.abs(frame.astype(int) - raw_frame(step)).mean() < 3.0, step


def test_every_observation_has_its_original(tmp_path):
    writer = started(tmp_path, jpeg_quality=90)
    record(writer)
    assert_originals(writer.finish(SUCCESS, "test"))


def test_they_outlive_the_recorder(tmp_path):
    writer = started(tmp_path, jpeg_quality=90)
    record(writer)
    writer._commit()
    content = partial_path(tmp_path, 0).read_bytes()
    writer.discard()
    partial_path(tmp_path, 0).write_bytes(content)
    (found,) = recover(tmp_path)
    assert found.steps == STEPS
    assert_originals(found.path)


def test_without_a_pipeline_the_recorded_frame_is_the_original(tmp_path, make):
    writer = EpisodeWriter(tmp_path, make.meta(), jpeg_quality=100)
    ticks, applied = make.ticks(2)
    make.record(writer, ticks, applied)
    with h5py.File(str(writer.finish(SUCCESS, "test")), "r") as file:
        rows = file["data/demo_0/obs_jpeg/image"][:]
    assert [decoded(row).shape for row in rows] == [t.images["image"].shape for t in ticks]


@pytest.mark.parametrize("quality", [0, 90])
def test_training_sees_no_difference(tmp_path, quality):
    writer = started(tmp_path, jpeg_quality=quality)
    record(writer)
    with h5py.File(str(writer.finish(SUCCESS, "test")), "r") as file:
        assert ("obs_jpeg" in file["data/demo_0"]) == bool(quality)
        assert set(file["data/demo_0/obs"]) == {"front", "state"}
    assert open_transition_store(open_dataset(tmp_path)).observations["front"].shape == (
        STEPS + 1,
        8,
        8,
        3,
    )
