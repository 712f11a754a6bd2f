"""Divide a dataset into train and valid, and choose episodes by split.

``splits.json`` holds ``{"train": [file names], "valid": [file names], "seed": of the draw}``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Dict, List, Sequence, Set

from ofrl_robot.data.datasets.dataset import Dataset, locked_dataset
from ofrl_robot.data.episodes.schema import FAILURE, LABEL_NAMES, SUCCESS, UNKNOWN
from ofrl_robot.errors import ConfigError, DatasetError
from ofrl_robot.files import read_json, write_whole

SPLITS = "splits.json"
TRAIN, VALID = "train", "valid"
_SEED = "seed"
_FIX = "write it again with `ofrl data split`"


# -- read ------------------------------------------------------------------------------------


def read_splits(folder: Path) -> Dict[str, List[str]]:
    """Return the episode file names of each split.

    Raises:
        DatasetError: the dataset has no splits, or the file is damaged.
    """
    splits = _read(folder)
    splits.pop(_SEED, None)
    return splits


def _read(folder: Path) -> Dict[str, Any]:
    """Return the whole content of ``splits.json``, checked."""
    path = folder / SPLITS
    if not path.exists():
        raise DatasetError(f"no {SPLITS}", "run `ofrl data split` first", folder)
    try:
        content = read_json(path)
    except ConfigError as error:
        raise DatasetError(error.what, _FIX, path) from error
    if not isinstance(content, dict):
        raise DatasetError("not lists of episode names", _FIX, path)
    for name, files in content.items():
        if name != _SEED and not _is_names(files):
            raise DatasetError("not lists of episode names", _FIX, path)
    return content


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def select(dataset: Dataset, first: int = 0, split: str = "") -> List[int]:
    """Return the positions in ``dataset.paths`` of the chosen episodes, in order.

    Args:
        dataset: where to choose from.
        first: most episodes to take, of the split if one is given; 0 for all.
        split: name of the split, empty for all episodes. Names in the split whose episode is gone
            are ignored.

    Raises:
        ConfigError: there is no such split.
        DatasetError: there are no splits, or no episode is left.
    """
    positions = list(range(len(dataset.paths)))
    if split:
        splits = read_splits(dataset.folder)
        if split not in splits:
            names = ", ".join(sorted(splits)) or "none"
            raise ConfigError(f"no split {split!r}, there is {names}", "", dataset.folder / SPLITS)
        chosen = set(splits[split])
        positions = [k for k in positions if dataset.paths[k].name in chosen]
        if not positions:
            raise DatasetError(f"none of its episodes is in split {split!r}", _FIX, dataset.folder)
    return positions[:first] if first else positions


# -- write -----------------------------------------------------------------------------------


def split(folder: Path, valid: float = 0.1, seed: int = 0, force: bool = False) -> List[str]:
    """Write ``splits.json`` and return the counts as lines.

    The same episodes, labels, fraction and seed give the same split on any computer.

    Args:
        folder: the dataset.
        valid: fraction to hold out of each label (success, failure, unknown), rounded. One
            episode of each label stays in train.
        seed: 0 or more; another seed draws other episodes.
        force: replace the split that exists.

    Raises:
        ConfigError: a bad fraction or seed, or nothing would be held out.
        DatasetError: a split exists, or the dataset is damaged or locked.
        OutputError: the disk refuses. The old split, if there was one, is still there.
    """
    if not 0 < valid < 1:
        raise ConfigError(f"valid {valid} is not in (0, 1)")
    if seed < 0:
        raise ConfigError(f"seed {seed} is below 0", "use 0 or more")
    with locked_dataset(folder) as dataset:
        path = folder / SPLITS
        if path.exists() and not force:
            raise DatasetError("there is a split already", "pass --force to replace it", path)
        names = divide(dataset, valid, seed)
        if not names[VALID]:
            raise ConfigError(
                f"valid {valid} of {len(dataset.paths)} episodes rounds to 0",
                "raise --valid or collect more",
                folder,
            )
        _write(folder, dict(names, seed=seed))
    labels = {path.name: meta.success for path, meta in zip(dataset.paths, dataset.metas)}
    return [_line(part, [labels[name] for name in names[part]]) for part in (TRAIN, VALID)]


def divide(dataset: Dataset, valid: float, seed: int) -> Dict[str, List[str]]:
    """Return the file names of train and valid, each in order."""
    held_out: Set[str] = set()
    for label in (SUCCESS, FAILURE, UNKNOWN):
        names = [p.name for p, m in zip(dataset.paths, dataset.metas) if m.success == label]
        # a hash shuffles alike in every version of Python and numpy
        names.sort(key=lambda n: hashlib.sha256(f"{seed}:{n}".encode()).digest())
        count = min(int(valid * len(names) + 0.5), len(names) - 1)
        held_out.update(names[: max(count, 0)])
    every = [path.name for path in dataset.paths]
    return {
        TRAIN: [name for name in every if name not in held_out],
        VALID: [name for name in every if name in held_out],
    }


def drop_from_splits(folder: Path, names: Sequence[str]) -> None:
    """Take episodes out of the splits, if there are any. The caller holds the lock.

    Raises:
        DatasetError: ``splits.json`` is damaged.
        OutputError: the disk refuses.
    """
    if not (folder / SPLITS).exists():
        return
    content, dropped = _read(folder), set(names)
    kept = dict(content)
    for part, files in content.items():
        if part != _SEED:
            kept[part] = [name for name in files if name not in dropped]
    if kept != content:
        _write(folder, kept)


def _write(folder: Path, content: Dict[str, Any]) -> None:
    write_whole(folder / SPLITS, f"{json.dumps(content, indent=1)}\n")


def _line(part: str, labels: List[int]) -> str:
    counts = ", ".join(f"{labels.count(k)} {v}" for k, v in LABEL_NAMES.items())
    return f"{part}: {len(labels)} episodes ({counts})"
