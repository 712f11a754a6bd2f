"""Recorded episodes as moving pictures: one GIF or MP4 each, at the speed of the robot."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterator, List, Optional

import cv2
import numpy as np
from PIL import Image

from ofrl_robot.data.datasets.dataset import Dataset
from ofrl_robot.data.episodes.reader import iter_frames
from ofrl_robot.data.episodes.schema import EpisodeMeta
from ofrl_robot.errors import ConfigError
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
    A clip lies there whole or not at all; one that is there is replaced.

    Args:
        kind: ``GIF`` or ``MP4``. on_episode: called with (episodes done, episodes).

    Raises ConfigError when ``folder`` cannot be written, DatasetError for a damaged episode.
    """
    write = {GIF: _write_gif, MP4: _write_mp4}[kind]
    clips = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, meta in zip(dataset.paths, dataset.metas):
            clips.append(folder / f"{path.stem}.{kind}")
            partial = folder / f".{path.stem}.partial.{kind}"
            try:
                write(partial, _pictures(path, meta), meta.control_rate_hz)
                partial.replace(clips[-1])
            finally:
                if partial.exists():
                    partial.unlink()
            if on_episode is not None:
                on_episode(len(clips), len(dataset.paths))
    except OSError as error:
        raise ConfigError(
            f"cannot write clips ({error.strerror or error})",
            "choose another --out",
            folder,
        ) from error
    return clips


def _pictures(path: Path, meta: EpisodeMeta) -> Iterator[np.ndarray]:
    """RGB uint8 (H, W, 3) of one tick after the other; a block of frames is in memory at a time."""
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
        str(path), "GIF", save_all=True, append_images=images, duration=1000 / rate_hz, loop=0
    )


def _write_mp4(path: Path, pictures: Iterator[np.ndarray], rate_hz: float) -> None:
    writer = None
    for picture in pictures:
        height, width = (n // 2 * 2 for n in picture.shape[:2])  # the codec wants even sizes
        if writer is None:
            code = cv2.VideoWriter_fourcc(*"mp4v")
            writer = cv2.VideoWriter(str(path), code, rate_hz, (width, height))
            if not writer.isOpened():
                raise OSError(f"opencv opens no mp4v writer for {path.name}")
        writer.write(np.ascontiguousarray(picture[:height, :width, ::-1]))  # BGR
    if writer is not None:
        writer.release()
