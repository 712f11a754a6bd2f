"""Which episodes of a dataset to use: a split written by ``ofrl data split``, the first so many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, List

from ofrl_robot.data.episodes.reader import Dataset
from ofrl_robot.errors import ConfigError, DatasetError

SPLITS = "splits.json"  # {"train": [file names], "valid": [file names], "seed": of the draw}
_FIX = "write it anew with `ofrl data split`"


def read_splits(folder: Path) -> Dict[str, List[str]]:
    """Episode file names of each split. Raises DatasetError where there is none, or a bad one."""
    path = folder / SPLITS
    try:
        splits = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DatasetError(f"no {SPLITS}", "run `ofrl data split` first", folder) from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"not readable ({error})", _FIX, path) from error
    if isinstance(splits, dict):
        splits.pop("seed", None)
    if not isinstance(splits, dict) or not all(
        isinstance(names, list) and all(isinstance(n, str) for n in names)
        for names in splits.values()
    ):
        raise DatasetError("not lists of episode names", _FIX, path)
    return splits


def select(dataset: Dataset, first: int = 0, split: str = "") -> List[int]:
    """Positions in ``dataset.paths`` of the chosen episodes, in order.

    Args:
        first: how many to take at most, of the split where one is given; 0 for all.
        split: name of the split, empty for all episodes. An episode in no split is in none; a
            name in the split whose episode is gone is passed over.

    Raises ConfigError for an unknown split, DatasetError where nothing is left.
    """
    numbers = list(range(len(dataset.paths)))
    if split:
        splits = read_splits(dataset.folder)
        if split not in splits:
            raise ConfigError(
                f"no split {split!r}, there is {', '.join(sorted(splits)) or 'none'}",
                "",
                dataset.folder / SPLITS,
            )
        names = set(splits[split])
        numbers = [k for k in numbers if dataset.paths[k].name in names]
        if not numbers:
            raise DatasetError(
                f"none of its episodes is in split {split!r}", _FIX, dataset.folder
            )
    return numbers[:first] if first else numbers
