"""Film strips: what one recorded episode looked like, as a single row of frames."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import cv2
import numpy as np

from ofrl_robot.data.reader import read_episode

FRAMES = 8
FRAME_HEIGHT = 96  # pixels, about; small frames are enlarged by a whole factor
MOST_SUCCESSES, MOST_OTHERS = 3, 6
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
    episode = read_episode(folder / row["file"])
    names = [c.name for c in episode.meta.observation_spec.cameras]
    frames = episode.images[camera if camera in names else names[0]]
    shown = np.unique(np.linspace(0, len(frames) - 1, FRAMES).round().astype(int))
    image, kind = _join([frames[i] for i in shown])
    height, width = image.shape[:2]
    # BGR is what cv2 encodes from
    _, code = cv2.imencode(".png" if kind == "image/png" else ".jpg", image[..., ::-1])
    return Strip(
        name="seed {}".format(row["seed"]) if row["seed"] >= 0 else Path(row["file"]).stem,
        label=row["label"],
        abort_reason=row["abort_reason"],
        steps=row["steps"],
        shown=tuple(int(i) for i in shown),
        image=code.tobytes(),
        kind=kind,
        size=(width, height),
    )


def _join(frames: Sequence[np.ndarray]) -> Tuple[np.ndarray, str]:
    """Frames side by side on white, and the format to keep them in.

    Small frames are repeated pixel by pixel and kept exactly, so that one sees what the policy
    saw. Camera-sized ones are shrunk; as photographs they are a tenth of the size in JPEG.
    """
    height, width = frames[0].shape[:2]
    if height > FRAME_HEIGHT:
        size = (max(1, round(width * FRAME_HEIGHT / height)), FRAME_HEIGHT)
        frames = [cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames]
        kind = "image/jpeg"
    else:
        factor = max(1, FRAME_HEIGHT // height)
        frames = [f.repeat(factor, 0).repeat(factor, 1) for f in frames]
        kind = "image/png"
    gap = np.full((frames[0].shape[0], _GAP, 3), 255, np.uint8)
    pieces = [piece for frame in frames for piece in (frame, gap)]
    return np.concatenate(pieces[:-1], 1), kind


def _succeeded(label: str, abort_reason: str) -> bool:
    """As ``report_trials`` counts: an aborted trial is no success."""
    return label == "success" and not abort_reason
