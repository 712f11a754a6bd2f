"""Relabel the episodes of a dataset, and exchange labels as CSV. Unlabelled is never success."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Optional, Tuple

from ofrl_robot.data.datasets.dataset import Dataset, locked_dataset, open_dataset
from ofrl_robot.data.datasets.edit import file_name, relabel
from ofrl_robot.data.episodes import schema
from ofrl_robot.data.episodes.reader import open_episode, read_episode
from ofrl_robot.data.episodes.schema import FAILURE, SUCCESS, UNKNOWN
from ofrl_robot.errors import DatasetError
from ofrl_robot.files import new_file

COLUMNS = ("episode", "success", "step", "reward")
WORDS = {"1": SUCCESS, "0": FAILURE, "unknown": UNKNOWN}


# -- relabelling -----------------------------------------------------------------------------


@dataclasses.dataclass
class LabelChange:
    """Requested change to one episode.

    Attributes:
        success: 1, 0 or -1; None keeps the label.
        rewards: new rewards by step, from 0.
    """

    success: Optional[int] = None
    rewards: Dict[int, float] = dataclasses.field(default_factory=dict)


class LabelChanges:
    """Requested changes to the episodes of a dataset, checked as they are added.

    The methods raise DatasetError, without a place: the caller knows the line.

    Attributes:
        by_file: requested change of each episode that has one, by file name.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.by_file: Dict[str, LabelChange] = {}
        self._lengths = {path.name: length for path, length in zip(dataset.paths, dataset.lengths)}

    def add_label(self, episode: str, success: int) -> None:
        """Request a label, 1, 0 or -1; ``episode`` is a number or a file name."""
        change = self._change(episode)
        if change.success is not None:
            raise DatasetError(f"episode {episode!r} is labelled twice")
        if success not in schema.LABEL_NAMES:
            raise DatasetError(f"success of episode {episode!r} is {success!r}")
        change.success = success

    def add_reward(self, episode: str, step: int, reward: float) -> None:
        """Request the reward after action number ``step``, from 0."""
        change, steps = self._change(episode), self._lengths[file_name(episode)]
        if not 0 <= step < steps:
            raise DatasetError(f"episode {episode!r} has steps 0 to {steps - 1}, not {step}")
        if step in change.rewards:
            raise DatasetError(f"step {step} of episode {episode!r} occurs twice")
        if not math.isfinite(reward):
            raise DatasetError(f"reward {reward} of episode {episode!r}")
        change.rewards[step] = reward

    def _change(self, episode: str) -> LabelChange:
        name = file_name(episode)
        if name not in self._lengths:
            raise DatasetError(f"no episode {episode!r} in the dataset")
        return self.by_file.setdefault(name, LabelChange())


def apply(folder: Path, changes: Mapping[str, LabelChange], source: str) -> List[str]:
    """Apply changes to their episodes; return the names of the files that changed.

    An episode that has the requested label already is not changed, and keeps its label source.
    The caller holds the lock. If a full disk stops it half way, run it again.

    Args:
        folder: the dataset.
        changes: by file name.
        source: who or what decided.

    Raises:
        DatasetError: an episode is damaged.
        OutputError: the disk refuses. Each episode is either unchanged or relabelled.
    """
    changed: List[str] = []
    for name, change in sorted(changes.items()):
        episode = read_episode(folder / name, cameras=())
        meta, rewards = episode.meta, episode.rewards.copy()
        for step, reward in change.rewards.items():
            rewards[step] = reward
        has_source = bool(meta.label_source) or meta.success == UNKNOWN
        same_label = meta.success == change.success and has_source
        label_changes = change.success is not None and not same_label
        rewards_change = (rewards != episode.rewards).any()
        if label_changes or rewards_change:
            relabel(
                folder / name,
                source,
                change.success if label_changes else None,
                rewards if rewards_change else None,
            )
            changed.append(name)
    return changed


# -- CSV -------------------------------------------------------------------------------------


