"""The thread that owns a camera: unplugged and back, hanging, frozen, wrong, over."""

from __future__ import annotations

import time

import numpy as np
import pytest

from ofrl_robot.cameras import stream as module
from ofrl_robot.cameras.files import FileCamera, image_frames
from ofrl_robot.cameras.health import DISCONNECTED, ENDED, FROZEN, STALE, Health
from ofrl_robot.cameras.stream import CameraStream
from tests.cameras.scripted_camera import SIZE, wait_for


@pytest.fixture
def start(monkeypatch):
    """Start a stream at 100 fps with quick reconnects; returns (stream, frames it gave)."""
    monkeypatch.setattr(module, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.1)
    streams = []

    def run(camera, on_frame=None, fps=100.0, **health):
        frames = []
        settings = {"stale_after": 30, "frozen_after": 5, **health}
        stream = CameraStream(camera, SIZE, Health(fps, **settings), on_frame or frames.append)
        streams.append(stream)
        stream.start()
        return stream, frames

    yield run
    for stream in streams:
        stream.stop(timeout=0.1)


def reason(stream):
    return stream.status().reason


@pytest.mark.slow
def test_unplugged_and_back(start, camera):
    stream, frames = start(camera)
    wait_for(lambda: len(frames) > 3 and not reason(stream), "frames")
    camera.plugged = False
    wait_for(lambda: reason(stream) == DISCONNECTED, "the loss to be seen")
    assert "no camera at script" in wait_for(
        lambda: stream.status().text if len(camera.attempts) > 4 else "", "attempts to reopen"
    )
    waits = np.diff(camera.attempts[1:])  # s, from the first attempt that failed on
    seen = len(frames)
    camera.plugged = True
    wait_for(lambda: len(frames) > seen + 3 and not reason(stream), "frames again")
    assert stream.status().values["reconnects"] == 1
    assert camera.closed >= camera.opened - 1, "every open is closed again"
    assert waits[0] >= 0.04 and waits[-1] >= 0.1, "it waits longer from time to time"
    pixels = [frame.pixels for frame in frames]
    assert not any(np.array_equal(a, b) for a, b in zip(pixels, pixels[1:]))


@pytest.mark.slow
def test_a_hanging_driver_is_stale_and_does_not_hold_up_the_end(start, camera):
    stream, frames = start(camera)
    wait_for(lambda: len(frames) > 3, "frames")
    camera.hangs.set()
    wait_for(lambda: reason(stream) == STALE, "stale")
    before = time.monotonic()
    stream.stop(timeout=0.1)
    assert time.monotonic() - before < 30, "a read of 60 s is left behind"


def test_frozen_frames_are_not_handed_on(start, camera):
    stream, frames = start(camera)
    wait_for(lambda: len(frames) > 3, "frames")
    camera.frozen = True
    wait_for(lambda: reason(stream) == FROZEN, "frozen")
    seen = len(frames)
    time.sleep(0.1)
    assert len(frames) == seen
    camera.frozen = False
    wait_for(lambda: len(frames) > seen and not reason(stream), "new frames")


def test_frames_of_another_size_are_refused(start, camera):
    camera.size = (48, 64)
    stream, frames = start(camera)
    text = wait_for(lambda: stream.status().text if camera.closed else "", "the refusal")
    assert "script: delivers 64x48, its config says 32x24" in text
    assert reason(stream) == DISCONNECTED and not frames


def test_an_error_of_the_node_is_not_taken_for_one_of_the_camera(start, camera):
    def fail(frame):
        raise ZeroDivisionError("in on_frame")

    stream, _ = start(camera, fail)
    stream._thread.join(10)
    with pytest.raises(ZeroDivisionError):
        stream.status()


@pytest.mark.slow
def test_a_folder_that_is_taken_away_and_put_back(start, image_folder):
    stream, frames = start(FileCamera(image_folder, image_frames, 100.0, loop=True))
    wait_for(lambda: len(frames) > 15, "more frames than there are images: it repeats")
    image_folder.rename(image_folder.with_name("away"))
    wait_for(lambda: reason(stream) == DISCONNECTED, "the loss to be seen")
    image_folder.with_name("away").rename(image_folder)
    seen = len(frames)
    wait_for(lambda: len(frames) > seen + 3 and not reason(stream), "frames again")


def test_a_recording_that_does_not_repeat_ends(start, image_folder):
    stream, frames = start(FileCamera(image_folder, image_frames, 100.0, loop=False))
    wait_for(lambda: reason(stream) == ENDED, "the end")
    assert len(frames) == 12 and "is over" in stream.status().text
