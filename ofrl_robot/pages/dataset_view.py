"""One self-contained HTML page to browse a dataset: film strip, plots and facts of each episode.

This module gathers the contents, with one episode in memory at a time;
``templates/episodes.html.j2`` is the layout and draws the plots from the numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from ofrl_robot.data.datasets.dataset import Dataset, open_dataset
from ofrl_robot.data.datasets.edit import chosen
from ofrl_robot.data.episodes.reader import Episode, read_episode, read_frames
from ofrl_robot.data.episodes.schema import FAILURE, LABEL_NAMES, SUCCESS, UNKNOWN
from ofrl_robot.data.episodes.timing import NS_PER_MS, EpisodeTiming, episode_timing
from ofrl_robot.errors import DatasetError
from ofrl_robot.pages.film_strip import JPEG, encode, evenly_spaced, side_by_side
from ofrl_robot.pages.html import data_uri, template, write_page

FILE = "view.html"
MOST_EPISODES = 200  # shown of a dataset when no episodes are named
_EXACT_BYTES = 64_000  # of all strips of an episode as PNG; larger ones become JPEG
_MOST_POINTS = 500  # of a curve: the page has no more pixels


def choose_episodes(dataset: Dataset, episodes: Sequence[str] = ()) -> Dataset:
    """Return the episodes to show: the named ones, or the first ``MOST_EPISODES``.

    Args:
        episodes: names or ranges, see :func:`ofrl_robot.data.datasets.edit.chosen`.

    Raises:
        DatasetError: an episode does not exist; the message names the first one.
    """
    if not episodes:
        return dataset.subset(range(min(MOST_EPISODES, len(dataset.paths))))
    paths = set(chosen(dataset.folder, episodes))
    return dataset.subset([k for k, path in enumerate(dataset.paths) if path in paths])


def write_view(
    folder: Path,
    out: Optional[Path] = None,
    episodes: Sequence[str] = (),
    on_episode: Optional[Callable[[int, int], None]] = None,
) -> Path:
    """Write the page of a dataset and return its path.

    Args:
        folder: the dataset.
        out: file to write (default ``<folder>/view.html``).
        episodes: the episodes to show, see :func:`choose_episodes`.
        on_episode: called with (episodes done, episodes).

    Raises:
        OfrlError: something cannot be read or written; an existing page is left as it was.
    """
    path = out or folder / FILE
    dataset = open_dataset(folder)
    shown = choose_episodes(dataset, episodes)

    def contents() -> Iterator[Dict[str, Any]]:
        for k, episode in enumerate(shown.paths):
            yield _contents(episode)
            if on_episode is not None:
                on_episode(k + 1, len(shown.paths))

    pieces = template("episodes.html.j2").generate(
        name=folder.resolve().name,
        facts=_dataset_facts(dataset),
        total=len(dataset.paths),
        shown=len(shown.paths),
        limited=not episodes and len(shown.paths) < len(dataset.paths),
        episodes=contents(),
    )
    write_page(path, pieces, "view")
    return path


def _dataset_facts(dataset: Dataset) -> List[Tuple[str, str]]:
    metas, lengths = dataset.metas, dataset.lengths
    labels = [meta.success for meta in metas]
    aborted = sum(bool(meta.abort_reason) for meta in metas)
    successes, failures = labels.count(SUCCESS), labels.count(FAILURE)
    success = (
        f"{successes}/{len(metas)} ({100.0 * successes / len(metas):.0f} %), {failures} failure, "
        f"{labels.count(UNKNOWN)} unknown, {aborted} aborted"
    )
    span = _span(min(lengths), max(lengths), "{}")
    rates = [meta.measured_rate_hz for meta in metas]
    achieved = _span(min(rates), max(rates), "{:.4g}")
    cameras = dataset.observation_spec.cameras
    sizes = [f"{c.name} {c.shape[0]}x{c.shape[1]} (height x width)" for c in cameras]
    return [
        ("success", success),
        ("transitions", f"{sum(lengths):,}; {span} an episode"),
        ("task", _distinct(meta.task for meta in metas)),
        ("robot", _distinct(meta.robot for meta in metas)),
        ("actor", _distinct(meta.actor for meta in metas)),
        ("rate", f"{metas[0].control_rate_hz:g} Hz nominal, {achieved} Hz achieved"),
        ("actions", ", ".join(dataset.action_spec.names)),
        ("state", ", ".join(dataset.observation_spec.state_names)),
        ("cameras", ", ".join(sizes)),
    ]


def _distinct(values: Iterable[str]) -> str:
    return "; ".join(sorted(set(values))) or "-"


def _span(low: float, high: float, form: str) -> str:
    texts = form.format(low), form.format(high)
    return texts[0] if texts[0] == texts[1] else "-".join(texts)


def _contents(path: Path) -> Dict[str, Any]:
    """Return what the page shows of one episode; no list is longer than ``_MOST_POINTS``."""
    episode = read_episode(path, cameras=())
    meta = episode.meta
    cameras = [camera.name for camera in meta.observation_spec.cameras]
    total = _return(episode, path)
    stamps = episode.timestamps
    timed = [name for name in cameras if name in stamps]
    timing = None
    if "obs" in stamps and 0 < meta.control_rate_hz < np.inf:
        timing = episode_timing(
            stamps, meta.control_rate_hz, timed, episode.intervention, episode.held
        )
    stride = -(-len(episode) // _MOST_POINTS)
    ages = {}
    if timing is not None:
        ages = {name: _ms((stamps["obs"] - stamps[name])[:-1], stride) for name in timed}
    return {
        "name": path.stem,
        "label": LABEL_NAMES[meta.success],
        "source": meta.label_source,
        "abort": meta.abort_reason,
        "steps": len(episode),
        "return": total,
        "facts": _facts(episode, total, timing),
        "strips": [
            _strip(path, camera, len(episode) + 1, _EXACT_BYTES // len(cameras))
            for camera in cameras
        ],
        "stride": stride,
        "actions": {
            name: _rounded(column[::stride], 2)
            for name, column in zip(meta.action_spec.names, episode.actions.T)
        },
        "rewards": _rounded(_extremes(episode.rewards, stride), 3),
        "period": 1000 / meta.control_rate_hz if timing else 0,
        "intervals": _ms(np.diff(stamps["obs"]), stride) if timing else [],
        "ages": ages,
        "marks": _marks(episode),
    }


def _marks(episode: Episode) -> Dict[str, List[int]]:
    """Return the marked steps of an episode by kind; a kind without any is left out."""
    flags = {
        "limited": episode.limited,
        "intervention": episode.intervention,
        "held": episode.held,
    }
    steps = {kind: np.flatnonzero(flag).tolist() for kind, flag in flags.items()}
    return {kind: found[:_MOST_POINTS] for kind, found in steps.items() if found}


def _return(episode: Episode, path: Path) -> float:
    """Return the sum of the rewards. Raises DatasetError if it overflows."""
    with np.errstate(over="ignore"):
        total = float(episode.rewards.sum())
    if not np.isfinite(total):
        raise DatasetError("the sum of its rewards is not finite", "remove the episode", path)
    return total


def _facts(
    episode: Episode, total: float, timing: Optional[EpisodeTiming]
) -> List[Tuple[str, str]]:
    meta = episode.meta
    rows = [
        ("label", f"{LABEL_NAMES[meta.success]} ({meta.label_source or 'no source'})"),
        ("return", f"{total:g}"),
        ("steps", str(len(episode))),
        ("ended by", meta.abort_reason or ("the task" if episode.terminals[-1] else "time")),
        ("seed", str(meta.seed) if meta.seed >= 0 else "-"),
        ("actor", meta.actor or "-"),
        ("operator", meta.operator or "-"),
        ("task", meta.task or "-"),
        ("recorded", meta.created or "-"),
    ]
    if timing is not None:
        rows.append(("rate", f"{timing.rate_hz:.4g} Hz ({timing.nominal_hz:g} nominal)"))
        for name, camera in timing.cameras.items():
            text = f"{camera.age_ms.p50:.0f} ms median, {camera.age_ms.max:.0f} ms at most"
            rows.append((f"age of {name}", text))
        counts = [
            ("late", timing.late),
            ("held", timing.held),
            ("overridden", timing.interventions),
        ]
        text = ", ".join(f"{n} {name}" for name, n in counts)
        rows.append(("actions", f"{text}, {int(episode.limited.sum())} limited"))
    return rows


def _strip(path: Path, camera: str, frames: int, exact_bytes: int) -> Dict[str, Any]:
    shown = evenly_spaced(frames)
    image, kind = side_by_side(read_frames(path, camera, shown))
    code = encode(image, kind)
    if len(code) > exact_bytes:
        kind = JPEG
        code = encode(image, kind)
    return {
        "camera": camera,
        "shown": shown,
        "image": data_uri(code, kind),
        "size": image.shape[1::-1],
    }


def _ms(ns: np.ndarray, stride: int) -> List[float]:
    return _rounded(_extremes(ns / NS_PER_MS, stride), 1)


def _extremes(values: np.ndarray, stride: int) -> np.ndarray:
    """Return the entry of largest magnitude of every ``stride``, so that a spike stays visible."""
    blocks = np.split(values, range(stride, len(values), stride))
    return np.array([block[np.argmax(np.abs(block))] for block in blocks])


def _rounded(values: Sequence[float], digits: int) -> List[float]:
    return [round(float(v), digits) for v in values]
