"""Film strips: what one recorded episode looked like, as a single row of frames."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import cv2
import numpy as np

from ofrl_robot.data.episodes.reader import read_episode, read_frames

FRAMES = 8
FRAME_HEIGHT = 96  # pixels, about; small frames are enlarged by a whole factor
MOST_SUCCESSES, MOST_OTHERS = 3, 6
PNG, JPEG = "image/png", "image/jpeg"
_GAP = 4


@dataclasses.dataclass(frozen=True)
class Strip:
    """One episode as a picture.

    Attributes:
        name: seed of the episode, or its file where there is no seed (hardware).
        label: ``success``, ``failure`` or ``unknown``.
        abort_reason: why it was stopped, or empty.
        steps: transitions of the episode. shown: which observations the frames are.
        kind: MIME type of ``image``. size: (width, height) in pixels.
    """

    name: str
    label: str
    abort_reason: str
    steps: int
    shown: Tuple[int, ...]
    image: bytes
    kind: str
    size: Tuple[int, int]

    @property
    def succeeded(self) -> bool:
        return _succeeded(self.label, self.abort_reason)


def choose(rows: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Trials worth seeing, of ``TrialReport.rows``: all that went wrong up to a bound, then some
    that did not. Always the first ones in file order: nobody picks the pretty ones."""
    others = [row for row in rows if not _succeeded(row["label"], row["abort_reason"])]
    successes = [row for row in rows if row not in others]
    return others[:MOST_OTHERS] + successes[:MOST_SUCCESSES]


def film_strip(folder: Path, row: Dict[str, Any], camera: str = "") -> Strip:
    """The strip of one trial. ``camera`` names whose frames (default: the policy's, the first).

    Raises DatasetError when the episode is damaged.
    """
    episode = read_episode(folder / row["file"], cameras=())
    names = [c.name for c in episode.meta.observation_spec.cameras]
    shown = evenly_spaced(len(episode) + 1)
    frames = read_frames(folder / row["file"], camera if camera in names else names[0], shown)
    image, kind = side_by_side(frames)
    height, width = image.shape[:2]
    return Strip(
        name=f"seed {row['seed']}" if row["seed"] >= 0 else Path(row["file"]).stem,
        label=row["label"],
        abort_reason=row["abort_reason"],
        steps=row["steps"],
        shown=shown,
        image=encode(image, kind),
        kind=kind,
        size=(width, height),
    )


def evenly_spaced(frames: int) -> Tuple[int, ...]:
    """Which of so many frames a strip shows: the first, the last and some between."""
    return tuple(int(i) for i in np.unique(np.linspace(0, frames - 1, FRAMES).round()))


def encode(image: np.ndarray, kind: str) -> bytes:
    """An RGB uint8 (H, W, 3) picture as ``PNG`` or ``JPEG``."""
    suffix, options = (".png", []) if kind == PNG else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 85])
    _, code = cv2.imencode(suffix, image[..., ::-1], options)  # BGR is what cv2 encodes from
    return code.tobytes()


def side_by_side(
    frames: Sequence[np.ndarray], height: int = FRAME_HEIGHT
) -> Tuple[np.ndarray, str]:
    """RGB uint8 (H, W, 3) frames in a row on white, and the MIME type to keep the row in.

    Small frames are repeated pixel by pixel and kept exactly, so that one sees what the policy
    saw. Camera-sized ones are shrunk; as photographs they are a tenth of the size in JPEG.
    """
    exact = all(len(frame) <= height for frame in frames)
    frames = [_fit(frame, height) for frame in frames]
    tallest = max(len(frame) for frame in frames)
    pieces = []
    for frame in frames:
        piece = np.full((tallest, frame.shape[1] + _GAP, 3), 255, np.uint8)
        piece[: len(frame), :-_GAP] = frame
        pieces.append(piece)
    return np.concatenate(pieces, 1)[:, :-_GAP], PNG if exact else JPEG


def _fit(frame: np.ndarray, height: int) -> np.ndarray:
    """Shrunk to ``height``, or enlarged by the whole factor that comes nearest below it."""
    if len(frame) > height:
        size = (max(1, round(frame.shape[1] * height / len(frame))), height)
        return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    factor = height // len(frame)
    return frame.repeat(factor, 0).repeat(factor, 1)


def _succeeded(label: str, abort_reason: str) -> bool:
    """As ``report_trials`` counts: an aborted trial is no success."""
    return label == "success" and not abort_reason
