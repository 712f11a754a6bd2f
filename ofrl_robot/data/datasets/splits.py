"""Divides a dataset into episodes to train on and episodes to hold out: ``ofrl data split``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Dict, List, Sequence, Set

from ofrl_robot import files
from ofrl_robot.data.episodes import numbering
from ofrl_robot.data.episodes.lock import locked_dataset
from ofrl_robot.data.episodes.reader import Dataset
from ofrl_robot.data.episodes.schema import FAILURE, LABEL_NAMES, SUCCESS, UNKNOWN
from ofrl_robot.data.datasets.selection import SPLITS, read_splits
from ofrl_robot.errors import ConfigError, DatasetError

TRAIN, VALID = "train", "valid"


def split(folder: Path, valid: float = 0.1, seed: int = 0, force: bool = False) -> List[str]:
    """Write ``splits.json``; returns the counts as lines.

    The same episodes, labels, fraction and seed give the same split, on any computer.

    Args:
        valid: fraction to hold out, of each label apart (success, failure, unknown), rounded. One
            of each stays in train.
        force: replace the split that is there.

    Raises ConfigError for a fraction that is none, DatasetError where a split is there already
    or nothing would be held out.
    """
    if not 0 < valid < 1:
        raise ConfigError(f"valid {valid} is not in (0, 1)")
    with locked_dataset(folder) as dataset:
        path = folder / SPLITS
        if path.exists() and not force:
            raise DatasetError("there is a split already", "pass --force to replace it", path)
        names = divide(dataset, valid, seed)
        if not names[VALID]:
            raise ConfigError(
                f"valid {valid} of {len(dataset.paths)} episodes is none",
                "raise --valid or collect more",
                folder,
            )
        _write(folder, dict(names, seed=seed))
    labels = {path.name: meta.success for path, meta in zip(dataset.paths, dataset.metas)}
    return [_line(part, [labels[name] for name in names[part]]) for part in (TRAIN, VALID)]


def divide(dataset: Dataset, valid: float, seed: int) -> Dict[str, List[str]]:
    """File names for train and valid, each in order."""
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
    """Take episodes out of the splits, where there are any. The lock is the caller's."""
    if not (folder / SPLITS).exists():
        return
    splits, dropped = read_splits(folder), set(names)
    kept = {part: [n for n in files if n not in dropped] for part, files in splits.items()}
    if kept == splits:
        return
    raw = json.loads((folder / SPLITS).read_text())
    _write(folder, dict(raw, **kept))


def _write(folder: Path, content: Dict[str, Any]) -> None:
    path = folder / SPLITS
    temporary = path.with_name(f".{SPLITS}.editing")
    try:
        temporary.write_text(f"{json.dumps(content, indent=1)}\n")
        files.replace(temporary, path)
    except OSError as error:
        raise DatasetError(
            f"cannot be written ({error.strerror})", "mend that, then run it again", path
        ) from error


def _line(part: str, labels: List[int]) -> str:
    counts = ", ".join(f"{labels.count(k)} {v}" for k, v in LABEL_NAMES.items())
    return f"{part}: {len(labels)} episodes ({counts})"
