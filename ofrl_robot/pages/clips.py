"""Recorded episodes as moving pictures: one GIF or MP4 each, at the speed of the robot."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Callable, Iterator, List, Optional

import cv2
import numpy as np
from PIL import Image

from ofrl_robot import files
from ofrl_robot.data.datasets.dataset import Dataset
from ofrl_robot.data.episodes.reader import iter_frames
from ofrl_robot.data.episodes.schema import EpisodeMeta
from ofrl_robot.errors import DatasetError
from ofrl_robot.pages.film_strip import side_by_side

GIF, MP4 = "gif", "mp4"
HEIGHT = 240  # pixels, about; small frames are enlarged by a whole factor


def write_clips(
    dataset: Dataset,
    folder: Path,
    kind: str,
    on_episode: Optional[Callable[[int, int], None]] = None,
) -> List[Path]:
    """Write ``episode_000042.gif`` (or ``.mp4``) of every episode, all cameras side by side.

    MP4 is MPEG-4 part 2, which opencv can write everywhere: players show it, browsers do not.
    A clip appears under its name when it is complete; an older one is replaced.

    Args:
        kind: ``GIF`` or ``MP4``.
        on_episode: called with (episodes done, episodes).

    Raises:
        OutputError: ``folder`` cannot be written.
        DatasetError: an episode is damaged, or has no control rate.
    """
    write = {GIF: _write_gif, MP4: _write_mp4}[kind]
    clips = []
    files.make_folder(folder)
    for path, meta in zip(dataset.paths, dataset.metas):
        if not 0 < meta.control_rate_hz < np.inf:
            raise DatasetError(
                f"its control rate of {meta.control_rate_hz} Hz is no speed to play it at",
                "leave the episode out",
                path,
            )
        clip = folder / f"{path.stem}.{kind}"
        partial = folder / f".{path.stem}.partial.{kind}"
        try:
            try:
                write(partial, _pictures(path, meta), meta.control_rate_hz)
                files.replace(partial, clip)
            finally:
                with contextlib.suppress(OSError):  # gone already when all went well
                    partial.unlink()
        except OSError as error:
            raise files.output_error(error, clip) from error
        clips.append(clip)
        if on_episode is not None:
            on_episode(len(clips), len(dataset.paths))
    return clips


def _pictures(path: Path, meta: EpisodeMeta) -> Iterator[np.ndarray]:
    """Yield one RGB uint8 (H, W, 3) picture per tick; one block of frames is in memory."""
    cameras = [
        (frame for block in iter_frames(path, camera.name) for frame in block)
        for camera in meta.observation_spec.cameras
    ]
    for frames in zip(*cameras):
        picture, _ = side_by_side(frames, HEIGHT)
        yield picture


def _write_gif(path: Path, pictures: Iterator[np.ndarray], rate_hz: float) -> None:
    images = (Image.fromarray(picture).quantize(256) for picture in pictures)
    next(images).save(
        path, "GIF", save_all=True, append_images=images, duration=1000 / rate_hz, loop=0
    )


def _write_mp4(path: Path, pictures: Iterator[np.ndarray], rate_hz: float) -> None:
    writer = None
    for picture in pictures:
        height, width = (n // 2 * 2 for n in picture.shape[:2])  # the codec needs even sizes
        if writer is None:
            code = cv2.VideoWriter_fourcc(*"mp4v")
            writer = cv2.VideoWriter(str(path), code, rate_hz, (width, height))
            if not writer.isOpened():
                raise OSError(f"opencv opens no mp4v writer for {path.name}")
        writer.write(np.ascontiguousarray(picture[:height, :width, ::-1]))  # BGR
    if writer is not None:
        writer.release()
