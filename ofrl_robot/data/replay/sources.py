"""Open several datasets to train on together: which episodes of each, with which rewards."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import List, Literal, Optional, Sequence

import numpy as np

from ofrl_robot.data.datasets.dataset import Dataset, open_dataset
from ofrl_robot.data.datasets.splits import VALID, select
from ofrl_robot.data.episodes.schema import SUCCESS
from ofrl_robot.data.replay.transition_store import TransitionStore, open_transition_store
from ofrl_robot.errors import ConfigError, DatasetError, SpecMismatchError
from ofrl_robot.specs import require_same

HOLD_OUT_EVERY = 20  # of the episodes, where some are held out and there is no split


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset folder and how it is used.

    Attributes:
        folder: of the dataset.
        first: use at most this many episodes, the first ones (0 = all).
        split: use only the episodes of this split (empty = all).
        part: of those, "held_out" takes every 20th, "rest" the others, "" all.
        successes: of those, use only the ones that are labelled a success.
        reward_last: rewards are 1 at so many last steps of a successful episode and else 0,
            whatever was recorded (0 = as recorded).
        terminal_on_success: the last step of a successful episode is a terminal.
        reward_scale, reward_bias: rewards become reward * scale + bias; scale 0 removes them, as
            for prior data that shows another task.

    Raises:
        ConfigError: a number is out of range.
    """

    folder: Path
    first: int = 0
    split: str = ""
    part: Literal["", "rest", "held_out"] = ""
    successes: bool = False
    reward_last: int = 0
    terminal_on_success: bool = False
    reward_scale: float = 1.0
    reward_bias: float = 0.0

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ConfigError(f"the first {self.first} episodes cannot be used", "0 means all")
        for name in ("reward_scale", "reward_bias"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{name} is {getattr(self, name)}", "use a finite number")


@dataclasses.dataclass
class OpenSource:
    """A source that is open.

    Attributes:
        dataset: its chosen episodes.
        store: their transitions, rewards relabelled.
    """

    dataset: Dataset
    store: TransitionStore


def open_sources(
    sources: Sequence[Source],
    observe: Sequence[str] = (),
    cache: Optional[Path] = None,
    memory_mb: float = 4096,
) -> List[OpenSource]:
    """Open datasets that are to be trained on together.

    Args:
        sources: the datasets.
        observe: names of the cameras, and ``specs.STATE``, that the policy sees; by default the
            first camera.
        cache, memory_mb: as in
            :func:`~ofrl_robot.data.replay.transition_store.open_transition_store`. The bound
            holds for all together; those named first are mapped first.

    Raises:
        ConfigError: ``observe`` or a split is not what a dataset has.
        DatasetError: a dataset cannot be read.
        SpecMismatchError: two datasets differ in specs or control rate; both are named.
    """
    datasets = [open_dataset(source.folder) for source in sources]
    for dataset in datasets[1:]:
        _require_alike(dataset, datasets[0])
    opened = []
    for source, dataset in zip(sources, datasets):
        episodes = _chosen(dataset, source)
        store = open_transition_store(dataset, observe, cache, episodes, memory_mb)
        memory_mb -= store.resident_bytes / (1 << 20)
        labels = np.array([dataset.metas[k].success == SUCCESS for k in episodes], bool)
        store = store.with_outcomes(labels, source.reward_last, source.terminal_on_success)
        store = store.relabelled(source.reward_scale, source.reward_bias)
        opened.append(OpenSource(dataset.subset(episodes), store))
    return opened


def _chosen(dataset: Dataset, source: Source) -> List[int]:
    """Return the positions of the episodes that ``source`` uses."""
    episodes = select(dataset, source.first, source.split)
    if source.part:
        held_out = set(episodes[HOLD_OUT_EVERY - 1 :: HOLD_OUT_EVERY])
        episodes = [k for k in episodes if (k in held_out) == (source.part == "held_out")]
    if not source.successes:
        return episodes
    successful = [k for k in episodes if dataset.metas[k].success == SUCCESS]
    if not successful:
        which = " held-out" if source.part == "held_out" or source.split == VALID else ""
        raise DatasetError(
            f"not one of {len(episodes)}{which} episodes is labelled a success",
            "label successes first, or drop --successes-only",
            dataset.folder,
        )
    return successful


def _require_alike(dataset: Dataset, reference: Dataset) -> None:
    """Raise SpecMismatchError unless both have the same specs and control rate."""
    fix = "train on them apart, or convert one"
    names = str(dataset.folder), str(reference.folder)
    require_same(dataset.action_spec, reference.action_spec, *names, fix)
    require_same(dataset.observation_spec, reference.observation_spec, *names, fix)
    rate = dataset.metas[0].control_rate_hz
    expected = reference.metas[0].control_rate_hz
    if abs(rate - expected) > 0.01 * expected:  # the same margin as in deployment
        raise SpecMismatchError(
            f"control rate of {names[0]} is {rate:g} Hz but that of {names[1]} is {expected:g} Hz",
            fix,
        )
