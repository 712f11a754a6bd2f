"""Success labels and where they come from. Unlabelled is never success."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Optional, Tuple

import h5py

from ofrl_robot.control.signals import Tick
from ofrl_robot.data.episodes import schema
from ofrl_robot.files import new_file
from ofrl_robot.data.datasets.edit import file_name, relabel
from ofrl_robot.data.episodes.lock import locked_dataset
from ofrl_robot.data.episodes.reader import Dataset, open_dataset, read_episode
from ofrl_robot.data.episodes.schema import FAILURE, SUCCESS, UNKNOWN
from ofrl_robot.errors import DatasetError

SIMULATOR, OPERATOR, NOBODY = "simulator", "operator", ""
COLUMNS = ("episode", "success", "step", "reward")
WORDS = {"1": SUCCESS, "0": FAILURE, "unknown": UNKNOWN}


def simulator_label(last: Tick) -> int:
    """Label of a simulated episode: success if the reward holds at its last step.

    roboverse's collectors judge the last step too; a reward met on the way and lost again is a
    failure. An episode that did not reach its end is unknown.
    """
    if not last.last:
        return UNKNOWN
    return SUCCESS if last.reward > 0 else FAILURE


# -- relabelling -----------------------------------------------------------------------------


@dataclasses.dataclass
class Verdict:
    """What somebody says of an episode: its label (None: nothing), rewards of some of its steps."""

    success: Optional[int] = None
    rewards: Dict[int, float] = dataclasses.field(default_factory=dict)


class Verdicts:
    """Verdicts on the episodes of a dataset, checked as they are added.

    Attributes:
        by_file: verdict of each episode that has one, by file name.

    Its methods raise DatasetError for what cannot be, saying what and not where.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.by_file: Dict[str, Verdict] = {}
        self._lengths = {path.name: length for path, length in zip(dataset.paths, dataset.lengths)}

    def add_label(self, episode: str, success: int) -> None:
        """``success`` is 1, 0 or -1; ``episode`` a number or a file name."""
        verdict = self._of(episode)
        if verdict.success is not None:
            raise DatasetError(f"episode {episode!r} is labelled twice")
        if success not in schema.LABEL_NAMES:
            raise DatasetError(f"success of episode {episode!r} is {success!r}")
        verdict.success = success

    def add_reward(self, episode: str, step: int, reward: float) -> None:
        """The reward after action number ``step``, from 0."""
        verdict, steps = self._of(episode), self._lengths[file_name(episode)]
        if not 0 <= step < steps:
            raise DatasetError(
                f"episode {episode!r} has steps 0 to {steps - 1}, not {step}"
            )
        if step in verdict.rewards:
            raise DatasetError(f"step {step} of episode {episode!r} occurs twice")
        if not math.isfinite(reward):
            raise DatasetError(f"reward {reward} of episode {episode!r}")
        verdict.rewards[step] = reward

    def _of(self, episode: str) -> Verdict:
        name = file_name(episode)
        if name not in self._lengths:
            raise DatasetError(f"no episode {episode!r} in the dataset")
        return self.by_file.setdefault(name, Verdict())


def apply(folder: Path, verdicts: Mapping[str, Verdict], source: str) -> List[str]:
    """Write verdicts into the episodes they concern; returns the files that changed.

    An episode that is labelled like that already is left as it is, with the source it has. The
    lock is the caller's. Stopped half way by a full disk, it can be run again.
    """
    changed: List[str] = []
    for name, verdict in sorted(verdicts.items()):
        episode = read_episode(folder / name, cameras=())
        meta, rewards = episode.meta, episode.rewards.copy()
        for step, reward in verdict.rewards.items():
            rewards[step] = reward
        said = meta.success, bool(meta.label_source) or meta.success == UNKNOWN
        label_changes = verdict.success is not None and said != (verdict.success, True)
        rewards_change = (rewards != episode.rewards).any()
        if label_changes or rewards_change:
            relabel(
                folder / name,
                source,
                verdict.success if label_changes else None,
                rewards if rewards_change else None,
            )
            changed.append(name)
    return changed


# -- CSV -------------------------------------------------------------------------------------


def label_from_csv(folder: Path, file: Path) -> List[str]:
    """Label a dataset from a CSV file; returns the files that changed.

    Columns ``episode`` (number or file name) and ``success`` (1, 0 or unknown), and for rewards
    ``step`` and ``reward``: a row has either a label, or a step and its reward. ``label_source``
    becomes ``csv:<file name>``.

    Raises DatasetError naming file, line and episode; nothing is changed then.
    """
    with locked_dataset(folder) as dataset:
        verdicts = Verdicts(dataset)
        for line, row in _rows(file):
            try:
                _add(verdicts, row)
            except DatasetError as error:
                raise _bad(file, line, error.what) from error
        return apply(folder, verdicts.by_file, f"csv:{file.name}")


def _rows(file: Path) -> Iterator[Tuple[int, Dict[str, str]]]:
    """(line number, values by column) of every row that is not empty."""
    try:
        text = file.read_text(encoding="utf-8-sig")  # spreadsheets put a mark in front
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot be read ({error})", "give a CSV file", file) from error
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
    return DatasetError(f"line {line}: {what}", "mend it; nothing was changed", file)


def _add(verdicts: Verdicts, row: Dict[str, str]) -> None:
    episode, success = row["episode"], row["success"]
    step, reward = row.get("step", ""), row.get("reward", "")
    if bool(step) != bool(reward) or bool(success) == bool(step):
        raise DatasetError(f"episode {episode!r} needs either success, or step and reward")
    if success:
        if success not in WORDS:
            raise DatasetError(
                f"success of episode {episode!r} is {success!r}, not one of {', '.join(WORDS)}"
            )
        verdicts.add_label(episode, WORDS[success])
        return
    try:
        number, value = int(step), float(reward)
    except ValueError as error:
        text = "step {!r}, reward {!r} of episode {!r} are no numbers"
        raise DatasetError(text.format(step, reward, episode)) from error
    verdicts.add_reward(episode, number, value)


def export_csv(folder: Path, file: Path) -> int:
    """Write the labels of a dataset, and the rewards of relabelled episodes; returns the episodes.

    Read back into the dataset as it was before, it gives the same labels and rewards, to the bit.

    Raises DatasetError where ``file`` exists or cannot be written.
    """
    dataset = open_dataset(folder)
    names = {label: word for word, label in WORDS.items()}
    with new_file(file) as building, open(str(building), "w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for path, meta in zip(dataset.paths, dataset.metas):
            writer.writerow((path.name, names[meta.success], "", ""))
            for step, reward in enumerate(_set_rewards(path)):
                writer.writerow((path.name, "", step, repr(reward)))
    return len(dataset.paths)


def _set_rewards(path: Path) -> List[float]:
    """All rewards of an episode whose rewards were set, none of any other."""
    with h5py.File(str(path), "r") as file:
        if not file[schema.GROUP].attrs.get("reward_source", ""):
            return []
    return read_episode(path, cameras=()).rewards.tolist()