def label_from_csv(folder: Path, file: Path) -> List[str]:
    """Label a dataset from a CSV file; return the names of the files that changed.

    Columns ``episode`` (number or file name) and ``success`` (1, 0 or unknown), and for rewards
    ``step`` and ``reward``: a row has either a label, or a step and its reward. ``label_source``
    becomes ``csv:<file name>``.

    Raises:
        DatasetError: a line is bad; names file, line and episode. Nothing is changed.
        OutputError: the disk refuses. Each episode is either unchanged or relabelled.
    """
    with locked_dataset(folder) as dataset:
        changes = LabelChanges(dataset)
        for line, row in _rows(file):
            try:
                _add(changes, row)
            except DatasetError as error:
                raise _bad(file, line, error.what) from error
        return apply(folder, changes.by_file, f"csv:{file.name}")


def _rows(file: Path) -> Iterator[Tuple[int, Dict[str, str]]]:
    """Yield (line number, values by column) for every row that is not empty."""
    try:
        text = file.read_text(encoding="utf-8-sig")  # spreadsheets put a mark in front
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"cannot be read ({reason})", "give a CSV file", file) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: List[str] = []
    try:
        for values in reader:
            values = [value.strip() for value in values]
            if not any(values):
                continue
            if not columns:
                columns = values
                _check_columns(columns, file)
            elif len(values) != len(columns):
                text = f"{len(values)} values in {len(columns)} columns"
                raise _bad(file, reader.line_num, text)
            else:
                yield reader.line_num, dict(zip(columns, values))
    except csv.Error as error:
        raise _bad(file, reader.line_num, str(error)) from error
    if not columns:
        raise DatasetError("is empty", "see docs/data_format.md", file)


def _check_columns(columns: List[str], file: Path) -> None:
    bad = [name for name in columns if name not in COLUMNS or columns.count(name) > 1]
    missing = [name for name in COLUMNS[:2] if name not in columns]
    if bad or missing:
        what = f"column {bad[0]!r}" if bad else f"no column {missing[0]!r}"
        raise _bad(file, 1, f"{what}, the columns are {','.join(COLUMNS)}")


def _bad(file: Path, line: int, what: str) -> DatasetError:
    return DatasetError(f"line {line}: {what}", "fix it; nothing was changed", file)


def _add(changes: LabelChanges, row: Dict[str, str]) -> None:
    episode, success = row["episode"], row["success"]
    step, reward = row.get("step", ""), row.get("reward", "")
    if bool(step) != bool(reward) or bool(success) == bool(step):
        raise DatasetError(f"episode {episode!r} needs either success, or step and reward")
    if success:
        if success not in WORDS:
            raise DatasetError(
                f"success of episode {episode!r} is {success!r}, not one of {', '.join(WORDS)}"
            )
        changes.add_label(episode, WORDS[success])
        return
    try:
        number, value = int(step), float(reward)
    except ValueError as error:
        raise DatasetError(
            f"step {step!r}, reward {reward!r} of episode {episode!r} are not numbers"
        ) from error
    changes.add_reward(episode, number, value)


def export_csv(folder: Path, file: Path) -> int:
    """Write the labels of a dataset, and all rewards of episodes whose rewards were set.

    Read back into the dataset as it was before, it gives the same labels and rewards, to the bit.

    Returns:
        The number of episodes.

    Raises:
        DatasetError: the dataset is damaged.
        OutputError: ``file`` exists or cannot be written.
    """
    dataset = open_dataset(folder)
    names = {label: word for word, label in WORDS.items()}
    with new_file(file) as building, open(building, "w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for path, meta in zip(dataset.paths, dataset.metas):
            writer.writerow((path.name, names[meta.success], "", ""))
            for step, reward in enumerate(_set_rewards(path)):
                writer.writerow((path.name, "", step, repr(reward)))
    return len(dataset.paths)


def _set_rewards(path: Path) -> List[float]:
    """Return all rewards of an episode whose rewards were set, none of any other."""
    with open_episode(path) as group:
        if not group.attrs.get("reward_source", ""):
            return []
    return read_episode(path, cameras=()).rewards.tolist()
