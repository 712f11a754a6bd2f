"""A page in the operator's browser to label episodes; every click is on disk before its answer."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Dict, List

import numpy as np

from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.data.datasets.labels import LabelChange, apply
from ofrl_robot.data.episodes.lock import one_writer
from ofrl_robot.data.episodes.reader import read_episode, read_frames
from ofrl_robot.data.episodes.schema import LABEL_NAMES, SUCCESS, EpisodeMeta
from ofrl_robot.pages.film_strip import encode, side_by_side
from ofrl_robot.pages.html import template
from ofrl_robot.pages.server import HTML, Answer, PageServer, bad_request, not_found, to_json

SOURCE = "browser"  # label_source and reward_source of what is set here
FRAME_HEIGHT = 288  # pixels, about; small frames are enlarged by a whole factor


class LabelServer(PageServer):
    """Serves the label page of one dataset folder.

    Args:
        folder: the dataset.
        port: 0 for any free one.

    Raises:
        DatasetError: the folder has no readable episodes.
        ConfigError: the port is taken.
    """

    post_paths = (["labels"],)

    def __init__(self, folder: Path, port: int = 0) -> None:
        dataset = open_dataset(folder)
        self.folder = folder
        self.paths = {path.stem: path for path in dataset.paths}
        self.episodes: Dict[str, Dict[str, Any]] = {}
        for path, meta, steps in zip(dataset.paths, dataset.metas, dataset.lengths):
            self.episodes[path.stem] = _row(path.stem, meta, steps)
        self.cameras = [camera.name for camera in dataset.observation_spec.cameras]
        self._saving = threading.Lock()
        super().__init__(port)

    def get(self, parts: List[str]) -> Answer:
        """Answer the page, the list of episodes, one episode, or one frame."""
        if parts == [""]:
            page = template("label.html.j2").render(name=self.folder.resolve().name)
            return page.encode(), HTML
        if parts == ["episodes"]:
            return to_json(list(self.episodes.values()))
        if len(parts) == 2 and parts[0] == "episodes":
            return to_json(self.episode(parts[1]))
        if len(parts) == 3 and parts[0] == "frames":
            return self.frame(parts[1], parts[2])
        raise not_found()

    def post(self, parts: List[str], body: Any) -> Answer:
        """Save one click, see :meth:`save`."""
        return to_json(self.save(body))

    def episode(self, name: str) -> Dict[str, Any]:
        """Return what the page shows of one episode, read from disk now."""
        episode = read_episode(self._path(name), cameras=())
        meta = episode.meta
        self.episodes[name] = _row(name, meta, len(episode))
        return {
            **self.episodes[name],
            "task": meta.task,
            "seed": meta.seed,
            "actor": meta.actor,
            "abort": meta.abort_reason,
            "rate": meta.control_rate_hz,
            "rewarded": np.flatnonzero(episode.rewards > 0).tolist(),
        }

    def frame(self, name: str, index: str) -> Answer:
        """Return one tick as a picture, all cameras side by side."""
        steps = self.episodes[self._path(name).stem]["steps"]
        if not (index.isascii() and index.isdigit() and len(index) < 10 and int(index) <= steps):
            raise not_found(f"no frame {index!r:.40} in {name}")
        frames = [read_frames(self.paths[name], c, [int(index)])[0] for c in self.cameras]
        picture, kind = side_by_side(frames, FRAME_HEIGHT)
        return encode(picture, kind), kind

    def save(self, body: Any) -> Dict[str, Any]:
        """Apply one click and return the episode as it is on disk afterwards.

        Args:
            body: ``{"episode": name, "label": "success" | "failure" | "unknown"}``, or
                ``{"episode": name, "reward_from": step}``. The latter sets reward 0 before that
                step (0..T-1), 1 from it on, and the label success. With step T no step has a
                reward, and the label stays.

        Raises:
            Refused: ``body`` is neither of them.
            DatasetError: the disk refuses, or a recorder is at work in the folder.
        """
        fields = set(body) if isinstance(body, dict) else set()
        if fields not in ({"episode", "label"}, {"episode", "reward_from"}):
            raise bad_request('send {"episode": name} and either "label" or "reward_from"')
        name = body["episode"]
        if not isinstance(name, str):
            raise bad_request("episode is not a name")
        path = self._path(name)
        if "label" in body:
            labels = [k for k, word in LABEL_NAMES.items() if word == body["label"]]
            if not labels:
                raise bad_request(f"label is not one of {', '.join(LABEL_NAMES.values())}")
            verdict = LabelChange(labels[0])
        else:
            first = body["reward_from"]
            steps = self.episodes[name]["steps"]
            if type(first) is not int or not 0 <= first <= steps:  # True is an int, but no step
                raise bad_request(f"reward_from is not a step from 0 to {steps}")
            rewards = {step: float(step >= first) for step in range(steps)}
            verdict = LabelChange(SUCCESS if first < steps else None, rewards)
        with self._saving, one_writer(self.folder):
            apply(self.folder, {path.name: verdict}, SOURCE)
            return self.episode(name)

    def _path(self, name: str) -> Path:
        if name not in self.paths:
            raise not_found(f"no episode {name!r:.60}")
        return self.paths[name]


def _row(name: str, meta: EpisodeMeta, steps: int) -> Dict[str, Any]:
    """Return what the list of the page shows of one episode."""
    label = LABEL_NAMES[meta.success]
    return {"name": name, "label": label, "source": meta.label_source, "steps": steps}
