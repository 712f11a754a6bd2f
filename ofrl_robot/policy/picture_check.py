"""Compare the pictures of a running episode with those that the policy was trained on."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Mapping, Optional

import numpy as np

from ofrl_robot.policy.light import QUANTITIES, differences, measure
from ofrl_robot.policy.pictures import PictureSummary, Stage, project

# Score from which a trial is said to be outside. 1 is the 99th percentile, which one unseen trial
# in a hundred exceeds by its nature. Of 200 unseen trials of four checkpoints that win 39 to 50 of
# 50, the largest first frame had 1.05, the largest average 1.24.
ALARM = 1.25
# What the average of a moving arm must differ by, in units of what is worth a word: an arm that
# goes elsewhere changed a side by 3 to 9 of 255.
STRONG = 4.0
_AS_DATA = "light and colours are as in the data (look at the camera's place and the objects)"
_ELSEWHERE = (
    "the first frame is as in the data, later ones are not (the arm goes elsewhere than in the "
    "data, or something moved)"
)


@dataclasses.dataclass(frozen=True)
class PictureReport:
    """How far outside the training data the pictures of an episode are, so far.

    Attributes:
        score: larger of ``first`` and ``average``; 99 % of the data's own episodes lie below 1.
        first: of the first frame.
        average: of the average over the first ``frames`` compared frames.
        frames: how many.
        words: what differs, for people.
        light: whether light, colours or grain differ.
    """

    score: float
    first: float
    average: float
    frames: int
    words: str
    light: bool

    @property
    def outside(self) -> bool:
        """Whether a person should look at the camera.

        A policy that hovers leads the average away, too, before a camera that is as it was (9 of
        50 trials of a checkpoint that wins none): then the light has to differ as well.
        """
        return self.first > ALARM or (self.average > ALARM and self.light)

    def to_dict(self) -> Dict[str, Any]:
        """Return the report as JSON values, as an episode holds it."""
        numbers = {name: round(getattr(self, name), 3) for name in ("score", "first", "average")}
        return {
            **numbers, "frames": self.frames, "outside": self.outside, "words": self.words,
        }  # fmt: skip

    def line(self) -> str:
        """Return score and words in one line."""
        return f"pictures {self.score:.2f} (99 % of the data are below 1): {self.words}"


class PictureCheck:
    """Takes the frames of an episode, one after the other.

    It never waits and never raises: whatever fails in it must not end a policy that moves an arm.

    Args:
        summary: of the checkpoint.

    Attributes:
        report: of the running episode, None before its first frame.
        failure: why comparing was given up, empty when it was not.
    """

    def __init__(self, summary: PictureSummary) -> None:
        self._summary = summary
        self.failure = ""
        self.reset()

    def reset(self) -> None:
        """Start an episode."""
        self.report: Optional[PictureReport] = None
        self._taken = 0
        self._first_words = ""
        self._sum = np.zeros(len(self._summary.stages[0].mean))
        self._light: Dict[str, np.ndarray] = {}

    def due(self, step: int) -> bool:
        """Return whether the frame of this step of the episode is to be compared."""
        steps = self._summary.steps
        return not self.failure and self._taken < len(steps) and step >= steps[self._taken]

    def take(self, step: int, features: np.ndarray, images: Mapping[str, np.ndarray]) -> None:
        """Compare a frame if it is due.

        Args:
            step: of the episode.
            features: float (F,), input of the actor's last layer.
            images: by camera, uint8 RGB (H, W, 3), as the policy sees them.
        """
        if not self.due(step):
            return
        try:
            self._take(features, images)
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}"

    def _take(self, features: np.ndarray, images: Mapping[str, np.ndarray]) -> None:
        self._sum += project(features)
        stages = self._summary.stages
        for name in stages[0].light:
            self._light[name] = self._light.get(name, np.zeros(len(QUANTITIES)))
            self._light[name] += measure(images[name])
        self._taken += 1
        for stage in stages:
            if stage.frames == self._taken:
                self._judge(stage)

    def _judge(self, stage: Stage) -> None:
        average = stage.score(self._sum / self._taken)
        first = average if self.report is None else self.report.first
        if stage.frames == 1:
            self._first_words = self._words(stage)
        # what was said of the first frame counts: no arm has moved yet
        words = self._first_words or self._words(stage, STRONG)
        light = bool(words)
        if not words:
            words = _ELSEWHERE if average > 1.0 >= first else _AS_DATA
        self.report = PictureReport(max(first, average), first, average, stage.frames, words, light)

    def _words(self, stage: Stage, worth: float = 1.0) -> str:
        found: List[str] = []
        for name, total in self._light.items():
            low, high = stage.light[name]
            parts = differences(total / self._taken, low, high, worth)
            if parts:
                text = ", ".join(parts[:2])
                found.append(f"camera {name}: {text} than 99 % of the data")
        return "; ".join(found)
