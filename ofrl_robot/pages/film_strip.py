"""Film strips: a recorded episode as a single row of frames."""

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
        name: seed of the episode, or its file if it has no seed (hardware).
        label: ``success``, ``failure`` or ``unknown``.
        abort_reason: why it was stopped, or empty.
        steps: transitions of the episode.
        shown: indices of the observations that the frames show.
        image: the picture as a file of type ``kind``.
        kind: MIME type of ``image``.
        size: (width, height) in pixels.
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
        """Whether the trial counts as a success; an aborted one does not."""
        return _succeeded(self.label, self.abort_reason)


def choose(rows: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Return the trials to show: failures up to a bound, then some successes.

    They are the first of each kind in file order, so that the choice flatters no policy.

    Args:
        rows: ``TrialReport.rows``.
    """
    others = [row for row in rows if not _succeeded(row["label"], row["abort_reason"])]
    successes = [row for row in rows if row not in others]
    return others[:MOST_OTHERS] + successes[:MOST_SUCCESSES]


def film_strip(folder: Path, row: Dict[str, Any], camera: str = "") -> Strip:
    """Return the strip of one trial.

    Args:
        folder: of the episodes.
        row: of ``TrialReport.rows``.
        camera: whose frames to show; the first camera if it is empty or unknown.

    Raises:
        DatasetError: the episode is damaged.
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
    """Return the indices of the frames that a strip shows: the first, the last, some between."""
    return tuple(int(i) for i in np.unique(np.linspace(0, frames - 1, FRAMES).round()))


def encode(image: np.ndarray, kind: str) -> bytes:
    """Return an RGB uint8 (H, W, 3) picture as the bytes of a ``PNG`` or ``JPEG`` file."""
    suffix, options = (".png", []) if kind == PNG else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 85])
    _, code = cv2.imencode(suffix, image[..., ::-1], options)  # cv2 encodes BGR
    return code.tobytes()


def side_by_side(
    frames: Sequence[np.ndarray], height: int = FRAME_HEIGHT
) -> Tuple[np.ndarray, str]:
    """Join RGB uint8 (H, W, 3) frames in a row on white; return it and the MIME type to use.

    Small frames are enlarged pixel by pixel and kept exactly, as the policy saw them. Frames
    higher than ``height`` are shrunk and become JPEG, which takes a tenth of the bytes of PNG.
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
    """Shrink a frame to ``height``, or enlarge it by the largest whole factor that fits."""
    if len(frame) > height:
        size = (max(1, round(frame.shape[1] * height / len(frame))), height)
        return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    factor = height // len(frame)
    return frame.repeat(factor, 0).repeat(factor, 1)


def _succeeded(label: str, abort_reason: str) -> bool:
    """Return whether a trial succeeded, with or without help; an aborted one did not."""
    return label == "success" and not abort_reason
